"""Own data: a table becomes a collection and a table again, with nothing lost; bad rows are refused by their line."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nrccr.data.captions import is_blank, read_captions
from nrccr.data.collections import locate
from nrccr.data.escapes import escaped, unescaped
from nrccr.data.exporting import export_table
from nrccr.data.images import PictureFiles
from nrccr.data.importing import Imported, Recipe, import_table
from nrccr.data.languages import locate_languages
from nrccr.data.own import CaptionFile, Own, parse_name, read_own
from nrccr.data.tables import COLUMNS, read_table, write_table
from nrccr.errors import UserError

HEADER = list(COLUMNS)
Rows = list[list[str]]
BOTH: Rows = [
    ["a", "en", "A dog.", "train", "human", ""],
    ["a", "zh", "狗", "train", "translated", "m2m"],
    ["a", "en", "Dog.", "train", "translated", "m2m"],
    ["b", "zh", "人", "test", "human", ""],
    ["b", "en", "Man.", "test", "translated", "m2m"],
]


def imported(folder: Path, rows: Rows, header: list[str] = HEADER, recipe: Recipe | None = None) -> Imported:
    """What importing a table into `folder/mine` gives."""
    write_table(folder / "table.csv", header, rows)
    return import_table(folder / "table.csv", folder / "mine", recipe or Recipe(Own("mine")))


def exported(folder: Path) -> Rows:
    """The table of `folder/mine`, header first."""
    export_table(folder / "mine", folder / "back.csv", overwrite=True)
    with (folder / "back.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def refused(folder: Path, rows: Rows, header: list[str] = HEADER, recipe: Recipe | None = None) -> str:
    """The one line that a table is refused with; nothing is left of it."""
    with pytest.raises(UserError) as error:
        imported(folder, rows, header, recipe)
    assert sorted(path.name for path in folder.iterdir()) == ["table.csv"]
    return str(error.value).removeprefix(f"{folder}/")


def test_names_of_files_are_those_of_other_collections(tmp_path: Path) -> None:
    done = imported(tmp_path, BOTH)
    assert sorted(path.name for path in (tmp_path / "mine" / "TextData").iterdir()) == [
        "minetest_m2m_zh2enc.caption.txt",
        "minetest_zh.caption.txt",
        "minetrain.caption.txt",
        "minetrain_m2m_enc2zh.caption.txt",
        "minetrain_m2m_enc2zh2enc.caption.txt",
    ]
    assert dict(done.items) == {"train": 1, "val": 0, "test": 1} and done.own.splits == "from the table"
    collection = locate(tmp_path, "mine", target="zh", translator="m2m")
    back = collection.split("train").back
    assert back is not None and read_captions(back).ids == ["a#enc2zh2enc#0"]
    assert read_captions(collection.split("test").source).texts == ["Man."]
    assert locate(tmp_path, str(tmp_path / "mine"), translator="m2m") == collection
    assert locate_languages(tmp_path, "mine", translator="m2m").languages("train") == ["en", "zh"]


def test_a_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    imported(tmp_path, BOTH)
    with pytest.raises(UserError, match="enc2zh2enc.caption.txt .*`nrccr translate`.* or set data.translator to m2m"):
        locate(tmp_path, "mine", translator="google").split("train")
    with pytest.raises(UserError, match="mineval_zh.caption.txt .*add such rows of kind human"):
        locate(tmp_path, "mine", translator="m2m").file("val", "target")


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_every_kind_of_table_comes_back(tmp_path: Path, ending: str) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    texts = [
        'a "quoted", text',
        "emoji 🐶👩‍👩‍👧\nnext\r\nline",
        " outer \t",
        "back\\n \\slash\\",
        "\u2028\x0b\x85 x",
        "= 1+1",
    ]
    rows = [[f"item{i}#x", "en", text, "train", "human", ""] for i, text in enumerate(texts)]
    rows += [[f"item{i}#x", "no", text[::-1], "train", "translated", "m2m"] for i, text in enumerate(texts)]
    write_table(tmp_path / f"table.{ending}", HEADER, rows)
    import_table(tmp_path / f"table.{ending}", tmp_path / "mine", Recipe(Own("mine")))
    assert exported(tmp_path) == [HEADER, *rows]
    export_table(tmp_path / "mine", tmp_path / f"again.{ending}")
    again = read_table(tmp_path / f"again.{ending}").rows
    assert [(row.item, row.text) for row in again] == [(row[0], row[2]) for row in rows]
    # What a reader sees: the line breaks themselves, nothing outside.
    seen = read_captions(tmp_path / "mine" / "TextData" / "minetrain.caption.txt").texts
    assert seen == [text.strip() for text in texts]


def test_any_text_survives_on_one_line() -> None:
    choose = random.Random(0)
    letters = "\\\\\\\n\r\t nru0\u2028\x85\u3000é狗🐶"
    for _ in range(20_000):
        text = "".join(choose.choices(letters, k=choose.randrange(12)))
        line = escaped(text)
        assert unescaped(line) == text and "\n" not in line and "\r" not in line and line == line.strip()


def test_an_escape_that_there_is_not_is_named_by_its_line(tmp_path: Path) -> None:
    imported(tmp_path, BOTH)
    path = tmp_path / "mine" / "TextData" / "minetrain.caption.txt"
    for wrong in ("\\x", "\\ud800", "\\", "\\u0041"):
        path.write_text(f"a#enc#0 fine\nb#enc#0 bad{wrong}\n")
        with pytest.raises(UserError, match="train.caption.txt:2: .*is no escape"):
            read_captions(path)
    path.write_text("a#enc#0 \\u0020\n")
    with pytest.raises(UserError, match="train.caption.txt:1: .*has no text"):
        read_captions(path)
    # Published collections know no escapes.
    (tmp_path / "vatex" / "TextData").mkdir(parents=True)
    other = tmp_path / "vatex" / "TextData" / "vatextrain.caption.txt"
    other.write_text("a#enc#0 C:\\new\n")
    assert read_captions(other).texts == ["C:\\new"]


def test_splits_are_drawn_by_item_and_stated(tmp_path: Path) -> None:
    rows = [[f"v{i}", language, f"text {i}"] for i in range(50) for language in ("en", "zh")]
    done = imported(tmp_path, rows, HEADER[:3])
    assert dict(done.items) == {"train": 40, "val": 5, "test": 5}
    assert read_own(tmp_path / "mine").splits == "drawn by item, seed 0: 40 train, 5 val, 5 test"
    split_of = {(row[0], row[1]): row[3] for row in exported(tmp_path)[1:]}
    assert all(split_of[f"v{i}", "en"] == split_of[f"v{i}", "zh"] for i in range(50))

    random.Random(1).shuffle(rows)
    for seed, name in ((0, "shuffled"), (1, "other")):
        (tmp_path / name).mkdir()
        imported(tmp_path / name, rows, HEADER[:3], Recipe(Own("mine"), seed=seed))
    assert {(row[0], row[1]): row[3] for row in exported(tmp_path / "shuffled")[1:]} == split_of
    assert {(row[0], row[1]): row[3] for row in exported(tmp_path / "other")[1:]} != split_of


def test_an_item_keeps_the_split_that_one_of_its_rows_has(tmp_path: Path) -> None:
    rows = [["a", "en", "x", ""], ["a", "zh", "y", "test"], *([f"v{i}", "en", "z", ""] for i in range(10))]
    done = imported(tmp_path, rows, HEADER[:4])
    assert {row[3] for row in exported(tmp_path)[1:] if row[0] == "a"} == {"test"}
    assert done.own.splits.startswith("drawn by item of items that have none in the table, seed 0: 8 train")


def test_any_pair_of_languages_and_norwegian_in_quotes(tmp_path: Path) -> None:
    rows = [
        ["a", "no", "en hund", "train", "human", ""],
        ["a", "en", "a dog", "train", "translated", "x_1"],
        ["a", "no", "hund", "train", "translated", "x_1"],
        ["b", "en", "a man", "test", "human", ""],
        ["b", "no", "mann", "test", "translated", "x_1"],
    ]
    imported(tmp_path, rows, recipe=Recipe(Own("mine", source="no")))
    described = (tmp_path / "mine" / "collection.yaml").read_text()
    assert 'source: "no"' in described and read_own(tmp_path / "mine").source == "no"
    names = sorted(path.name.removesuffix(".caption.txt") for path in (tmp_path / "mine" / "TextData").iterdir())
    assert names == ["minetest_en", "minetest_x_1_en2no", "minetrain", "minetrain_x_1_no2en", "minetrain_x_1_no2en2no"]
    collection = locate(tmp_path, "mine", target="en", translator="x_1")
    files = collection.split("train")
    assert [path and path.name for path in (files.source, files.target, files.back)] == [
        "minetrain.caption.txt", "minetrain_x_1_no2en.caption.txt", "minetrain_x_1_no2en2no.caption.txt"
    ]  # fmt: skip
    assert sorted(exported(tmp_path)[1:]) == sorted(rows)
    with pytest.raises(UserError, match="training captions are in no, C2KD reads English"):
        locate_languages(tmp_path, "mine")
    # A word without quotes, too; false is refused with its line.
    (tmp_path / "mine" / "collection.yaml").write_text("name: mine\nsource: no\n")
    assert read_own(tmp_path / "mine").source == "no"
    (tmp_path / "mine" / "collection.yaml").write_text("name: mine\nsource: false\n")
    with pytest.raises(UserError, match="collection.yaml:2: source must be a word; put it in quotes"):
        read_own(tmp_path / "mine")


def test_further_columns_are_written_where_the_six_do_not_tell(tmp_path: Path) -> None:
    header = [*HEADER, "route", "number"]
    rows = [
        ["a", "en", "one", "train", "human", "", "", "0"],
        ["a", "en", "two", "train", "human", "", "", "1"],
        ["a", "de", "zwei", "train", "translated", "m2m", "en2de", "1"],
        ["a", "en", "two again", "train", "translated", "m2m", "en2de2en", "1"],
        ["a", "zh", "一", "train", "human", "", "", "0"],
        ["a", "en", "first", "train", "translated", "m2m", "zh2en", "0"],
    ]
    imported(tmp_path, rows, header)
    back = exported(tmp_path)
    assert back[0] == header and sorted(back[1:]) == sorted(rows)
    (tmp_path / "again").mkdir()
    imported(tmp_path / "again", back[1:], header)
    texts = Path("mine", "TextData")
    for path in (tmp_path / texts).iterdir():
        assert sorted(path.read_text().splitlines()) == sorted(
            (tmp_path / "again" / texts / path.name).read_text().splitlines()
        )


BAD_ROWS: list[tuple[Rows, str]] = [
    ([["a b", "en", "x", "", "", ""]], "item 'a b' cannot name a video or image"),
    ([["../../a", "en", "x", "", "", ""]], "item '../../a' cannot name"),
    ([["..", "en", "x", "", "", ""]], "item '..' cannot name"),
    ([["a\\b", "en", "x", "", "", ""]], "cannot name"),
    ([["a\nb", "en", "x", "", "", ""]], "cannot name"),
    ([["a\u200bb", "en", "x", "", "", ""]], "cannot name"),
    ([["a" * 201, "en", "x", "", "", ""]], "cannot name"),
    ([["", "en", "x", "", "", ""]], "no item"),
    ([["a", "", "x", "", "", ""]], "language ''"),
    ([["a", "English", "x", "", "", ""]], "language 'English': give a code"),
    ([["a", "enc", "x", "", "", ""]], "language 'enc'"),
    ([["a", "../x", "x", "", "", ""]], "language '../x'"),
    ([["a", "en", " \u200b", "", "", ""]], "item 'a' has no text"),
    ([["a", "en", "x", "dev", "", ""]], "split 'dev' is unknown; choose one of train, val, test"),
    ([["a", "en", "x", "", "machine", ""]], "kind 'machine' is unknown"),
    ([["a", "en", "x", "", "human", "m2m"]], "kind is human, but there is a translator"),
    ([["a", "zh", "x", "", "translated", ""]], "a translation without translator"),
    ([["a", "zh", "x", "", "", "../m2m"]], "translator '../m2m'"),
    ([["ä", "en", "x", "train", "", ""], ["a\u0308", "en", "x", "train", "", ""]], "looks like"),
    ([["a", "en", "x", "train", "", ""], ["a", "zh", "x", "test", "", ""]], "test here and train in an earlier row"),
    ([["a", "en", "x", "", "", ""]], "1 items without a split are too few"),
    (
        [["a", "en", "x", "train", "", ""], ["a", "en", "y", "train", "", ""], ["a", "zh", "z", "train", "", "m"]],
        "item 'a' has 1 translations along en2zh of 2 captions; add a column number",
    ),
    (
        [["a", *cells] for cells in (["zh", "x", "test", "", ""], ["de", "x", "", "", ""], ["en", "x", "", "", "m"])],
        "a translation into en, and it is not clear from which language; add a column route",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "said"), BAD_ROWS, ids=[said[:30] for _, said in BAD_ROWS])
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, rows: Rows, said: str) -> None:
    good = ["fine", "en", "two\nlines", "train", "human", ""]
    message = refused(tmp_path, [good, *rows])
    assert said in message
    if "too few" not in message:
        # The header, and the good row's two lines.
        assert message.startswith(f"table.csv:{4 + len(rows) - 1}: ")


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("t.csv", b"item,language,text\na,en,caf\xe9\n", "t.csv:2: not UTF-8"),
        ("t.csv", b"item;language;text\na;en;x\n", "t.csv:1: the header has no column item, language, text; the sep"),
        ("t.csv", b"item,language,text\na,en,x,y\n", "t.csv:2: 4 cells, but the header has 3"),
        ("t.csv", b'item,language,text\na,en,"x\n\nb,en,y\n', "t.csv:2: not a row of a table"),
        ("t.csv", b'item,language,text\na,en,"x" y\n', "t.csv:2: not a row of a table"),
        ("t.csv", b"item,text,language,Text\na,b,en,c\n", "t.csv:1: two columns are named 'text'"),
        ("t.csv", b"", "t.csv: holds no rows"),
        ("t.csv", b"item,language,text\n\n", "t.csv: holds no rows"),
        ("t.csv", b"item,language,text\na,en," + b"x" * 2_000_000, "t.csv:2: a line of more than"),
        ("t.csv", b"item,language,text\na,en," + b"x" * 120_000, "t.csv:2: text has 120000 characters"),
        ("t.jsonl", b'{"item": "a"\n', "t.jsonl:1: not JSON"),
        ("t.jsonl", b'{"item": 7, "language": "en", "text": "x"}\n[]\n', "t.jsonl:2: not an object"),
        ("t.jsonl", b'{"item": 7, "language": false, "text": "x"}\n', "t.jsonl:1: language is bool, not text"),
        ("t.jsonl", b'{"item": 7, "language": "en", "text": ["x"]}\n', "t.jsonl:1: text is list, not text"),
        ("t.jsonl", b'{"item": 7, "language": "en", "text": "\\ud800"}\n', "t.jsonl:1: text is no valid Unicode"),
        ("t.jsonl", b'{"item": 7, "language": "en"}\n', "t.jsonl:1: no column text, there are item, language"),
        ("t.jsonl", b"[" * 100_000, "t.jsonl:1: not JSON"),
        ("t.parquet", b"PAR1 but no more", "t.parquet: not a parquet file, or damaged"),
        ("t.xlsx", b"", "t.xlsx: no table by its ending"),
    ],
)
def test_a_damaged_table_is_one_line(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError) as error:
        import_table(tmp_path / name, tmp_path / "mine", Recipe(Own("mine")))
    assert str(error.value).removeprefix(f"{tmp_path}/").startswith(said)
    assert not (tmp_path / "mine").exists()


def test_columns_that_are_not_read_are_told(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(
        "".join(json.dumps({"Item": i, "language": "en", "text": "x", "notes": 1}) + "\n" for i in range(9))
    )
    assert import_table(path, tmp_path / "mine", Recipe(Own("mine"))).ignored == ["notes"]


@pytest.mark.parametrize("name", ["vatex", "generated", "multi_msrvtt", "..", "a b", "a/b", ""])
def test_names_that_a_collection_cannot_have(tmp_path: Path, name: str) -> None:
    assert f"name {name!r}" in refused(tmp_path, BOTH, recipe=Recipe(Own(name)))


def test_a_file_name_says_what_is_in_it() -> None:
    own = Own("mine")
    for file in (
        CaptionFile("train", ("en",)),
        CaptionFile("val", ("zh-Hant",)),
        CaptionFile("train", ("en", "zh", "en", "zh"), "a_b"),
        CaptionFile("test", ("no", "en"), "a.2b"),
    ):
        assert parse_name(file.name(own), own) == file
    for name in ("minetrain_half.caption.txt", "mine2train.caption.txt", "minedev.caption.txt", "minetrain.txt"):
        assert parse_name(name, own) is None


def test_an_existing_folder_is_refused_and_replaced_only_on_demand(tmp_path: Path) -> None:
    imported(tmp_path, BOTH)
    features = tmp_path / "mine" / "FeatureData" / "clip" / "feature.bin"
    features.parent.mkdir(parents=True)
    features.write_bytes(b"hours")
    with pytest.raises(UserError, match="exists already; .*--overwrite"):
        import_table(tmp_path / "table.csv", tmp_path / "mine", Recipe(Own("mine")))
    write_table(tmp_path / "table.csv", HEADER, BOTH[:1])
    import_table(tmp_path / "table.csv", tmp_path / "mine", Recipe(Own("mine")), overwrite=True)
    assert features.read_bytes() == b"hours" and exported(tmp_path)[1:] == BOTH[:1]
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    with pytest.raises(UserError, match="no collection.yaml in it"):
        import_table(tmp_path / "table.csv", tmp_path / "precious", Recipe(Own("mine")), overwrite=True)
    assert (tmp_path / "precious" / "file").exists()
    # A bad table leaves what was there.
    write_table(tmp_path / "table.csv", HEADER, [["a b", *BOTH[0][1:]]])
    with pytest.raises(UserError):
        import_table(tmp_path / "table.csv", tmp_path / "mine", Recipe(Own("mine")), overwrite=True)
    assert exported(tmp_path)[1:] == BOTH[:1]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_import_leaves_the_collection_whole_or_absent(tmp_path: Path) -> None:
    rows = [[f"v{i}", language, f"text {i}"] for i in range(3000) for language in ("en", "zh")]
    write_table(tmp_path / "table.csv", HEADER[:3], rows)
    code = (
        "import sys; from pathlib import Path; from nrccr.data.importing import *; from nrccr.data.own import Own\n"
        "print('go', flush=True); folder = Path(sys.argv[1])\n"
        "import_table(folder / 'table.csv', folder / 'mine', Recipe(Own('mine')))\n"
    )
    outcomes = set()
    for moment in (0.02, 0.1, 0.2, 60.0):
        process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, env=dict(os.environ))
        assert process.stdout is not None and process.stdout.readline() == b"go\n"
        end = time.monotonic() + moment
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        process.kill()
        process.wait()
        process.stdout.close()
        whole = (tmp_path / "mine").exists()
        outcomes.add(whole)
        if whole:
            assert len(exported(tmp_path)) == len(rows) + 1
            break
    assert True in outcomes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back.csv", "mine", "table.csv"]


def test_own_images_have_vectors_by_split(tmp_path: Path) -> None:
    rows = [[name, "en", "x", "train", "human", ""] for name in ("a.jpg", "b.png")]
    imported(tmp_path, rows, recipe=Recipe(Own("mine", images=True)))
    assert [row[0] for row in exported(tmp_path)[1:]] == ["a", "b.png"]
    features = tmp_path / "mine" / "FeatureData" / "clip"
    features.mkdir(parents=True)
    np.save(features / "test-clip-avgpool.npy", np.zeros((1, 4), np.float32))
    (features / "test_id.txt").write_text("a\n")
    collection = locate(tmp_path, "mine", target="zh")
    assert collection.features == features and collection.pictures == tmp_path / "mine" / "images"
    assert collection.vectors("test") == (features / "test-clip-avgpool.npy", features / "test_id.txt")
    with pytest.raises(UserError, match="no file train-clip-avgpool.npy"):
        collection.vectors("train")
    (tmp_path / "mine" / "images").mkdir()
    for name in ("a.jpg", "b.png"):
        (tmp_path / "mine" / "images" / name).touch()
    pictures = PictureFiles(tmp_path / "mine" / "images")
    assert "a" in pictures and "b.png" in pictures and "c" not in pictures


def test_a_description_is_checked(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for text, said in (
        ("source: en\n", "collection.yaml: no key name"),
        ("name: mine\nlanguage: en\n", "collection.yaml:2: key language is unknown"),
        ("name: mine\nkind: films\n", "collection.yaml:2: kind must be videos or images"),
        ("name: mine\nescapes: maybe\n", "collection.yaml:2: escapes must be true or false"),
        ("name: vatex\n", "collection.yaml:1: name 'vatex' is that of a published"),
        ("name: ../x\n", "collection.yaml:1: name '../x'"),
        ("name: mine\nfeature: ../x\n", "collection.yaml:2: feature '../x'"),
        ("name: &a mine\nsource: *a\n", "aliases"),
    ):
        (folder / "collection.yaml").write_text(text)
        with pytest.raises(UserError) as error:
            locate(tmp_path, "mine")
        assert said in str(error.value)
    (folder / "collection.yaml").write_text("name: mine\n")
    with pytest.raises(UserError, match="data.target"):
        locate(tmp_path, "mine", target="../x")
    with pytest.raises(UserError, match="no collection.yaml in it"):
        locate(tmp_path, str(tmp_path))


def test_blank_texts_are_refused_as_readers_do() -> None:
    assert is_blank(unescaped(escaped(" \n\u200b"))) and not is_blank("x")
