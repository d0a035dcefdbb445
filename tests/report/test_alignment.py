"""The numbers behind pictures of the joint space."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nrccr.report import alignment
from nrccr.report.finished import ReportRun, read

Command = Callable[..., Any]


def test_two_runs(noisy: list[ReportRun]) -> None:
    made = {part.name: part for part in alignment.parts(noisy)}
    assert list(made) == ["alignment", "compactness"]
    rows = made["alignment"].rows
    items = {label: [row["item"] for row in rows if row["run"] == label] for label in ("basic", "nrccr")}
    assert items["basic"] == items["nrccr"] and len(set(items["basic"])) == 6, "the same sample, all there are"
    assert {row["kind"] for row in rows} == {"caption", "translation", "item"}
    assert [dict(row) for row in alignment.parts(noisy)[0].rows] == [dict(row) for row in rows], "the same every time"
    for row in made["compactness"].rows:
        run = next(run for run in noisy if run.label == row["run"])
        vectors, owners = points_of(run, str(row["points"]))
        within = [1 - a @ b for (a, x), (b, y) in combinations(zip(vectors, owners, strict=True), 2) if x == y]
        between = [1 - a @ b for (a, x), (b, y) in combinations(zip(vectors, owners, strict=True), 2) if x != y]
        assert row["number of points"] == len(vectors) and row["items"] == 6
        assert row["within"] == pytest.approx(np.mean(within)) and row["between"] == pytest.approx(np.mean(between))
        assert row["within / between"] == pytest.approx(np.mean(within) / np.mean(between))
    first = made["compactness"].rows[0]
    assert f"basic {first['within / between']:.3f}" in made["alignment"].alt


def points_of(run: ReportRun, points: str) -> tuple[list[np.ndarray], list[str]]:
    """Vectors and items, from the files in the order in which a test encodes them."""
    encoded = run.headline.encoded
    owners = [own.partition("#")[0] for own in encoded.ids]
    assert encoded.embeddings.source is not None
    vectors, of = [*encoded.embeddings.target.double().numpy()], [*owners]
    if "translations" in points:
        vectors, of = [*vectors, *encoded.embeddings.source.double().numpy()], [*of, *owners]
    if "item" in points:
        vectors = [*vectors, *encoded.embeddings.visual.double().numpy()]
        of += run.headline.item_ids
    return vectors, of


def test_sample_is_drawn_from_common_items() -> None:
    def space(items: list[str]) -> alignment.Space:
        count = len(items)
        kinds = [alignment.CAPTION] * (count - 1) + [alignment.ITEM]
        return alignment.Space("run", np.eye(count), items, kinds, items)

    many = [f"v{number}" for number in range(40)]
    drawn = alignment.sample_items([space(many), space(many[::-1])])
    assert len(drawn) == alignment.ITEMS and drawn == sorted(drawn, key=many.index)
    assert not {"v0", "v39"} & set(drawn), "each is described in one of the runs alone"
    assert alignment.sample_items([space(many), space(many[:3])]) == ["v0", "v1"]


def test_splits_apart(noisy: list[ReportRun], trained: Path, tiny_collection: Path) -> None:
    made = alignment.parts([*noisy, *read([trained], tiny_collection, "cpu")])
    assert [part.name for part in made] == ["alignment", "compactness", "alignment-2", "compactness-2"]
    assert made[2].title.endswith("vatex, zh") and {row["run"] for row in made[3].rows} == {"run"}


def test_c2kd(nrccr_command: Command, c2kd_config: Path, tiny_languages: Path, tmp_path: Path) -> None:
    words = ("--root", tiny_languages, "--device", "cpu")
    assert nrccr_command("train", c2kd_config, *words, "--out", tmp_path / "c", "train.epochs=1").code == 0
    made = alignment.parts(read([tmp_path / "c"], tiny_languages, "cpu"))
    kinds = [row["kind"] for row in made[0].rows]
    assert {kind: kinds.count(kind) for kind in set(kinds)} in (
        {"caption": 8, "translation": 8, "item": 8},
        {"caption": 7, "translation": 7, "item": 7},
    )
