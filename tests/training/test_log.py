"""What a run writes down: means, NaN noticed, lines trimmed when a run is resumed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from nrccr.errors import UserError
from nrccr.training.log import Log, Window
from tests.conftest import FullDisk


def test_means() -> None:
    window = Window()
    assert window.means(0) == {}
    for a, b in ((1.0, 4.0), (2.0, 5.0), (6.0, 9.0)):
        window.add({"a": torch.tensor(a, requires_grad=True), "b": torch.tensor(b)})
    assert window.means(3) == {"a": 3.0, "b": 6.0}
    assert not window.sums["a"].requires_grad
    window.clear()
    window.add({"a": torch.tensor(0.1)})
    assert window.means(4) == {"a": pytest.approx(0.1)} and window.count == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_named_with_its_step(value: float) -> None:
    window = Window()
    window.add({"fine": torch.tensor(1.0), "target_loss": torch.tensor(value)})
    window.add({"fine": torch.tensor(1.0), "target_loss": torch.tensor(1.0)})
    with pytest.raises(UserError) as caught:
        window.means(20)
    message = str(caught.value)
    assert "step 20" in message and "target_loss" in message and "fine" not in message and "\n" not in message
    assert "last 2 steps" in message


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_lines_and_trimming(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write("train", 1, {"total": 2.5})
    kept = log.size()
    log.write("validation", 2, {"text_to_visual": {"R@1": 3.0}})
    log.close()
    assert kept < (tmp_path / "metrics.jsonl").stat().st_size
    assert lines(tmp_path) == [
        {"kind": "train", "step": 1, "total": 2.5},
        {"kind": "validation", "step": 2, "text_to_visual": {"R@1": 3.0}},
    ]
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "tr')  # the run was killed while it wrote
    resumed = Log(tmp_path, kept, step=1)
    resumed.write("train", 2, {"total": 1.5})
    assert resumed.size() == (tmp_path / "metrics.jsonl").stat().st_size
    resumed.close()
    assert lines(tmp_path) == [
        {"kind": "train", "step": 1, "total": 2.5},
        {"kind": "train", "step": 2, "total": 1.5},
    ]
    assert any((tmp_path / "tensorboard").iterdir())


def test_a_run_that_starts_anew_forgets_old_lines(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("old\n")
    log = Log(tmp_path)
    log.write("train", 1, {"total": 1.0})
    log.close()
    assert len(lines(tmp_path)) == 1


def test_a_full_disk_is_one_line_from_tensorboard_too(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], no_file_longer_than: FullDisk
) -> None:
    """Its file reaches the limit first; its own thread prints no traceback."""
    log = Log(tmp_path)
    with no_file_longer_than(700), pytest.raises(UserError, match="tensorboard: cannot be written .* is the disk full"):
        for step in range(10):
            log.write("train", step, {str(key): key for key in range(3)})
            log.size()
    log.close()
    assert "Traceback" not in capfd.readouterr().err
