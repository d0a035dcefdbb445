"""C2KD on images, where every caption is a query of its own: training, test, recalls by length."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nrccr

Command = Callable[..., Any]


@pytest.fixture
def of_images(nrccr_command: Command, c2kd_config: Path, tiny_images: Path, tmp_path: Path) -> Path:
    """A run on images, whose captions are queries of their own, and its test."""
    text = tiny_images / "multi30k" / "TextData"
    for split in ("val", "test"):
        given = (text / f"multi30k{split}_{'de' if split == 'val' else 'de_2016'}_task1.caption.txt").read_text()
        name = f"multi30k{split}_enc{'' if split == 'val' else '_2016'}.caption.txt"
        (text / name).write_text(given.replace("#de#", "#enc#"))
    run = tmp_path / "run"
    options = ("data.collection=multi30k", "visual.kind=vectors", "--root", tiny_images, "--out", run)
    done = nrccr_command("train", c2kd_config, *options, "--device", "cpu", "--test")
    assert done.code == 0, done.err
    return run


def test_images(of_images: Path) -> None:
    run = of_images
    metrics = json.loads((run / "test" / "metrics.json").read_text())
    assert {language: own["queries"] for language, own in metrics["languages"].items()} == {"en": 16, "de": 16}
    assert not metrics["captions_averaged"] and metrics["rank_variance"] is None
    model = nrccr.load(run)
    assert model.encode_image([np.ones(16, dtype=np.float32)]).shape == (1, 24)


def test_recalls_by_length_where_every_caption_is_a_query(
    of_images: Path, nrccr_command: Command, tiny_images: Path
) -> None:
    before = json.loads((of_images / "test" / "metrics.json").read_text())
    assert not any("by_length" in own for own in before["languages"].values())
    path = tiny_images / "multi30k" / "TextData" / "multi30ktest_de_2016_task1.caption.txt"
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([first + " ball" * 10, *rest]) + "\n")
    done = nrccr_command("test", of_images, "--root", tiny_images, "--device", "cpu", "--by-length")
    assert done.code == 0 and done.err == "", done.err
    assert "by length of the query, de" in done.out and "by length of the query, en" in done.out
    metrics = json.loads((of_images / "test" / "metrics.json").read_text())
    for language, counts in {"en": [16], "de": [15, 1]}.items():
        bins = metrics["languages"][language]["by_length"]
        assert [entry["queries"] for entry in bins] == counts
        lines = (of_images / "test" / language / "ranks.tsv").read_text().splitlines()[1:]
        ranks = [int(line.split("\t")[1]) for line in lines]
        for entry, own in zip(bins, ([ranks] if len(counts) == 1 else [ranks[1:], ranks[:1]]), strict=True):
            for name, longest in {"R@1": 1, "R@5": 5, "R@10": 10}.items():
                assert entry[name] == pytest.approx(100 * np.mean([rank <= longest for rank in own]))
