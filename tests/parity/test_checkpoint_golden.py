"""The golden published checkpoint through `do_test_vatex.sh`: embeddings, score matrices, every metric."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
SOURCE_WEIGHTS = ["1.0", "0.8", "0.5", "0.2", "0.0"]
COLUMNS = ("R@1", "R@5", "R@10", "MedR", "MeanR", "mAP")
DIRECTIONS = {"t2v": "text_to_visual", "v2t": "visual_to_text"}


@pytest.fixture
def expected(golden: Path) -> dict[str, Any]:
    return json.loads((golden / "expected_test.json").read_text())["weights_of_source"]


def options(golden: Path, out: Path, target_weight: float) -> list[str]:
    return [
        "--out", str(out), f"text.model={golden / 'bert'}", "evaluation.batch_size=16", "evaluation.save_scores=true",
        f"evaluation.target_weight={target_weight:g}",
    ]  # fmt: skip


def compare(metrics: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Every metric of both directions; the golden file has mAP in 0..1."""
    for theirs, ours in DIRECTIONS.items():
        found = metrics[ours] | {"mAP": metrics[ours]["mAP"] / 100}
        assert [found[name] for name in COLUMNS] == pytest.approx(wanted[theirs], rel=1e-9), theirs


def check(golden: Path, out: Path, expected: dict[str, Any], source_weight: str) -> None:
    with np.load(golden / "expected_test.npz") as arrays, np.load(out / "scores.npz") as found:
        assert found["item_ids"].tolist() == arrays["video_ids"].tolist()
        assert found["query_ids"].tolist() == arrays["caption_ids"].tolist()
        for ours, theirs in (("visual", "video_embs"), ("text_source", "source_embs"), ("text_target", "target_embs")):
            np.testing.assert_allclose(found[ours], arrays[theirs], atol=1e-5, rtol=0, err_msg=theirs)
        np.testing.assert_allclose(found["scores"], -arrays[f"errors_w{source_weight}"], atol=1e-5, rtol=0)
    metrics = json.loads((out / "metrics.json").read_text())
    compare(metrics, expected[source_weight])
    assert [entry["source_weight"] for entry in metrics["sweep"]] == [float(weight) for weight in SOURCE_WEIGHTS]
    for entry, weight in zip(metrics["sweep"], SOURCE_WEIGHTS, strict=True):
        compare(entry, expected[weight])


@pytest.mark.parametrize("source_weight", SOURCE_WEIGHTS)
def test_every_weight(
    golden: Path, expected: dict[str, Any], tmp_path: Path, nrccr_command: Callable[..., Any], source_weight: str
) -> None:
    done = nrccr_command(
        "test", golden / "runs_0", "--root", golden / "VisualSearch", "--device", "cpu",
        *options(golden, tmp_path / "test", 1 - float(source_weight)), "data.collection=vatex",
    )  # fmt: skip
    assert done.code == 0 and done.err == "", done.err
    check(golden, tmp_path / "test", expected, source_weight)


def test_driver(golden: Path, expected: dict[str, Any], tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    out = tmp_path / "test"
    done = subprocess.run(
        [str(CHECKOUT / "do_test_vatex.sh"), str(golden / "VisualSearch"), str(golden / "runs_0"), "cpu",
         *options(golden, out, 0.8)],
        cwd=tmp_path, env={**os.environ, "PATH": path, "VIRTUAL_ENV": sys.prefix, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == "", done.stderr
    check(golden, out, expected, "0.2")


def test_the_headline_of_a_published_checkpoint_is_at_0_8(
    golden: Path, expected: dict[str, Any], tmp_path: Path, nrccr_command: Callable[..., Any]
) -> None:
    given = [option for option in options(golden, tmp_path / "test", 0.8) if "target_weight" not in option]
    done = nrccr_command("test", golden / "runs_0", "--root", golden / "VisualSearch", "--device", "cpu", *given)
    assert done.code == 0
    metrics = json.loads((tmp_path / "test" / "metrics.json").read_text())
    assert metrics["target_weight"] == 0.8
    compare(metrics, expected["0.2"])
