"""Caption files: one parser, every complaint, and matching beside a brute-force twin."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from nrccr.data.captions import Captions, match, parse_captions, read_captions
from nrccr.errors import UserError


def write(path: Path, *lines: str) -> Path:
    """A caption file of these lines."""
    path.write_bytes("".join(line + "\n" for line in lines).encode())
    return path


def complaint(action: Callable[[], object]) -> str:
    """The one line of the UserError that the action must raise."""
    with pytest.raises(UserError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_reads_lines_in_file_order(tmp_path: Path) -> None:
    path = write(tmp_path / "a.caption.txt", "v2#enc#0 a man runs", "v1#enc#10\t他 跑 ", "a#b#zh2enc#x  odd # id\u3000")
    captions = read_captions(path)
    assert captions == Captions(
        path,
        ids=["v2#enc#0", "v1#enc#10", "a#b#zh2enc#x"],
        items=["v2", "v1", "a#b"],
        numbers=["0", "10", "x"],
        texts=["a man runs", "他 跑", "odd # id"],
    )
    assert captions.keys == [("v2", "0"), ("v1", "10"), ("a#b", "x")]
    assert len(captions) == 3


def test_byte_order_mark_carriage_returns_and_blank_end(tmp_path: Path) -> None:
    path = tmp_path / "a.caption.txt"
    path.write_bytes("\ufeffv#enc#0 one\r\nv#enc#1 two\r\n \r\n\n".encode())
    captions = read_captions(path)
    assert (captions.ids, captions.texts) == (["v#enc#0", "v#enc#1"], ["one", "two"])


def test_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.caption.txt", "v#zh#0 one\u2028still\x85one\x0bline", "v#zh#1 two")
    assert read_captions(path).texts == ["one\u2028still\x85one\x0bline", "two"]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (b"v#enc#1", "caption 'v#enc#1' has no text"),
        (b"v#enc#1   ", "caption 'v#enc#1' has no text"),
        ("v#enc#1 \u3000".encode(), "caption 'v#enc#1' has no text"),
        ("v#enc#1 \u200b\u2060\ufeff".encode(), "caption 'v#enc#1' has no text"),
        ("\ufeffv#enc#1 a man".encode(), "a byte order mark stands before the id"),
        (b"v#enc a man", "'v#enc' is not an id of the form item#tag#number"),
        (b"a man", "'a' is not an id"),
        (b"#enc#1 a man", "'#enc#1' is not an id"),
        (b"v##1 a man", "'v##1' is not an id"),
        (b"v#enc# a man", "'v#enc#' is not an id"),
        (b"", "empty line"),
        (b"v#zh#0 again", "'v#zh#0' repeats item 'v' and number '0' of line 1"),
        (b"v#enc#1 caf\xe9", "not UTF-8"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, wanted: str) -> None:
    path = tmp_path / "a.caption.txt"
    path.write_bytes(b"v#enc#0 good\n" + line + b"\nv#enc#2 good\n")
    assert complaint(lambda: read_captions(path)).startswith(f"{path}:2: {wanted}")
    captions, problems = parse_captions(path)
    assert captions.ids == ["v#enc#0", "v#enc#2"]
    assert len(problems) == 1


def test_all_bad_lines_are_gathered(tmp_path: Path) -> None:
    path = tmp_path / "a.caption.txt"
    path.write_bytes(b"v#enc#0\nv#enc#1 \xff\nv#enc#1 good\nw\n")
    captions, problems = parse_captions(path)
    assert captions.texts == ["good"]
    assert [problem.split(":")[1] for problem in problems] == ["1", "2", "4"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "no.caption.txt"
    assert complaint(lambda: read_captions(missing)).startswith(f"{missing}: no such caption file")
    assert complaint(lambda: read_captions(tmp_path)).startswith(f"{tmp_path}: cannot be read")
    empty = write(tmp_path / "empty.caption.txt", "", " ")
    assert complaint(lambda: read_captions(empty)).startswith(f"{empty}: holds no captions")


def test_match_takes_the_first_files_order(tmp_path: Path) -> None:
    one = read_captions(write(tmp_path / "1", "v#enc#0 A", "w#enc#0 B", "v#enc#1 C", "x#enc#0 D"))
    two = read_captions(write(tmp_path / "2", "v#zh#1 c", "v#zh#0 a", "y#zh#0 e", "w#zh#0 b"))
    matched = match([one, two], tolerance=0.25)
    assert [captions.texts for captions in matched.captions] == [["A", "B", "C"], ["a", "b", "c"]]
    assert matched.captions[0].keys == matched.captions[1].keys
    assert matched.unmatched == {one.path: ["x#enc#0"], two.path: ["y#zh#0"]}


def test_match_of_equal_files_copies_nothing(tmp_path: Path) -> None:
    one = read_captions(write(tmp_path / "1", "v#enc#0 A", "w#enc#0 B"))
    two = read_captions(write(tmp_path / "2", "v#zhc2en#0 a", "w#zhc2en#0 b"))
    matched = match([one, two], tolerance=0.0)
    assert matched.captions[0] is one and matched.captions[1] is two
    assert matched.unmatched == {one.path: [], two.path: []}


def test_the_share_is_that_of_the_worst_file(tmp_path: Path) -> None:
    long = read_captions(write(tmp_path / "long", *(f"v#enc#{k} text" for k in range(100))))
    short = read_captions(write(tmp_path / "short", *(f"v#zh#{k} text" for k in range(95))))
    assert len(match([short, long], tolerance=0.05).captions[0]) == 95
    said = complaint(lambda: match([short, long], tolerance=0.049))
    assert said == (
        f"{long.path}: 5 of 100 lines have no line with the same item and number in short "
        "(v#enc#95, v#enc#96, v#enc#97 and 2 more); fix the files or raise data.mismatch_tolerance above 0.049"
    )


def test_nothing_in_common_is_never_tolerated(tmp_path: Path) -> None:
    one = read_captions(write(tmp_path / "1", "v#enc#0 A"))
    two = read_captions(write(tmp_path / "2", "w#zh#0 b"))
    assert "1 of 1 lines" in complaint(lambda: match([one, two], tolerance=1.0))


def test_match_equals_brute_force(tmp_path: Path) -> None:
    dice = random.Random(0)
    files = []
    for name in "abc":
        keys = [(f"v{i}", str(k)) for i in range(6) for k in range(4) if dice.random() < 0.7]
        dice.shuffle(keys)
        files.append(read_captions(write(tmp_path / name, *(f"{v}#{name}#{k} {name} {v} {k}" for v, k in keys))))
    matched = match(files, tolerance=1.0)
    wanted = [key for key in files[0].keys if all(key in other.keys for other in files)]
    assert wanted
    for file, captions in zip(files, matched.captions, strict=True):
        name = file.path.name
        assert captions.keys == wanted
        assert captions.texts == [f"{name} {v} {k}" for v, k in wanted]
        assert captions.ids == [f"{v}#{name}#{k}" for v, k in wanted]
        dropped = [i for i, key in zip(file.ids, file.keys, strict=True) if key not in wanted]
        assert matched.unmatched[file.path] == dropped


@pytest.mark.parametrize(
    ("names", "count"),
    [
        (["vatextrain", "vatextrain_google_enc2zh", "vatextrain_google_enc2zh2enc"], 7_500),
        (["vatexval_google_zh2enc", "vatexval_zh"], 4_998),
        (["vatextest_google_zh2enc", "vatextest_zh"], 9_994),
    ],
)
def test_real_captions(shared: Path, names: list[str], count: int) -> None:
    folder = shared / "data" / "VisualSearch" / "vatex" / "TextData"
    matched = match([read_captions(folder / f"{name}.caption.txt") for name in names], tolerance=0.0)
    assert [len(captions) for captions in matched.captions] == [count] * len(names)


@pytest.mark.parametrize("end", ["", "\r", "\r\r"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_lone_carriage_returns_end_lines_where_no_line_feed_does(start: str, end: str, tmp_path: Path) -> None:
    path = tmp_path / "a.caption.txt"
    path.write_bytes(f"{start}v#enc#0 one\rv#enc#1 two{end}".encode())
    assert read_captions(path).texts == ["one", "two"]
    path.write_bytes(b"v#enc#0 one\rand more\n")
    assert read_captions(path).texts == ["one\rand more"]


@pytest.mark.parametrize("item", ["cafe\u0301", "caf\u00e9\u200b"])
def test_ids_that_look_the_same_are_told_apart(item: str, tmp_path: Path) -> None:
    one = read_captions(write(tmp_path / "1", "caf\u00e9#enc#0 A", "w#enc#0 B"))
    two = read_captions(write(tmp_path / "2", f"{item}#zh#0 a", "w#zh#0 b"))
    said = complaint(lambda: match([one, two], tolerance=0.0))
    assert ascii("caf\u00e9#enc#0") in said and ascii(f"{item}#zh#0") in said and "look the same" in said
