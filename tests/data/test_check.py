"""The look over a whole collection: it counts, and tells everything that is wrong at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nrccr.data.check import Report, ReportRow, check_collection, matched_files
from nrccr.data.collections import locate


def check(root: Path, tolerance: float = 0.01) -> Report:
    """Check vatex under the root."""
    collection = locate(root, "vatex")
    return check_collection(collection, matched_files(collection), mismatch_tolerance=tolerance)


def test_a_good_collection(make_collection: Callable[..., Path]) -> None:
    root = make_collection()
    report = check(root)
    assert report.problems == []
    assert report.rows == [
        ReportRow("train", items=2, captions=4, unmatched=0, without_features=0, frames=(1, 1.5, 2)),
        ReportRow("val", items=2, captions=4, unmatched=0, without_features=0, frames=(3, 3.5, 4)),
        ReportRow("test", items=2, captions=4, unmatched=0, without_features=0, frames=(5, 5.5, 6)),
    ]
    features = f"{root}/vatex/FeatureData/i3d_kinetics"
    assert report.notes[0] == f"{features}: 21 frames, width 4, 6 videos"
    assert report.notes[1].startswith(f"{features}/shape.txt: the published i3d_kinetics is 1024 wide, this 4;")
    assert len(report.notes) == 2


def test_everything_wrong_is_told_at_once(make_collection: Callable[..., Path]) -> None:
    root = make_collection()
    text, features = root / "vatex" / "TextData", root / "vatex" / "FeatureData" / "i3d_kinetics"
    with (text / "vatextrain.caption.txt").open("ab") as file:
        file.write(b"train0#enc#2\ntrain0#enc#3 caf\xe9\ntrain0#enc#0 twice\nval1#enc#0 in two splits\nlost#enc#0 !\n")
    for name in ("enc2zh", "enc2zh2enc"):
        with (text / f"vatextrain_google_{name}.caption.txt").open("a") as file:
            file.write(f"val1#{name}#0 in two splits\nlost#{name}#0 no features\n")
    with (text / "vatexval_zh.caption.txt").open("a") as file:
        file.write("val0#zh#7 without translation\n")
    (text / "vatextest_google_zh2enc.caption.txt").unlink()
    matrix = np.fromfile(features / "feature.bin", dtype=np.float32)
    matrix[[0, -1]] = np.nan, np.inf
    matrix.tofile(features / "feature.bin")

    report = check(root)
    expected = [
        f"{text}/vatextrain.caption.txt:5: caption 'train0#enc#2' has no text",
        f"{text}/vatextrain.caption.txt:6: not UTF-8",
        f"{text}/vatextrain.caption.txt:7: 'train0#enc#0' repeats item 'train0' and number '0' of line 1",
        f"{text}/vatextrain.caption.txt: 1 of 4 items have no features (lost)",
        f"{text}/vatexval_zh.caption.txt: 1 of 5 lines have no line with the same item and number",
        f"{text}: no file vatextest_google_zh2enc.caption.txt or",
        "splits train and val share 1 items (val1)",
        f"{features}/feature.bin: 2 frames hold a NaN or an infinity (train0_0, test1_5)",
    ]
    assert len(report.problems) == len(expected)
    for problem, start in zip(report.problems, expected, strict=True):
        assert problem.startswith(start)
    assert not any("\n" in line for line in report.problems + report.notes)
    assert [row.split for row in report.rows] == ["train", "val", "test"]
    assert report.rows[0] == ReportRow("train", 4, 6, unmatched=0, without_features=1, frames=(1, 7 / 3, 4))
    assert report.rows[1].unmatched == 1
    assert any("1 captions have no ASCII letter or digit: empty once cleaned (lost#enc#0)" in n for n in report.notes)


def test_tolerated_lines_are_noted(make_collection: Callable[..., Path]) -> None:
    root = make_collection()
    path = root / "vatex" / "TextData" / "vatexval_zh.caption.txt"
    with path.open("a") as file:
        file.write("val0#zh#7 without translation\n")
    report = check(root, tolerance=0.2)
    assert report.problems == []
    assert f"{path}: 1 lines unmatched (val0#zh#7)" in report.notes


def test_videos_without_captions_are_noted(make_collection: Callable[..., Path]) -> None:
    root = make_collection()
    for path in (root / "vatex" / "TextData").glob("vatextest*"):
        path.write_text("".join(line for line in path.open() if not line.startswith("test1")))
    report = check(root)
    assert report.problems == []
    assert any("1 videos have no caption (test1)" in note for note in report.notes)


def test_captions_are_checked_without_features(make_collection: Callable[..., Path]) -> None:
    root = make_collection()
    features = root / "vatex" / "FeatureData" / "i3d_kinetics"
    (features / "feature.bin").write_bytes(b"short")
    report = check(root)
    assert [problem.split(", ")[0] for problem in report.problems] == [f"{features}/feature.bin: truncated"]
    assert [(row.captions, row.frames) for row in report.rows] == [(4, None)] * 3


@pytest.mark.filterwarnings("error")
def test_real_collection(shared: Path) -> None:
    report = check(shared / "data" / "VisualSearch", tolerance=0.0)
    assert report.problems == []
    five = (5, 5.0, 5)
    assert report.rows == [
        ReportRow("train", 1_500, 7_500, 0, 0, five),
        ReportRow("val", 500, 4_998, 0, 0, five),
        ReportRow("test", 1_000, 9_994, 0, 0, five),
    ]
