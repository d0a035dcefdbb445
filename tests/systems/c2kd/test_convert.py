"""Published pickles become a collection on disk: every format, missing languages, repeated ids, bad files."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nrccr.data.bigfile import BigFile
from nrccr.data.captions import read_captions
from nrccr.errors import UserError
from nrccr.systems.c2kd.convert import PublishedCollection, convert_c2kd, guess_split


def frames(count: int, seed: int = 0, width: int = 4) -> Any:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def write(path: Path, records: Any) -> Path:
    path.write_bytes(pickle.dumps(records))
    return path


def lines(folder: Path, split: str, language: str) -> list[str]:
    path = folder / "TextData" / f"{folder.name}{split}_{language}.caption.txt"
    captions = read_captions(path)
    return [" ".join(parts) for parts in zip(captions.items, captions.numbers, captions.texts, strict=True)]


def languages(folder: Path) -> set[str]:
    return {
        path.name.removesuffix(".caption.txt").rsplit(folder.name, 1)[1] for path in (folder / "TextData").iterdir()
    }


def video_frames(folder: Path, feature: str, item: str) -> Any:
    features = BigFile(folder / "FeatureData" / feature)
    return features.read([features.rows(item)])[0][0]


MSRVTT_TRAIN = [
    {"id": "video0", "2d": frames(3), "audio": frames(40), "caption": ["x"],
     "caption_en": ["A man's dog, runs!", "a  red\nball"], "caption_de": ["Ein Hund", "ein Ball"],
     "caption_zh": ["狗", ""]},
    {"id": "video1", "2d": frames(2, 1), "caption_en": ["water"], "caption_de": ["Wasser"], "caption_zh": ["水"]},
]  # fmt: skip
MSRVTT_TEST = [{"id": "video7", "2d": frames(1, 2), "eval_caption_en": "A dog.", "eval_caption_de": "Hund."}]


def test_msrvtt(tmp_path: Path) -> None:
    train, test = write(tmp_path / "train.pkl", MSRVTT_TRAIN), write(tmp_path / "test.pkl", MSRVTT_TEST)
    done = convert_c2kd({"test": test, "train": train}, tmp_path / "out", "msrvtt")
    folder = tmp_path / "out" / "multi_msrvtt"
    assert done.folder == folder and list((tmp_path / "out").iterdir()) == [folder]
    assert lines(folder, "train", "en") == ["video0 0 A man's dog, runs!", "video0 1 a red ball", "video1 0 water"]
    assert lines(folder, "train", "en_words") == ["video0 0 A man's dog runs", "video0 1 a red ball", "video1 0 water"]
    assert lines(folder, "train", "de") == ["video0 0 Ein Hund", "video0 1 ein Ball", "video1 0 Wasser"]
    assert lines(folder, "train", "zh") == ["video0 0 狗", "video1 0 水"]
    assert lines(folder, "test", "en") == ["video7 0 A dog."] and lines(folder, "test", "en_words") == [
        "video7 0 A dog"
    ]
    split_languages = {f"train_{name}" for name in ("en", "de", "zh", "en_words")}
    assert languages(folder) == split_languages | {f"test_{name}" for name in ("en", "de", "en_words")}
    for record in (*MSRVTT_TRAIN, *MSRVTT_TEST):
        np.testing.assert_array_equal(video_frames(folder, "clip", str(record["id"])), record["2d"])
    assert done.items == {"train": 2, "test": 1} and done.missing == {"train": {"zh": 1}, "test": {}}
    assert done.captions["train"] == {"en": 3, "de": 3, "zh": 2, "en_words": 3}


def test_vatex_keeps_its_two_languages(tmp_path: Path) -> None:
    records = [{"id": "a", "2d": frames(2), "caption_en": ["a dog"], "caption_zh": ["狗"], "caption_de": ["Hund"]}]
    convert_c2kd({"train": write(tmp_path / "t.pkl", records)}, tmp_path, "vatex")
    assert languages(tmp_path / "multi_vatex") == {"train_en", "train_zh", "train_en_words"}


def test_youcook2(tmp_path: Path) -> None:
    records = [
        {"id": "v_0", "s3d": frames(2), "caption": "cut, it", "caption_en": "Cut it!", "caption_cz": "krájej"},
        {"id": "v_1", "s3d": frames(3, 1), "caption": "mix", "caption_en": "Mix.", "caption_cz": "míchej",
         "caption_sw": "x"},
    ]  # fmt: skip
    done = convert_c2kd({"test": write(tmp_path / "val.pkl", records)}, tmp_path, "youcook2")
    assert lines(done.folder, "test", "cs") == ["v_0 0 krájej", "v_1 0 míchej"]
    assert lines(done.folder, "test", "en") == ["v_0 0 Cut it!", "v_1 0 Mix."]
    assert lines(done.folder, "test", "en_words") == ["v_0 0 cut it", "v_1 0 mix"]
    assert languages(done.folder) == {"test_cs", "test_en", "test_en_words"}
    np.testing.assert_array_equal(video_frames(done.folder, "s3d", "v_1"), records[1]["s3d"])


@pytest.mark.parametrize("with_full", [True, False])
def test_youcook2_entries_without_the_full_feature(tmp_path: Path, with_full: bool) -> None:
    records: list[dict[str, Any]] = [
        {"id": name, "2d_raw": frames(1, seed), "caption": name, "caption_en": name} for seed, name in enumerate("ab")
    ]
    if with_full:
        records[1]["2d_full"] = frames(1)
    done = convert_c2kd({"train": write(tmp_path / "t.pkl", records)}, tmp_path, "youcook2")
    assert done.items == {"train": 1 if with_full else 2}
    assert lines(done.folder, "train", "en") == (["b 0 b"] if with_full else ["a 0 a", "b 0 b"])


RUDDER = [
    {"id": "a", "2d": frames(2), "captions": {"en": "glue, paper", "hi": "गोंद", "ta": "x"}, "audios": {}},
    {"id": "b", "2d": frames(2, 1), "captions": {"mr": "कागद", "hi": "कागज"}, "audios": {}},
]


def test_rudder_skips_what_is_missing(tmp_path: Path) -> None:
    done = convert_c2kd({"train": write(tmp_path / "t.pkl", RUDDER)}, tmp_path, "rudder")
    assert languages(done.folder) == {"train_en", "train_hi", "train_mr", "train_en_words"}
    assert lines(done.folder, "train", "en") == lines(done.folder, "train", "en_words") == ["a 0 glue, paper"]
    assert lines(done.folder, "train", "hi") == ["a 0 गोंद", "b 0 कागज"]
    assert lines(done.folder, "train", "mr") == ["b 0 कागद"]
    assert done.missing["train"] == {"en": 1, "mr": 1, "en_words": 1}


def test_rudder_fills_as_published(tmp_path: Path) -> None:
    done = convert_c2kd({"train": write(tmp_path / "t.pkl", RUDDER)}, tmp_path, "rudder", fill_missing=True)
    assert lines(done.folder, "train", "mr") == ["a 0 glue, paper", "b 0 कागद"]
    assert lines(done.folder, "train", "en") == ["a 0 glue, paper", "b 0 कागज"]
    assert lines(done.folder, "train", "en_words") == lines(done.folder, "train", "en")
    assert done.missing["train"] == {} and "train_kn" not in languages(done.folder)


def test_teachers_read_filled_captions_as_words_too(tmp_path: Path) -> None:
    records = [
        {"id": "a", "s3d": frames(2), "caption": "cut, it!", "caption_en": "Cut it!", "caption_es": "corta"},
        {"id": "b", "s3d": frames(2, 1), "caption_en": "Mix, don't stir.", "caption_es": ""},
        {"id": "c", "s3d": frames(2, 2), "caption_en": "?!", "caption_es": "ya"},
    ]
    done = convert_c2kd({"train": write(tmp_path / "t.pkl", records)}, tmp_path, "youcook2", fill_missing=True)
    assert lines(done.folder, "train", "en_words") == ["a 0 cut it", "b 0 Mix don't stir"]
    assert lines(done.folder, "train", "es") == ["a 0 corta", "b 0 Mix, don't stir.", "c 0 ya"]
    assert done.missing["train"] == {"en_words": 1}


def test_an_id_that_comes_again(tmp_path: Path) -> None:
    def record(text: str, seed: int) -> dict[str, Any]:
        return {"id": "a", "2d": frames(2, seed), "caption_en": [text], "eval_caption_en": text}

    train = write(tmp_path / "train.pkl", [record("one", 0), record("two", 0), record("three", 1)])
    test = write(tmp_path / "test.pkl", [record("four", 1), record("five", 2)])
    done = convert_c2kd({"train": train, "test": test}, tmp_path, "msrvtt")
    assert lines(done.folder, "train", "en") == ["a 0 one", "a 1 two", "a.2 0 three"]
    assert lines(done.folder, "test", "en") == ["a.2 0 four", "a.3 0 five"]
    assert done.renamed == ["a.2", "a.3"] and done.items == {"train": 2, "test": 2}
    for seed, item in enumerate(("a", "a.2", "a.3")):
        np.testing.assert_array_equal(video_frames(done.folder, "clip", item), frames(2, seed))


def test_entries_are_named_by_their_place_in_the_file(tmp_path: Path) -> None:
    record = {"2d_raw": frames(2), "caption": "x", "caption_en": "x"}
    records = [record | {"id": "left out"}, record | {"id": "a b", "2d_full": frames(2)}]
    with pytest.raises(UserError, match="entry 1 has the id 'a b'"):
        convert_c2kd({"train": write(tmp_path / "t.pkl", records)}, tmp_path, "youcook2")


@pytest.mark.parametrize("kind", [np.float16, np.float64, np.int32, np.uint8])
def test_real_numbers_of_any_type(tmp_path: Path, kind: Any) -> None:
    given = np.arange(8).reshape(2, 4).astype(kind)
    records = [{"id": "a", "2d": given, "caption_en": ["x"]}]
    done = convert_c2kd({"train": write(tmp_path / "t.pkl", records)}, tmp_path, "msrvtt")
    np.testing.assert_array_equal(video_frames(done.folder, "clip", "a"), given)


@pytest.mark.parametrize(
    ("collection", "record", "field"),
    [
        ("youcook2", {"caption_en": "x", "caption": np.array([1, 2])}, "caption"),
        ("rudder", {"captions": {"en": np.array([1, 2])}}, "en"),
    ],
)
def test_captions_that_are_arrays(
    tmp_path: Path, collection: PublishedCollection, record: dict[str, Any], field: str
) -> None:
    path = write(tmp_path / "t.pkl", [{"id": "a", "2d": frames(2)} | record])
    with pytest.raises(UserError, match=f"entry 0: the captions in '{field}' are no text"):
        convert_c2kd({"train": path}, tmp_path, collection)


def test_a_video_without_frames_is_left_out_and_named(tmp_path: Path) -> None:
    records = [*MSRVTT_TRAIN, {"id": "gone", "2d": frames(0), "caption_en": ["nothing"]}]
    done = convert_c2kd({"train": write(tmp_path / "t.pkl", records)}, tmp_path, "msrvtt")
    assert done.without_frames == ["gone"] and done.items == {"train": 2}
    assert all("nothing" not in line for line in lines(done.folder, "train", "en"))


def spoiled(**changed: Any) -> list[dict[str, Any]]:
    record = {key: value for key, value in (MSRVTT_TRAIN[1] | changed).items() if value is not None}
    return [MSRVTT_TRAIN[0], record]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("records", "says"),
    [
        (spoiled(id=None), "entry 1 has the id None"),
        (spoiled(id="a b"), "without white space"),
        (spoiled(caption_en=None), "entry 1 has no caption_en"),
        (spoiled(caption_en=[3]), "'en' are no text"),
        (spoiled(caption_en=np.array([1, 2])), "entry 1: the captions in 'en' are no text"),
        (spoiled(caption_de={}), "'de' are no text"),
        (spoiled(caption_de=["x \udc80 y"]), r"entry 1: the caption 'x \udc80 y' in 'de' cannot be written as UTF-8"),
        (spoiled(id="x\udc80"), r"entry 1 has the id 'x\udc80'; it must be Latin-1"),
        (spoiled(id="视频"), "must be Latin-1"),
        (spoiled(caption_en=[""], caption_de=None, caption_zh=None), "entry 1 has no captions"),
        (spoiled(**{"2d": None}), "entry 1 has no feature '2d'"),
        (spoiled(**{"2d": frames(2, 0, 5)}), "5 wide, those before 4"),
        (spoiled(**{"2d": frames(2)[0]}), "not (frames, width)"),
        (spoiled(**{"2d": frames(2) * np.nan}), "entry 1: '2d' holds a NaN"),
        (spoiled(**{"2d": np.full((2, 4), 1e300)}), "entry 1: '2d' holds a NaN or an infinity in float32"),
        (spoiled(**{"2d": frames(2) + 1j}), "entry 1: '2d' holds complex64, not real numbers"),
        (spoiled(**{"2d": frames(2) > 0}), "entry 1: '2d' holds bool, not real numbers"),
        ([MSRVTT_TRAIN[0] | {"2d": frames(0)}], "none of its 1 videos has frames"),
        (MSRVTT_TEST, "is this the train pickle"),
        ([{"id": "a", "caption_en": ["x"]}], "no feature 2d or 2d_raw or s3d"),
        ([MSRVTT_TRAIN[0] | {"s3d": frames(2)}], "has the features 2d, s3d; give the one"),
        ([{"id": "a", "2d": Path("x")}], "refused"),
        ({"id": "a"}, "list of dicts"),
    ],
)
def test_bad_pickles_are_one_line_and_leave_nothing(tmp_path: Path, records: Any, says: str) -> None:
    path = write(tmp_path / "t.pkl", records)
    with pytest.raises(UserError) as caught:
        convert_c2kd({"train": path}, tmp_path / "out", "msrvtt")
    message = str(caught.value)
    assert says in message and message.startswith(str(path)) and "\n" not in message
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_the_feature_can_be_named(tmp_path: Path) -> None:
    records = [MSRVTT_TRAIN[0] | {"s3d": frames(2, 5)}]
    done = convert_c2kd({"train": write(tmp_path / "t.pkl", records)}, tmp_path, "msrvtt", feature="s3d")
    np.testing.assert_array_equal(video_frames(done.folder, "s3d", "video0"), frames(2, 5))


def test_what_exists_stays(tmp_path: Path) -> None:
    path = write(tmp_path / "t.pkl", MSRVTT_TRAIN)
    convert_c2kd({"train": path}, tmp_path, "msrvtt")
    before = (tmp_path / "multi_msrvtt" / "FeatureData" / "clip" / "feature.bin").stat()
    with pytest.raises(UserError, match="exists already"):
        convert_c2kd({"train": path}, tmp_path, "msrvtt")
    assert (tmp_path / "multi_msrvtt" / "FeatureData" / "clip" / "feature.bin").stat() == before


def test_an_out_that_is_no_folder(tmp_path: Path) -> None:
    path = write(tmp_path / "t.pkl", MSRVTT_TRAIN)
    with pytest.raises(UserError, match=f"^{path}: is a file; is the last argument the folder"):
        convert_c2kd({"train": path}, path, "msrvtt")
    with pytest.raises(UserError, match=f"^{path}/below/multi_msrvtt: cannot be written"):
        convert_c2kd({"train": path}, path / "below", "msrvtt")
    assert [*tmp_path.iterdir()] == [path]


def test_unknown_names(tmp_path: Path) -> None:
    unknown: Any = "coco"
    known: PublishedCollection = "vatex"
    with pytest.raises(UserError, match="choose one of msrvtt, vatex, youcook2, rudder"):
        convert_c2kd({"train": tmp_path}, tmp_path, unknown)
    with pytest.raises(UserError, match="no data pickles"):
        convert_c2kd({}, tmp_path, known)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("msrvtt_train_multilingual.pkl", "train"),
        ("msrvtt_jsfusion_test_multilingual.pkl", "test"),
        ("youcook_val_audio_multilingual_fixed.pkl", "test"),
    ],
)
def test_splits_of_the_published_names(name: str, split: str) -> None:
    assert guess_split(Path(name)) == split
    with pytest.raises(UserError, match="train or test"):
        guess_split(Path("data.pkl"))
