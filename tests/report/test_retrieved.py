"""Which queries are picked, and what is told about the items that runs rank first."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nrccr.report import retrieved
from nrccr.report.finished import ReportRun, read
from nrccr.report.gallery import wrapped
from nrccr.report.part import Part
from nrccr.report.retrieved import pick_improved, pick_random, pick_worst

Command = Callable[..., Any]
RANKS = np.array([3.0, 9.0, 9.0, 1.0, 7.0, 9.0])
ITEM_OF = np.array([0, 0, 1, 1, 2, 2])


def test_the_worst_queries_one_of_each_item() -> None:
    assert pick_worst(RANKS, ITEM_OF, 3).tolist() == [1, 2, 5]
    assert pick_worst(RANKS, ITEM_OF, 2).tolist() == [1, 2]
    assert pick_worst(RANKS, np.zeros(6, int), 3).tolist() == [1]


def test_the_most_improved_queries_and_none_without_gain() -> None:
    after = np.array([1.0, 9.0, 1.0, 1.0, 8.0, 2.0])  # gains 2, 0, 8, 0, -1, 7
    assert pick_improved(RANKS, after, ITEM_OF, 3).tolist() == [2, 5, 0]
    assert pick_improved(RANKS, after, ITEM_OF, 1).tolist() == [2]
    assert pick_improved(RANKS, RANKS, ITEM_OF, 3).tolist() == []


def test_random_queries_depend_on_the_seed_alone() -> None:
    items = np.repeat(np.arange(50), 4)
    one = pick_random(items, 10, 1)
    assert len(set(items[one].tolist())) == 10 and sorted(one.tolist()) == one.tolist()
    assert pick_random(items, 10, 1).tolist() == one.tolist() != pick_random(items, 10, 2).tolist()
    drawn = np.concatenate([pick_random(items, 1, seed) for seed in range(300)])
    assert len(set(drawn.tolist())) > 100  # any query, not each item's first


def by_name(parts: list[Part]) -> dict[str, Part]:
    return {part.name.removeprefix("retrieved-"): part for part in parts}


def sorted_by_hand(run: ReportRun) -> tuple[np.ndarray, dict[str, int]]:
    """The scores of a run, and the row of each query id."""
    return run.headline.scores(), {name: row for row, name in enumerate(run.headline.encoded.ids)}


def require_rows(part: Part, runs: list[ReportRun]) -> None:
    """Every row of a part against the sorted scores of its run."""
    scores = {run.label: sorted_by_hand(run) for run in runs}
    items = runs[0].headline.item_ids
    for row in part.rows:
        matrix, rows = scores[str(row["run"])]
        item, number = str(row["caption id"]).split("#")
        line = matrix[rows[f"{item}#zh2enc#{number}"]]
        order = [items[column] for column in sorted(range(len(items)), key=lambda column: (-line[column], column))]
        assert row["rank of the right item"] == order.index(item) + 1
        assert row["place"] == order.index(str(row["item"])) + 1
        assert row["right"] == ("yes" if row["item"] == item else "no")
        assert float(str(row["score"])) == pytest.approx(line[items.index(str(row["item"]))], abs=6e-4)
    for name in {row["run"] for row in part.rows}:
        for number in {row["number"] for row in part.rows}:
            own = [row for row in part.rows if (row["run"], row["number"]) == (name, number)]
            places, rank = [row["place"] for row in own], own[0]["rank of the right item"]
            assert places == ([1, 2, 3] if rank in (1, 2, 3) else [1, 2, 3, rank])


def text_of(root: Path, name: str, caption: str) -> str:
    lines = (root / "vatex" / "TextData" / f"{name}.caption.txt").read_text("utf-8").splitlines()
    return next(line.split(maxsplit=1)[1] for line in lines if line.startswith(f"{caption} "))


def test_one_run(trained: Path, tiny_collection: Path) -> None:
    runs = read([trained], tiny_collection, "cpu")
    parts = by_name(retrieved.parts(runs, count=3))
    assert list(parts) == ["random", "worst"]
    for part in parts.values():
        require_rows(part, runs)
        assert len({row["caption id"] for row in part.rows}) == 3
        assert part.figure is not None and part.languages["query"] == "zh"
        words = [text.get_text() for text in part.figure.texts]
        assert sum(word.startswith("✓ right") for word in words) == 3  # each query's, in its place or after the others
        assert all(0 <= place <= 1 for text in part.figure.texts for place in text.get_position())
    row = parts["worst"].rows[0]
    item, number = str(row["caption id"]).split("#")
    assert row["query"] == text_of(tiny_collection, "vatextest_zh", f"{item}#zh#{number}")
    assert row["translation"] == text_of(tiny_collection, "vatextest_google_zh2enc", f"{item}#zh2enc#{number}")
    ranks = runs[0].headline.ranks()
    assert row["rank of the right item"] == ranks.max()
    captions = str(row["item's captions"]).split(" / ")
    assert captions[0] == text_of(tiny_collection, "vatextest_google_zh2enc", f"{row['item']}#zh2enc#0")


def test_captions_that_people_wrote_are_shown_where_they_are(trained: Path, both_languages: Path) -> None:
    row = by_name(retrieved.parts(read([trained], both_languages, "cpu"), count=1))["worst"].rows[0]
    item = str(row["caption id"]).split("#")[0]
    assert row["caption of the right item"] == text_of(both_languages, "vatextest", f"{item}#enc#0")


def test_two_runs(trained: Path, tiny_collection: Path, tiny_config: Path, nrccr_command: Command) -> None:
    other = trained.with_name("other")
    done = nrccr_command(
        "train", tiny_config, "--root", tiny_collection, "--out", other, "--device", "cpu", "seed=1", "train.epochs=1"
    )
    assert done.code == 0, done.err
    runs = read([trained, other], tiny_collection, "cpu")
    parts = by_name(retrieved.parts(runs, count=2))
    assert list(parts) == ["random", "worst", "improved"]
    for part in parts.values():
        require_rows(part, runs)
        assert {row["run"] for row in part.rows} == {"run", "other"}
    before, after = (run.headline.ranks() for run in runs)
    found = {(row["caption id"], row["run"]): row["rank of the right item"] for row in parts["improved"].rows}
    first = str(parts["improved"].rows[0]["caption id"])
    assert float(found[first, "run"]) - float(found[first, "other"]) == (before - after).max()  # type: ignore[arg-type]
    worst = {row["rank of the right item"] for row in parts["worst"].rows if row["run"] == "other"}
    assert after.max() in worst


def test_runs_that_are_alike_improve_nothing(trained: Path, tiny_collection: Path) -> None:
    twin = Path(shutil.copytree(trained, trained.with_name("twin")))
    assert list(by_name(retrieved.parts(read([trained, twin], tiny_collection, "cpu")))) == ["random", "worst"]


def test_lines_are_cut_and_control_characters_shown() -> None:
    assert wrapped("a dog runs in the water", 9, 3) == ["a dog", "runs in", "the water"]
    assert wrapped("a dog runs in the water", 9, 2) == ["a dog", "runs in…"]
    assert wrapped("一只狗在水里跑", 8, 9) == ["一只狗在", "水里跑"]
    assert wrapped("a\x1bb", 20, 1) == ["a\\x1bb"]
