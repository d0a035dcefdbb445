"""Feature folders: reading beside a loop over frames, writing and reading back, and every complaint."""

from __future__ import annotations

import ast
import pickle
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from nrccr.data.bigfile import BigFile, read_video_frames, select_frames, write_bigfile
from nrccr.errors import UserError


@pytest.fixture
def videos() -> list[tuple[str, np.ndarray]]:
    """Five videos of 3, 1, 4, 1 and 5 frames, 6 wide."""
    random = np.random.default_rng(0)
    return [(f"v_{index}", random.standard_normal((count, 6))) for index, count in enumerate([3, 1, 4, 1, 5])]


@pytest.fixture
def folder(tmp_path: Path, videos: list[tuple[str, np.ndarray]]) -> Path:
    """The same on disk."""
    write_bigfile(tmp_path / "feature", videos)
    return tmp_path / "feature"


def complaint(action: Callable[[], object]) -> str:
    """The one line of the UserError that the action must raise."""
    with pytest.raises(UserError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_reads_what_was_written(folder: Path, videos: list[tuple[str, np.ndarray]]) -> None:
    features = BigFile(folder)
    assert (features.folder, features.count, features.width) == (folder, 14, 6)
    assert list(features.video_ids) == [name for name, _ in videos]
    assert "v_3" in features and "v_9" not in features
    for name, values in videos:
        frames, mask = features.read([features.rows(name)])
        assert mask.all()
        np.testing.assert_array_equal(frames[0], values.astype(np.float32))
    assert features.frame_counts(["v_4", "v_0"]).tolist() == [5, 3]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["feature"]


def test_read_equals_a_loop_over_frames(tmp_path: Path) -> None:
    """Frames scattered over the matrix, shared between videos, repeated, in any order; very different lengths."""
    random = np.random.default_rng(1)
    matrix = random.standard_normal((50, 7)).astype(np.float32)
    names = [f"name{row}" for row in random.permutation(50)]
    picked = [random.integers(0, 50, size=count) for count in (9, 1, 30, 2)]
    wanted = {f"v{index}": [names[row] for row in rows] for index, rows in enumerate(picked)}
    (tmp_path / "shape.txt").write_text("50 7")
    (tmp_path / "id.txt").write_text(" \n".join(names))
    (tmp_path / "feature.bin").write_bytes(matrix.tobytes())
    (tmp_path / "video2frames.txt").write_text(repr(wanted))
    features = BigFile(tmp_path)
    chosen = ["v2", "v1", "v0", "v3", "v1"]
    frames, mask = features.read([features.rows(video) for video in chosen])
    expected = np.zeros((5, 30, 7), dtype=np.float32)
    for n, video in enumerate(chosen):
        for f, name in enumerate(wanted[video]):
            expected[n, f] = matrix[names.index(name)]
            assert mask[n, f]
    assert (frames.dtype, mask.dtype) == (np.float32, np.bool_)
    np.testing.assert_array_equal(frames, expected)
    assert mask.sum() == sum(len(wanted[video]) for video in chosen)


def test_reading_no_video_gives_an_empty_batch(folder: Path) -> None:
    frames, mask = BigFile(folder).read([])
    assert (frames.shape, mask.shape) == ((0, 0, 6), (0, 0))


def test_what_was_read_may_be_changed(folder: Path) -> None:
    features = BigFile(folder)
    before = (folder / "feature.bin").read_bytes()
    features.read([features.rows("v_0")])[0][:] = 7
    assert (folder / "feature.bin").read_bytes() == before


def test_pickle_carries_no_data_and_maps_the_file_again(tmp_path: Path) -> None:
    write_bigfile(tmp_path / "wide", [("v", np.ones((10, 5000)))])
    features = BigFile(tmp_path / "wide")
    packed = pickle.dumps(features)
    assert len(packed) < 2000
    again = pickle.loads(packed)
    np.testing.assert_array_equal(again.read([again.rows("v")])[0], features.read([features.rows("v")])[0])


def test_select_frames() -> None:
    rows = np.arange(100, 110)
    assert select_frames(rows, 4, "first").tolist() == [100, 101, 102, 103]
    assert select_frames(rows, 5, "uniform").tolist() == [101, 103, 105, 107, 109]
    assert select_frames(rows, 3, "uniform").tolist() == [101, 105, 108]  # centres 1.67, 5, 8.33
    for sampling in ("first", "uniform"):
        assert select_frames(rows, 10, sampling).tolist() == rows.tolist()
        assert select_frames(rows, 64, sampling).tolist() == rows.tolist()
    assert select_frames(np.eye(4), 2, "uniform").tolist() == [[0, 1, 0, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize("longest", range(1, 12))
def test_uniform_frames_are_those_at_the_centres_of_equal_segments(longest: int) -> None:
    for count in range(longest, 40):
        picked = select_frames(np.arange(count), longest, "uniform")
        centres = [Fraction(2 * segment + 1, 2) * count / longest for segment in range(longest)]
        assert all(row <= centre < row + 1 for row, centre in zip(picked.tolist(), centres, strict=True))
        assert len(set(picked.tolist())) == longest


@pytest.mark.parametrize(
    "text",
    [
        "{'a': ['a_0', 'a_1'], 'b': ['b_0']}",
        '{"a": ["a_0", "a_1"], "b": ["b_0"]}',
        '\ufeff{"a": [\'a_0\', "a_1"], \'b\': ["b_0"]}\n',
        "{'a': ['a_0',\n 'a_1',],  # a comment\n 'b': ['b_0'],}",
        r"{'a': ['\x61_0', 'a\x5f1'], 'b': ['b_0']}",
        "{'a': ['a_' '0', '''a_1'''], u'b': ['b_0']}",
    ],
)
def test_every_spelling_of_the_literal_reads_the_same(tmp_path: Path, text: str) -> None:
    path = tmp_path / "video2frames.txt"
    path.write_text(text, encoding="utf-8")
    assert read_video_frames(path) == {"a": ["a_0", "a_1"], "b": ["b_0"]}


def test_names_with_every_kind_of_character(tmp_path: Path) -> None:
    names = ["it's", 'a "b"', "back\\slash", "tab\there", "{'x': 1}", "#", "中文", "\u2028"]
    for videos in ({name: [name] for name in names}, *({name: [name, "x"]} for name in names)):
        path = tmp_path / "video2frames.txt"
        path.write_text(repr(videos), encoding="utf-8")
        assert read_video_frames(path) == videos == ast.literal_eval(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "template",
    [
        "__import__('os').system('touch {0}')",
        "{{'v': [__import__('os').system('touch {0}')]}}",
        "{{__import__('os').system('touch {0}'): ['v_0']}}",
        '{{"v": ["v_0"], **__import__("os").system("touch {0}")}}',
        "{{'v': [open(\"{0}\", 'w').name]}}",
        "{{'v': [f'{{open(\"{0}\", 'w')}}']}}",
        "{{'v': [x for x in [__import__('os').system('touch {0}')]]}}",
        "{{'v': ['v_0']}}; __import__('os').system('touch {0}')",
        "(lambda: __import__('os').system('touch {0}'))()",
    ],
)
def test_nothing_is_executed(tmp_path: Path, template: str) -> None:
    witness = tmp_path / "ran"
    path = tmp_path / "video2frames.txt"
    path.write_text(template.format(witness))
    said = complaint(lambda: read_video_frames(path))
    assert said.startswith(f"{path}: not plain data (") and "it must be one dict literal" in said
    assert not witness.exists()


@pytest.mark.parametrize("text", ["[" * 100_000, "{'a':" * 100_000, "(" * 100_000, "", "{", "\0", "1" * 5000, "{'v'"])
def test_damaged_literals_are_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "video2frames.txt"
    path.write_text(text)
    assert complaint(lambda: read_video_frames(path)).startswith(f"{path}: not plain data (")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("['v']", "not plain data (not a dict"),
        ("[['v', ['v_0']]]", "not plain data (not a dict"),
        ("{}", "holds no video"),
        ("{1: ['v_0']}", "entry 1 is not a video name"),
        ("{'v': 'v_0'}", "entry 'v' is not a video name with a list"),
        ("{'v': {'v_0': 1}}", "entry 'v' is not a video name with a list"),
        ("{'v': ['v_0', 3]}", "entry 'v' is not a video name with a list"),
        ("{'v': [['v_0']]}", "entry 'v' is not a video name with a list"),
        ("{'v': ['v_0'], 'w': []}", "video 'w' has no frames"),
        ("{'v': ['v_0'], 'v': ['v_1']}", "video 'v' is duplicated"),
        ("{'v': ['v_0'], \"v\": ['v_1']}", "video 'v' is duplicated"),
    ],
)
def test_other_literals_are_refused(tmp_path: Path, text: str, wanted: str) -> None:
    path = tmp_path / "video2frames.txt"
    path.write_text(text)
    assert complaint(lambda: read_video_frames(path)).startswith(f"{path}: {wanted}")


def test_a_frame_that_has_no_row(folder: Path) -> None:
    (folder / "video2frames.txt").write_text("{'v_0': ['v_0_0'], 'w': ['v_1_0', 'w_7']}")
    said = complaint(lambda: BigFile(folder))
    assert said.startswith(f"{folder / 'video2frames.txt'}: frame 'w_7' of video 'w' is not in id.txt")


@pytest.mark.parametrize("name", ["shape.txt", "id.txt", "feature.bin", "video2frames.txt"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert complaint(lambda: BigFile(folder)).startswith(f"{folder / name}: no such file")
    (folder / name).mkdir()
    assert complaint(lambda: BigFile(folder)).startswith(f"{folder / name}: ")


def test_a_missing_folder_names_its_neighbours(folder: Path) -> None:
    missing = folder.with_name("other")
    assert complaint(lambda: BigFile(missing)).startswith(f"{missing}: no such feature folder (beside it: feature)")


@pytest.mark.parametrize("text", ["", "14", "14 6 1", "14 x", "0 6", "-14 -6", "14.0 6", "1" * 5000 + " 6"])
def test_a_shape_that_is_not_two_positive_integers(folder: Path, text: str) -> None:
    (folder / "shape.txt").write_text(text)
    assert complaint(lambda: BigFile(folder)).startswith(f"{folder / 'shape.txt'}: must hold two positive integers")


@pytest.mark.parametrize(("change", "word"), [(-1, "truncated"), (1, "too long"), (-336, "truncated")])
def test_a_matrix_of_another_size(folder: Path, change: int, word: str) -> None:
    path = folder / "feature.bin"
    path.write_bytes((path.read_bytes() + b"\0")[: 336 + change])
    said = complaint(lambda: BigFile(folder))
    assert said.startswith(f"{path}: {word}, {336 + change} bytes, not 336 (14 x 6 float32")


def test_names_that_are_too_few_or_repeated(folder: Path) -> None:
    path = folder / "id.txt"
    names = path.read_text().split()
    path.write_text(" ".join(names[1:]))
    assert complaint(lambda: BigFile(folder)).startswith(f"{path}: 13 names, not 14 as in shape.txt")
    path.write_text(" ".join([*names[:-1], names[3]]))
    assert complaint(lambda: BigFile(folder)).startswith(f"{path}: frame name '{names[3]}' is duplicated")


def test_an_unknown_video(folder: Path) -> None:
    said = complaint(lambda: BigFile(folder).rows("nobody"))
    assert said.startswith(f"{folder}: video 'nobody' has no features")


def test_latin_1_names(tmp_path: Path) -> None:
    """0xA0 and 0x85 are no white space in a file that is split as bytes."""
    write_bigfile(tmp_path / "f", [("caf\xe9", np.ones((2, 3))), ("x", np.zeros((1, 3)))])
    assert b"caf\xe9_0" in (tmp_path / "f" / "id.txt").read_bytes()
    assert BigFile(tmp_path / "f").read([BigFile(tmp_path / "f").rows("caf\xe9")])[0].sum() == 6
    (tmp_path / "f" / "id.txt").write_bytes(b"a\xa0b  c\x85d\ne")
    (tmp_path / "f" / "video2frames.txt").write_text(repr({"v": ["c\x85d"]}), encoding="utf-8")
    assert BigFile(tmp_path / "f").rows("v").tolist() == [1]


def test_names_of_any_unicode(tmp_path: Path) -> None:
    """The published reading of `id.txt` stays, Latin-1, so frames of other videos get names in ASCII."""
    videos = ["видео", "视频🐶", "cafe\u0301", "caf\xe9", "u+", "u+" + "видео".encode().hex(), "x'\\\""]
    write_bigfile(tmp_path / "f", [(video, np.full((2, 3), at)) for at, video in enumerate(videos)])
    names = (tmp_path / "f" / "id.txt").read_bytes().decode("latin-1").split()
    assert len(set(names)) == 14 and {"caf\xe9_1", "u+752b_0"} <= {*names}
    assert [name for name in names if not name.isascii()] == ["caf\xe9_0", "caf\xe9_1"]
    features = BigFile(tmp_path / "f")
    assert list(features.video_ids) == videos
    assert [features.read([features.rows(video)])[0].sum() for video in videos] == [6 * at for at in range(7)]


@pytest.mark.filterwarnings("error")
def test_find_nan_names_the_frames_in_use(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = np.fromfile(folder / "feature.bin", dtype=np.float32).reshape(14, 6)
    matrix[[2, 5, 13], [0, 5, 3]] = [np.nan, np.inf, -np.inf]
    matrix[8] = 3e38  # a sum over them overflows, they do not
    matrix.tofile(folder / "feature.bin")
    features = BigFile(folder)
    names = (folder / "id.txt").read_text().split()
    assert features.find_nan() == [names[2], names[5], names[13]]
    monkeypatch.setattr("nrccr.data.bigfile.BLOCK_BYTES", 3 * 6 * 4)  # five blocks
    assert features.find_nan() == [names[2], names[5], names[13]]
    assert features.find_nan(features.rows("v_0")) == [names[2]]
    assert features.find_nan(features.rows("v_1")) == []
    assert features.find_nan(np.array([], dtype=np.int64)) == []
    (folder / "video2frames.txt").write_text(repr({"v_2": [names[4], names[5]]}))
    assert BigFile(folder).find_nan() == [names[5]]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("frames", "wanted"),
    [
        ([], "no video to write"),
        ([("a", np.ones((1, 2))), ("a", np.ones((1, 2)))], "video 'a' is duplicated"),
        ([("a b", np.ones((1, 2)))], "video name 'a b' is empty, has white space"),
        ([("", np.ones((1, 2)))], "video name '' is empty"),
        ([("中\u3000中", np.ones((1, 2)))], "video name '中\\u3000中' is empty, has white space"),
        ([("x\udcff", np.ones((1, 2)))], "video name 'x\\udcff' is empty, has white space or is no Unicode"),
        ([("a", np.ones((0, 2)))], "video 'a' has shape (0, 2)"),
        ([("a", np.ones(2))], "video 'a' has shape (2,)"),
        ([("a", np.ones((1, 2))), ("b", np.ones((1, 3)))], "video 'b' has width 3, those before 2"),
        ([("a", np.array([[1.0, np.nan]]))], "video 'a' holds a NaN"),
        ([("a", np.array([[1.0, 1e300]]))], "video 'a' holds a NaN"),
    ],
)
def test_the_writer_refuses(tmp_path: Path, frames: list[tuple[str, np.ndarray]], wanted: str) -> None:
    target = tmp_path / "f"
    assert complaint(lambda: write_bigfile(target, frames)).startswith(f"{target}: {wanted}")
    assert list(tmp_path.iterdir()) == []


def test_the_writer_keeps_what_is_there(folder: Path) -> None:
    before = (folder / "id.txt").read_bytes()
    assert "exists already" in complaint(lambda: write_bigfile(folder, [("a", np.ones((1, 2)))]))
    assert (folder / "id.txt").read_bytes() == before


def test_a_writer_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    def failing():
        yield "a", np.ones((1, 2))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_bigfile(tmp_path / "f", failing())
    assert list(tmp_path.iterdir()) == []


def test_real_features(shared: Path) -> None:
    features = BigFile(shared / "data" / "VisualSearch" / "vatex" / "FeatureData" / "i3d_kinetics")
    assert (features.count, features.width, len(features.video_ids)) == (22_500, 128, 3_000)
    assert set(features.frame_counts(features.video_ids).tolist()) == {5}
    assert features.find_nan() == []
