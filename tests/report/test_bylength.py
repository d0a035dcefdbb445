"""Scores against the length of queries: recalls by hand, the bands by a slower bootstrap, gains on the same queries."""

from __future__ import annotations

import numpy as np

from nrccr.evaluation.compare import Outcome, bootstrap
from nrccr.evaluation.metrics import recalls_by_length
from nrccr.report.bylength import FEWEST, RESAMPLES, SEED, compared, extra_gain, gains_of, parts, recalls_of, span
from tests.report.runs import finished_run, outcome

LENGTHS = [3, 12, 10, 31, 12, 11]
RANKS = [1, 6, 2, 11, 1, 3]
ITEMS = [0, 0, 1, 1, 2, 2]
BETTER = [1, 1, 2, 4, 1, 1]


def shuffled(found: Outcome, order: list[int]) -> Outcome:
    """The same ranks with queries in another order."""
    ids = [found.query_ids[at] for at in order]
    return Outcome(
        found.folder, ids, found.ranks[order], found.item_ids, found.item_ranks, found.precisions, found.item_of[order]
    )


def two_runs() -> list[object]:
    other = shuffled(outcome(BETTER, ITEMS), [5, 3, 1, 0, 2, 4])
    lengths = [LENGTHS[at] for at in [5, 3, 1, 0, 2, 4]]
    return [
        finished_run("a", searched=[(outcome(RANKS, ITEMS), LENGTHS)]),
        finished_run("b", searched=[(other, lengths)]),
    ]


def test_rows_by_hand() -> None:
    part = parts([finished_run("a", searched=[(outcome(RANKS, ITEMS), LENGTHS)])])
    assert [own.name for own in part] == ["length"]
    assert [row["tokens"] for row in part[0].rows] == ["0-10", "11-15", "over 30"]
    rows = [tuple(row[name] for name in ("queries", "R@1", "R@5", "R@10")) for row in part[0].rows]
    np.testing.assert_allclose(rows, [(2, 50, 100, 100), (3, 100 / 3, 200 / 3, 100), (1, 0, 0, 0)])
    np.testing.assert_allclose([row["R@1+5+10"] for row in part[0].rows], [250, 200, 0])
    np.testing.assert_allclose([row["share, %"] for row in part[0].rows], [100 / 3, 50, 100 / 6])
    tested = recalls_by_length(np.array(RANKS, float), np.array(LENGTHS))  # what `nrccr test --by-length` writes
    names = ("queries", "R@1", "R@5", "R@10")
    np.testing.assert_allclose([[own[name] for name in names] for own in tested], rows)


def test_a_length_of_few_queries_is_in_the_table_alone() -> None:
    """A line through one query would set the scale for all others."""
    tokens, ranks = [3, *[12] * FEWEST, *[18] * FEWEST], [1, *[2] * FEWEST, *[6] * FEWEST]
    (part,) = parts([finished_run("a", searched=[(outcome(ranks, [0] * len(ranks)), tokens)])])
    assert part.figure is not None and "(0-10) are in the table alone" in part.text
    line = part.figure.axes[0].lines[0].get_ydata()
    np.testing.assert_allclose(line, [np.nan, 200, 100])
    assert [row["queries"] for row in part.rows] == [1, FEWEST, FEWEST]


def test_bands_are_those_of_drawing_items_one_by_one() -> None:
    lengths = compared([finished_run("a", searched=[(outcome(RANKS, ITEMS), LENGTHS)])])[0]
    curve = recalls_of(lengths)["a"]
    generator = np.random.default_rng(SEED)
    sums: list[list[float]] = []
    for _ in range(RESAMPLES):
        drawn = [query for item in generator.integers(3, size=3) for query in np.flatnonzero(np.array(ITEMS) == item)]
        own = []
        for low, high in ((0, 10), (11, 15), (31, 999)):
            hits = [sum(100 * (RANKS[query] <= k) for k in (1, 5, 10)) for query in drawn
                    if low <= LENGTHS[query] <= high]  # fmt: skip
            own.append(float(np.mean(hits)) if hits else np.nan)
        sums.append(own)
    low, high = np.nanpercentile(np.array(sums), [2.5, 97.5], axis=0)
    np.testing.assert_allclose(curve.low, low)
    np.testing.assert_allclose(curve.high, high)


def test_gains_are_paired_whatever_the_order_of_queries() -> None:
    both = compared(two_runs())
    assert len(both) == 1 and both[0].labels == ["a", "b"]
    gains = gains_of(both[0])
    assert list(gains) == ["b"]
    np.testing.assert_allclose(gains["b"].values, [0.0, 100.0, 200.0])
    assert gains["b"].low[0] == gains["b"].high[0] == 0.0, "equal on every resample"
    names = [part.name for part in parts(two_runs())]
    assert names == ["length", "length-gain"]


def test_longer_queries_gain_more_by_hand() -> None:
    both = compared(two_runs())[0]
    median, extra = extra_gain(both, 1)
    assert median == 11.5
    hits = [[sum(100 * (rank <= k) for k in (1, 5, 10)) for rank in ranks] for ranks in (RANKS, BETTER)]
    gains = np.subtract(hits[1], hits[0])
    longer = np.array(LENGTHS) > 11.5
    np.testing.assert_allclose(extra.values, [gains[longer].mean() - gains[~longer].mean()])
    assert extra.low[0] <= extra.values[0] <= extra.high[0]
    assert f"b gains {extra.values[0]:+.1f} points" in parts(two_runs())[1].text


def test_a_single_bin_has_the_interval_of_compare() -> None:
    short = [3] * 6
    runs = [finished_run(name, searched=[(outcome(ranks, ITEMS), short)]) for name, ranks in
            (("a", RANKS), ("b", BETTER))]  # fmt: skip
    gain = gains_of(compared(runs)[0])["b"]
    found = bootstrap(outcome(RANKS, ITEMS), outcome(BETTER, ITEMS), RESAMPLES, SEED)
    total = sum(found["text_to_visual", f"R@{k}"].difference for k in (1, 5, 10))
    np.testing.assert_allclose(gain.values, [total])


def test_runs_of_other_queries_stand_apart() -> None:
    runs = [two_runs()[0], finished_run("c", searched=[(outcome([1, 1], [7, 8]), [4, 5])])]
    assert [own.labels for own in compared(runs)] == [["a"], ["c"]]
    assert [part.name for part in parts(runs)] == ["length", "length-2"]


def test_averaged_captions_have_no_length() -> None:
    run = finished_run("a", searched=[(outcome(RANKS, ITEMS), LENGTHS)])
    run.searched[0].split.averaged = True
    assert parts([run]) == []


def test_spans() -> None:
    assert [span(at) for at in range(6)] == ["0-10", "11-15", "16-20", "21-25", "26-30", "over 30"]
