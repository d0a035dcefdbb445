"""Scores against the length of the query (the paper's figure 5), with bands, and what one run gains over another.

Q queries, N items, B resamples, R runs, G bins of length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nrccr.errors import UserError
from nrccr.evaluation.compare import Outcome, in_order_of, resampled
from nrccr.evaluation.metrics import LENGTHS, RECALLS
from nrccr.report.charts import run_style
from nrccr.report.finished import ReportRun, Searched
from nrccr.report.part import Part, Value

RESAMPLES, SEED = 1000, 0
FEWEST = 20  # queries of a length that a line shows; those of fewer are in the table alone, unless all have fewer
MOST_BANDS = 4  # of runs in one figure; the bands of more hide each other, and are left to the table
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Lengths:
    """The queries that several runs searched with, in bins of like length.

    Attributes:
        language: of the queries.
        collection: that they are from.
        labels: of the R runs.
        outcomes: R of them, queries and items in the same order.
        tokens: (Q,) the length of each query.
    """

    language: str
    collection: str
    labels: Sequence[str]
    outcomes: Sequence[Outcome]
    tokens: Ints

    @cached_property
    def bins(self) -> Ints:
        """(Q,) the bin of each query."""
        return np.searchsorted(LENGTHS, self.tokens).astype(np.int64)

    @property
    def used(self) -> list[int]:
        """The bins that have queries, shortest first."""
        return [int(at) for at in np.unique(self.bins)]

    @cached_property
    def drawn(self) -> npt.NDArray[np.bool_]:
        """(G,) whether the lines show a bin, of those that have queries."""
        enough = np.unique(self.bins, return_counts=True)[1] >= FEWEST
        return enough if enough.any() else np.ones_like(enough)


@dataclass(frozen=True)
class Curve:
    """A number by bin with its 95 % interval, each (G,)."""

    values: Floats
    low: Floats
    high: Floats


def parts(runs: Sequence[ReportRun]) -> list[Part]:
    """For each collection and query language: recalls by length, and with several runs what each gains over the first.

    Nothing where captions of an item are averaged into one query, which has no length.
    """
    made: list[Part] = []
    for number, lengths in enumerate(compared(runs)):
        ending = f"-{number + 1}" if number else ""
        order = [run.label for run in runs]
        made.append(_scores(lengths, f"length{ending}", order))
        if len(lengths.labels) > 1:
            made.append(_gains(lengths, f"length-gain{ending}", order))
    return made


def compared(runs: Sequence[ReportRun]) -> list[Lengths]:
    """The runs by what they were asked: those with the same queries and items together, in the runs' order.

    Lengths are tokens without special ones, by the tokeniser of the first run of each.
    """
    found: list[tuple[Searched, list[str], list[Outcome]]] = []
    for run in runs:
        for searched in (own for own in run.searched if not own.split.averaged):
            for first, labels, outcomes in found:
                same = (first.language, first.split.collection) == (searched.language, searched.split.collection)
                if same and run.label not in labels:
                    try:
                        outcomes.append(in_order_of(outcomes[0], searched.outcome))
                    except UserError:  # of other queries
                        continue
                    labels.append(run.label)
                    break
            else:
                found.append((searched, [run.label], [searched.outcome]))
    return [
        Lengths(first.language, first.split.collection, labels, outcomes, _tokens(first, outcomes[0]))
        for first, labels, outcomes in found
    ]


def recalls_of(lengths: Lengths) -> dict[str, Curve]:
    """By run, R@1 + R@5 + R@10 of text to visual in percent, by bin, with the bootstrap's interval over items."""
    draws, whole = _draws(lengths), np.ones((1, len(lengths.outcomes[0].item_ids)))
    return {
        label: _interval(_sums(outcome, lengths.bins, whole)[0], _sums(outcome, lengths.bins, draws))
        for label, outcome in zip(lengths.labels, lengths.outcomes, strict=True)
    }


def extra_gain(lengths: Lengths, run: int) -> tuple[float, Curve]:
    """How much more a run gains over the first on queries longer than the median than on the others, (1,).

    Returns:
        The median length, and the difference of both gains with its interval; (0,) where all are of one length.
    """
    median = float(np.median(lengths.tokens))
    longer = (lengths.tokens > median).astype(np.int64)

    def extra(weights: Floats) -> Floats:
        first, other = (_sums(lengths.outcomes[at], longer, weights) for at in (0, run))  # (B, 2)
        return np.diff(other - first, axis=1)  # (B, 1)

    return median, _interval(extra(np.ones((1, len(lengths.outcomes[0].item_ids))))[0], extra(_draws(lengths)))


def gains_of(lengths: Lengths) -> dict[str, Curve]:
    """By run but the first, what it reaches more than the first; both on the same resamples."""
    draws, whole = _draws(lengths), np.ones((1, len(lengths.outcomes[0].item_ids)))
    clouds = [_sums(outcome, lengths.bins, draws) for outcome in lengths.outcomes]
    points = [_sums(outcome, lengths.bins, whole)[0] for outcome in lengths.outcomes]
    return {
        label: _interval(point - points[0], cloud - clouds[0])
        for label, point, cloud in zip(lengths.labels[1:], points[1:], clouds[1:], strict=True)
    }


def _tokens(searched: Searched, outcome: Outcome) -> Ints:
    """The length (Q,) of each of an outcome's queries."""
    words = dict(zip(searched.queries.ids, searched.queries.tokens.words.tolist(), strict=True))
    return np.array([words[query] for query in outcome.query_ids], dtype=np.int64)


def _draws(lengths: Lengths) -> Floats:
    return resampled(len(lengths.outcomes[0].item_ids), RESAMPLES, SEED)


def _sums(outcome: Outcome, bins: Ints, weights: Floats) -> Floats:
    """The sum of recalls (B, G) where item n counts `weights[:, n]` times; NaN where no query of a bin is drawn.

    Args:
        outcome: the ranks.
        bins: (Q,) the bin of each query; those that have queries are the columns, ascending.
        weights: (B, N) whole numbers.
    """
    items = len(outcome.item_ids)
    hits = np.sum([100.0 * (outcome.ranks <= k) for k in RECALLS], axis=0)  # (Q,)
    columns = []
    for at in np.unique(bins):
        inside = bins == at
        own = outcome.item_of[inside]
        total = weights @ np.bincount(own, hits[inside], items)  # (B,)
        count = weights @ np.bincount(own, minlength=items)
        columns.append(np.divide(total, count, out=np.full(len(weights), np.nan), where=count > 0))
    return np.stack(columns, axis=1)


def _interval(point: Floats, cloud: Floats) -> Curve:
    low, high = np.nanpercentile(cloud, [2.5, 97.5], axis=0)
    return Curve(point, low, high)


def span(bins: int) -> str:
    """A bin's lengths: `0-10`, `11-15`, `over 30`."""
    first = LENGTHS[bins - 1] + 1 if bins else 0
    return f"over {LENGTHS[-1]}" if bins == len(LENGTHS) else f"{first}-{LENGTHS[bins]}"


def _scores(lengths: Lengths, name: str, order: Sequence[str]) -> Part:
    curves = recalls_of(lengths)
    counts = np.array([(lengths.bins == at).sum() for at in lengths.used])
    share = 100.0 * counts / counts.sum()
    figure, above, below = _panels()
    _lines(above, curves, lengths, order)
    above.set_ylabel("R@1 + R@5 + R@10, text to visual, %")
    figure.legend(loc="outside upper center", ncols=min(3, len(curves)))
    bars = below.bar(range(len(share)), share, color="#8a8a8a", width=0.6)
    below.bar_label(bars, [f"{count:,}" for count in counts], fontsize=8)
    below.set_ylabel("queries, %")
    below.margins(y=0.25)
    _ticks(below, lengths)
    rows: list[dict[str, Value]] = [
        {
            "run": label,
            "tokens": span(at),
            "queries": int(counts[place]),
            "share, %": float(share[place]),
            **_recalls(outcome, lengths.bins == at),
            **_cells(curves[label], place, "R@1+5+10"),
        }
        for label, outcome in zip(lengths.labels, lengths.outcomes, strict=True)
        for place, at in enumerate(lengths.used)
    ]
    ends = "; ".join(
        f"{label} {curve.values[0]:.1f} for the shortest and {curve.values[-1]:.1f} for the longest"
        for label, curve in curves.items()
    )
    return Part(
        name,
        f"Score against the length of the query ({lengths.collection}, queries in {lengths.language})",
        "The sum of R@1, R@5 and R@10, text to visual, over the queries of like length, in tokens without special "
        f"ones. {_bands(lengths.labels)} are 95 % intervals of a bootstrap over items ({RESAMPLES:,} resamples, seed "
        f"{SEED}); bars are the share of queries, with their number.{_few(lengths)}",
        f"Lines of recall sums over {len(lengths.used)} bins of query length: {ends}. Bars below: "
        + ", ".join(f"{span(at)} tokens {part:.0f} %" for at, part in zip(lengths.used, share, strict=True))
        + ".",
        figure,
        rows,
        shown=True,
    )


def _gains(lengths: Lengths, name: str, order: Sequence[str]) -> Part:
    curves = gains_of(lengths)
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    _lines(axes, curves, lengths, order)
    axes.axhline(0, color="black", linewidth=1)
    axes.set_ylabel(f"R@1 + R@5 + R@10 minus that of\n{lengths.labels[0]}, points")
    figure.legend(loc="outside upper center", ncols=min(3, len(curves)))
    _ticks(axes, lengths)
    rows: list[dict[str, Value]] = [
        {"run": label, "against": lengths.labels[0], "tokens": span(at), **_cells(curve, place, "gain")}
        for label, curve in curves.items()
        for place, at in enumerate(lengths.used)
    ]
    more = []
    for number, label in enumerate(lengths.labels[1:], start=1):
        median, extra = extra_gain(lengths, number)
        if extra.values.size:
            more.append(
                f"On queries longer than the median, {median:g} tokens, {label} gains {extra.values[0]:+.1f} points "
                f"more than on the others ({extra.low[0]:+.1f} to {extra.high[0]:+.1f})."
            )
    ends = "; ".join(
        f"{label} gains "
        + ", ".join(
            f"{curve.values[place]:.1f} ({curve.low[place]:.1f} to {curve.high[place]:.1f}) at {span(at)} tokens"
            for place, at in enumerate(lengths.used)
        )
        for label, curve in curves.items()
    )
    return Part(
        name,
        f"Gain over {lengths.labels[0]} by length ({lengths.collection}, queries in {lengths.language})",
        f"What a run reaches more than {lengths.labels[0]} on the same queries. {_bands(lengths.labels[1:])} are 95 % "
        f"intervals of a paired bootstrap over items ({RESAMPLES:,} resamples, seed {SEED}): where one is off zero the "
        f"difference is more than chance in the choice of items.{_few(lengths)} {' '.join(more)}",
        f"Lines of differences over bins of query length, with bands. {ends}.",
        figure,
        rows,
        shown=True,
    )


def _bands(labels: Sequence[str]) -> str:
    return "Bands" if len(labels) <= MOST_BANDS else "Low and high in the table"


def _panels() -> tuple[Figure, Axes, Axes]:
    figure = Figure(figsize=(6.4, 5.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    return figure, above, below


def _lines(axes: Axes, curves: dict[str, Curve], lengths: Lengths, order: Sequence[str]) -> None:
    at = range(len(lengths.used))
    for label, curve in curves.items():
        style = run_style(order.index(label))
        axes.plot(at, _shown(curve.values, lengths), label=label, **style)
        if len(curves) > MOST_BANDS:
            continue
        low, high = _shown(curve.low, lengths), _shown(curve.high, lengths)
        axes.fill_between(at, low, high, color=style["color"], alpha=0.15, linewidth=0)
        for bound in (low, high):  # where bands overlap, or are printed in grey
            axes.plot(at, bound, color=style["color"], linestyle=style["linestyle"], linewidth=0.7, alpha=0.7)
    axes.grid(alpha=0.3)


def _shown(values: Floats, lengths: Lengths) -> Floats:
    """Values (G,) of a line, NaN where it has a gap."""
    return np.where(lengths.drawn, values, np.nan)


def _few(lengths: Lengths) -> str:
    left = [span(at) for at, drawn in zip(lengths.used, lengths.drawn, strict=True) if not drawn]
    return f" Lengths with fewer than {FEWEST} queries ({', '.join(left)}) are in the table alone." if left else ""


def _ticks(axes: Axes, lengths: Lengths) -> None:
    axes.set_xticks(range(len(lengths.used)), [span(at) for at in lengths.used])
    axes.set_xlabel("length of the query, tokens")


def _recalls(outcome: Outcome, inside: npt.NDArray[np.bool_]) -> dict[str, Value]:
    return {f"R@{k}": float(100 * (outcome.ranks[inside] <= k).mean()) for k in RECALLS}


def _cells(curve: Curve, place: int, name: str) -> dict[str, Value]:
    bounds = {f"{name} low": float(curve.low[place]), f"{name} high": float(curve.high[place])}
    return {name: float(curve.values[place]), **bounds}
