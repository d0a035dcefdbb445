"""Scores against translation noise: which runs are one model, and their numbers."""

from __future__ import annotations

import numpy as np
import pytest

from nrccr.evaluation.compare import bootstrap
from nrccr.report.bynoise import RESAMPLES, SEED, by_model, interval_of, parts
from nrccr.report.finished import ReportRun
from tests.report.runs import finished_run, outcome

ITEMS = [0, 0, 1, 1, 2, 2]


def noisy(label: str, ranks: list[int], *overrides: str) -> ReportRun:
    lengths = [5] * 6
    return finished_run(label, "data.collection=generated", *overrides, searched=[(outcome(ranks, ITEMS), lengths)])


@pytest.fixture
def runs() -> list[ReportRun]:
    return [
        noisy("basic-noise40-s0", [9, 11, 2, 1, 30, 6], "data.translator=noise40", "loss.cycle=0"),
        noisy("basic-noise0-s0", [1, 1, 2, 1, 3, 6], "data.translator=noise0", "loss.cycle=0"),
        noisy("full-noise40-s0", [1, 3, 2, 1, 3, 6], "data.translator=noise40"),
        noisy("full-noise40-s1", [1, 1, 1, 1, 1, 1], "data.translator=noise40", "seed=1"),
        noisy("full-noise0-s0", [1, 1, 1, 1, 2, 1], "data.translator=noise0"),
        noisy("alone", [1, 1, 1, 1, 2, 1], "data.translator=noise20", "loss.margin=0.3"),
    ]


def test_translator_and_seed_make_no_other_model(runs: list[ReportRun]) -> None:
    found = {name: [run.label for run in own] for name, own in by_model(runs).items()}
    assert found == {
        "basic": ["basic-noise40-s0", "basic-noise0-s0"],
        "full": ["full-noise40-s0", "full-noise40-s1", "full-noise0-s0"],
        "alone": ["alone"],
    }


def test_rows_are_means_over_seeds(runs: list[ReportRun]) -> None:
    (part,) = parts(runs)
    rows = {(row["model"], row["translator"]): row for row in part.rows}
    assert list(rows) == [("basic", "noise0"), ("basic", "noise40"), ("full", "noise0"), ("full", "noise40")]
    assert [row["wrong words, %"] for row in part.rows] == [0, 40, 0, 40]
    own = outcome([9, 11, 2, 1, 30, 6], ITEMS)
    interval = bootstrap(own, own, RESAMPLES, SEED)["both", "SumR"]
    basic = rows["basic", "noise40"]
    np.testing.assert_allclose([basic["SumR"], basic["SumR low"], basic["SumR high"]], [interval.a, *interval.a_bounds])
    each = [outcome(ranks, ITEMS) for ranks in ([1, 3, 2, 1, 3, 6], [1] * 6)]
    sums = [bootstrap(one, one, 100, 0)["both", "SumR"].a for one in each]
    assert rows["full", "noise40"]["SumR"] == pytest.approx(np.mean(sums)) and rows["full", "noise40"]["seeds"] == 2
    low, high = interval_of(each)
    assert low < np.mean(sums) <= high
    assert rows["full", "noise40"]["R@1+5+10"] == pytest.approx((300 + (100 * 2 / 6 + 500 / 6 + 100)) / 2)


def test_one_translator_draws_nothing(runs: list[ReportRun]) -> None:
    assert parts(runs[:1]) == [] and parts([runs[0], runs[2]]) == []
