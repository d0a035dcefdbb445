"""Comparing tests: bootstrap intervals, languages, and the files they are read from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nrccr.errors import UserError
from nrccr.evaluation.compare import (
    NAMES,
    Outcome,
    bootstrap,
    common_ranks,
    intervals,
    rank_variance,
    read_outcome,
    weighted_metrics,
)
from nrccr.evaluation.metrics import Placed
from nrccr.evaluation.ranked import Ranked

Command = Callable[..., Any]


def outcome(seed: int, items: int = 40, each: int = 3, shift: float = 0.0, tag: str = "zh") -> Outcome:
    random = np.random.default_rng(seed)
    owner = np.repeat(np.arange(items), each)
    hard = random.exponential(5, items)  # the queries of an item are alike
    names = [f"item{item:02d}" for item in range(items)]
    return Outcome(
        Path("run"),
        [f"{names[item]}#{tag}#{number % each}" for number, item in enumerate(owner)],
        np.floor(1 + hard[owner] + random.exponential(2, len(owner)) + shift),
        names,
        np.floor(1 + hard / 2 + random.exponential(2, items) + shift),
        random.random(items),
        owner,
    )


def test_weights_are_repetitions() -> None:
    run = outcome(0)
    weights = np.random.default_rng(1).integers(0, 4, (6, 40)).astype(float)
    for row, found in zip(weights, weighted_metrics(run, weights), strict=True):
        items = np.repeat(np.arange(40), row.astype(int))
        queries = np.concatenate([np.flatnonzero(run.item_of == item) for item in items])
        own = run.ranks[queries]
        texts = Placed(own, 1 / own, np.array([1 / np.log2(1 + rank) if rank <= 10 else 0 for rank in own]))
        visual = Placed(run.item_ranks[items], run.precisions[items], np.zeros(len(items)))
        ranked = Ranked(texts, visual).metrics()
        expected = [ranked[name] if direction == "both" else ranked[direction][name] for direction, name in NAMES]
        assert found.tolist() == pytest.approx(expected)


def test_the_median_of_an_even_number_is_the_mean_of_the_middle_two() -> None:
    two = replace(outcome(0, items=2, each=1), ranks=np.array([1.0, 4.0]), item_ranks=np.array([9.0, 2.0]))
    found = weighted_metrics(two, np.array([[1.0, 1.0], [1.0, 2.0]]))
    columns = [at for at, (_, name) in enumerate(NAMES) if name == "MedR"]
    assert found[:, columns].tolist() == [[2.5, 5.5], [4.0, 2.0]]


def test_a_run_does_not_differ_from_itself() -> None:
    run = outcome(0)
    order = np.random.default_rng(0).permutation(len(run.ranks))
    items = np.random.default_rng(1).permutation(40)
    place = np.argsort(items)
    shuffled = Outcome(
        run.folder, [run.query_ids[row] for row in order], run.ranks[order], [run.item_ids[item] for item in items],
        run.item_ranks[items], run.precisions[items], place[run.item_of[order]],
    )  # fmt: skip
    for entry in bootstrap(run, shuffled, 200).values():
        assert entry.difference == pytest.approx(0, abs=1e-9)
        assert entry.bounds == pytest.approx((0, 0), abs=1e-9) and entry.a == pytest.approx(entry.b)
        assert entry.a_bounds[0] <= entry.a <= entry.a_bounds[1]


def test_pairing_tells_apart_what_single_intervals_do_not() -> None:
    run = outcome(0)
    better = replace(run, ranks=np.maximum(1, run.ranks - 1), item_ranks=np.maximum(1, run.item_ranks - 1))
    entry = bootstrap(run, better)["both", "SumR"]
    assert entry.bounds[0] > 0
    assert entry.b_bounds[0] < entry.a_bounds[1]


def test_bounds_are_percentiles_of_the_same_resamples() -> None:
    one, other = outcome(0, each=1), outcome(1, each=1)
    draw = np.random.default_rng(7)
    drawn = [draw.integers(40, size=40) for _ in range(81)]  # 2.5 % of 80 steps are two of them
    means = [[run.ranks[items].mean() for items in drawn] for run in (one, other)]
    wanted = [sorted(values) for values in (*means, np.subtract(means[1], means[0]))]
    name = ("text_to_visual", "MeanR")
    found = bootstrap(one, other, 81, seed=7)[name]
    for bounds, values in zip((found.a_bounds, found.b_bounds, found.bounds), wanted, strict=True):
        assert bounds == pytest.approx((values[2], values[78]))
    assert intervals(one, 81, seed=7)[name] == pytest.approx((one.ranks.mean(), wanted[0][2], wanted[0][78]))


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    # The mean rank of the population: 1 + floor of two exponentials; found by a very large sample.
    truth = float(outcome(10**6, items=200_000, each=1).ranks.mean())
    held = 0
    for seed in range(200):
        run = outcome(seed, each=1)
        low, high = bootstrap(run, run, 200, seed)["text_to_visual", "MeanR"].a_bounds
        held += low <= truth <= high
    assert 170 <= held <= 199  # 95 % of 200, less what percentile intervals lose on 40 skewed items


def test_rank_variance_by_hand() -> None:
    assert rank_variance([np.array([1.0, 2.0]), np.array([3.0, 2.0])]) == 0.5  # (1 + 0) / 2
    assert rank_variance([np.array([4.0, 7.0])] * 3) == 0


def test_languages_are_matched_by_item_and_number() -> None:
    chinese, german = outcome(0, tag="zh2enc"), outcome(1, tag="de2enc")
    order = np.random.default_rng(0).permutation(len(german.ranks))[:-5]
    shuffled = replace(
        german, query_ids=[german.query_ids[row] for row in order], ranks=german.ranks[order],
        item_of=german.item_of[order],
    )  # fmt: skip
    first, second = common_ranks([chinese, shuffled])
    kept = np.sort(order)
    assert np.array_equal(first, chinese.ranks[kept]) and np.array_equal(second, german.ranks[kept])


def test_ranks_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "ranks_visual.tsv").write_text("item\trank\tprecision\na\t1\t1\na#b\t2\t0.5\n")
    (tmp_path / "ranks.tsv").write_text("query\trank\na#b#zh#0\t3\na#zh#0\t1\n")
    read = read_outcome(tmp_path, "test")
    assert read.item_of.tolist() == [1, 0] and read.ranks.tolist() == [3, 1] and read.precisions.tolist() == [1, 0.5]
    for rank in ("0", "-1", "0.5", "nan", "inf"):
        (tmp_path / "ranks.tsv").write_text(f"query\trank\na#b#zh#0\t3\na#zh#0\t{rank}\n")
        with pytest.raises(UserError, match=r"ranks\.tsv:3: not a line of ranks"):
            read_outcome(tmp_path, "test")


def test_compare_runs(nrccr_command: Command, run_test: Command, trained: Path) -> None:
    assert run_test(trained).code == 0
    assert run_test(trained, "--out", trained / "other", "evaluation.target_weight=0.1").code == 0
    done = nrccr_command("compare", trained, trained / "other")
    assert done.code == 0 and done.err == "", done.err
    assert all(word in done.out for word in ("T2V R@1", "T2V nDCG@10", "V2T mAP", "V2T MRR", "SumR", "95 %"))
    assert nrccr_command("compare", trained, trained / "other").out == done.out
    same = nrccr_command("compare", trained, trained)
    assert same.code == 0 and same.out.count("+0.0 +0.0..+0.0") == 17 and "*:" in same.out
    done = nrccr_command("compare", trained, trained / "other", trained, "--languages")
    assert done.code == 0 and "mean rank variance over languages" in done.out and "16 queries" in done.out


def test_bad_input_is_one_line(nrccr_command: Command, run_test: Command, trained: Path, tmp_path: Path) -> None:
    assert run_test(trained).code == 0
    assert run_test(trained, "--split", "val", "--out", tmp_path / "val").code == 0
    ranks = (trained / "test" / "ranks.tsv").read_text()
    visual = (trained / "test" / "ranks_visual.tsv").read_text()
    damaged = {
        "word": (ranks.replace("\t", " "), visual),
        "twice": (ranks + ranks.splitlines()[1] + "\n", visual),
        "empty": ("query\trank\ttop\n", visual),
        "item": (ranks, "\n".join(visual.splitlines()[:-1]) + "\n"),
    }
    for name, texts in damaged.items():
        (tmp_path / name).mkdir()
        for file, text in zip(("ranks.tsv", "ranks_visual.tsv"), texts, strict=True):
            (tmp_path / name / file).write_text(text)
    for arguments, words in (
        ([trained], "1 run given"),
        ([trained] * 3, "3 runs given"),
        ([trained, tmp_path / "none"], "ranks.tsv: cannot be read"),
        ([trained, tmp_path / "val"], "tests of other data"),
        ([trained, tmp_path / "val", "--languages"], "no query has the same item"),
        ([trained, "--languages"], "has one query language"),
        ([trained, "--languages", "--split", "val"], "ranks.tsv: cannot be read"),
        ([trained, tmp_path / "word"], "ranks.tsv:2: not a line of ranks"),
        ([trained, tmp_path / "twice"], "an id is duplicated"),
        ([trained, tmp_path / "empty"], "ranks.tsv"),
        ([trained, tmp_path / "item"], "no line for item"),
    ):
        done = nrccr_command("compare", *arguments)
        assert done.code == 2 and words in done.err and len(done.err.splitlines()) == 1, done.err
