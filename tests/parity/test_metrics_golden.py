"""Metrics of the published testers on the golden score matrices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nrccr.evaluation.metrics import Ties, ranks, retrieval_metrics

COLUMNS = ("R@1", "R@5", "R@10", "MedR", "MeanR", "mAP")


@pytest.mark.parametrize("source_weight", ["1.0", "0.8", "0.5", "0.2", "0.0"])
def test_nrccr_video(shared: Path, source_weight: str) -> None:
    folder = shared / "golden" / "nrccr_video"
    with np.load(folder / "expected_test.npz") as arrays:
        errors = arrays[f"errors_w{source_weight}"]
        videos, captions = arrays["video_ids"].tolist(), arrays["caption_ids"].tolist()
    expected = json.loads((folder / "expected_test.json").read_text())["weights_of_source"][source_weight]
    owner = [videos.index(caption.split("#")[0]) for caption in captions]
    of_video = [[row for row, item in enumerate(owner) if item == column] for column in range(len(videos))]
    for direction, scores, relevant in (("t2v", -errors, owner), ("v2t", -errors.T, of_video)):
        found = retrieval_metrics(scores, relevant)  # type: ignore[arg-type]
        found["mAP"] /= 100  # the golden file has it in 0..1
        assert [found[name] for name in COLUMNS] == pytest.approx(expected[direction], rel=1e-12)


def published_style(scores: Any, relevant: Any, ties: Ties, recalls: tuple[int, ...]) -> dict[str, float]:
    """The other papers' selection, unrounded: they have R@50 and a geometric mean, and no mAP."""
    found = retrieval_metrics(scores, relevant, ties)
    result = {f"R{k}": found[f"R@{k}"] for k in (1, 5, 10)}
    if 50 in recalls:
        result["R50"] = 100 * float(np.mean(ranks(scores, relevant, ties) < 51))
    geometric = float(np.prod([result[f"R{k}"] for k in (1, 5, 10)]) ** (1 / 3))
    return result | {"MedR": found["MedR"], "MeanR": found["MeanR"], "geometric_mean_R1-R5-R10": geometric}


@pytest.mark.parametrize("name", ["test", "ties"])
def test_qbnorm_averaged_ties(shared: Path, name: str) -> None:
    folder = shared / "golden" / "qbnorm"
    with np.load(folder / "arrays.npz") as arrays:
        scores = arrays["test" if name == "test" else "test_with_ties"]
    expected = json.loads((folder / "expected.json").read_text())
    owner = np.arange(len(scores)) // (len(scores) // scores.shape[1])
    forward = published_style(scores, owner, "average", (1, 5, 10, 50))
    backward = published_style(scores.T, owner == np.arange(scores.shape[1])[:, None], "average", (1, 5, 10, 50))
    for direction, found in (("t2v", forward), ("v2t", backward)):
        rounded = {key: round(value, 1) for key, value in found.items()}
        assert rounded == pytest.approx(expected[f"{direction}_{name}"], abs=1e-9)


def test_c2kd_optimistic_ties(shared: Path) -> None:
    folder = shared / "golden" / "c2kd"
    with np.load(folder / "inputs.npz") as arrays:
        scores = arrays["sims_for_metrics"]
    expected = json.loads((folder / "expected.json").read_text())["loss"]["metrics_optimistic"]
    found = published_style(scores, np.arange(len(scores)), "optimistic", (1, 5, 10))
    assert found == pytest.approx(expected, rel=1e-9)
