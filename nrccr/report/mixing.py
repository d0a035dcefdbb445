"""What mixing does: ranks by the translations alone, by the queries alone, and by both.

Q queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from nrccr.evaluation.changes import Changes, rank_changes, size_names
from nrccr.evaluation.ranked import Ranked
from nrccr.report.charts import COLOURS
from nrccr.report.finished import ReportRun, Searched
from nrccr.report.part import Part, Value

# From many places lost to many gained: orange and blue differ to every eye, and darker is more.
_SHADES = (COLOURS[1], COLOURS[5], "#F7DDA8", "#E3E3E3", "#BFE3F7", COLOURS[4], COLOURS[0])
_ON_DARK = COLOURS[0]  # the shade on which black is hard to read
_LEAST_SHOWN = 5.0  # percent: a segment with room for its number


@dataclass(frozen=True)
class Weighting:
    """Ranks of the same queries by one weight of the query itself, its translation getting the rest."""

    name: str
    target_weight: float
    ranked: Ranked

    @property
    def sumr(self) -> float:
        """Recalls of both directions added up, in percent."""
        return float(self.ranked.metrics()["SumR"])


@dataclass(frozen=True)
class Step:
    """One weighting against another, for the queries of a run in one language."""

    label: str
    before: Weighting
    after: Weighting
    changes: Changes

    @property
    def shares(self) -> tuple[float, ...]:
        """In percent, from the most places lost to the most gained."""
        own = self.changes
        return tuple(100 * share for share in (*reversed(own.worse), own.same, *own.better))

    def row(self) -> dict[str, Value]:
        """Its numbers."""
        sizes = size_names()
        names = [*(f"worse by {size} (%)" for size in reversed(sizes)), "same (%)"]
        names += [f"better by {size} (%)" for size in sizes]
        return {
            "run": self.label,
            "before": self.before.name,
            "after": self.after.name,
            "target weight before": self.before.target_weight,
            "target weight after": self.after.target_weight,
            "queries": len(self.before.ranked.text_to_visual.best),
            "SumR before": self.before.sumr,
            "SumR after": self.after.sumr,
            "median gain (places)": self.changes.median,
            "better (%)": 100 * sum(self.changes.better),
            **dict(zip(names, self.shares, strict=True)),
            "worse (%)": 100 * sum(self.changes.worse),
        }


def weightings(searched: Searched) -> list[Weighting]:
    """Ranks by the translations alone, by the queries alone, and mixed as the run is tested; fewer if it mixes nothing.

    Empty for queries without translations.
    """
    if searched.encoded.embeddings.source is None:
        return []
    rule = searched.run.rule
    named = {0.0: "translations", 1.0: "queries"}
    named.setdefault(rule.target_weight, f"mixed {1 - rule.target_weight:.2g} : {rule.target_weight:.2g}")
    return [
        Weighting(name, weight, searched.scored(weight).ranked(memory_mb=rule.memory_mb))
        for weight, name in named.items()
    ]


def steps(searched: Searched, label: str) -> list[Step]:
    """The weightings against one another: translations to queries, and each of the two to both mixed."""
    found = weightings(searched)
    pairs = [(before, after) for at, after in enumerate(found) for before in found[:at]]
    return [
        Step(label, before, after, rank_changes(before.ranked.text_to_visual.best, after.ranked.text_to_visual.best))
        for before, after in pairs
    ]


def parts(runs: Sequence[ReportRun]) -> list[Part]:
    """Rank differences between queries by translation, as they are, and mixed; none where no query is translated."""
    every: list[Step] = []
    for run in runs:
        for searched in run.searched:
            label = run.label if len(run.searched) == 1 else f"{run.label}, {searched.language}"
            every += steps(searched, label)
    if not every:
        return []
    text = (
        "Each query is ranked three times: by its translation alone, by itself alone, and by both scores mixed with "
        "the weights of the run's test (translation : query). A bar shows how the rank of the right item changes for "
        "all test queries, text to visual: on the left those that lose places, on the right those that gain, darker "
        "where they move further. SumR adds up the recalls of both directions."
    )
    ends = [
        f"{step.label}, {step.before.name} to {step.after.name}: {100 * sum(step.changes.better):.0f} % of the queries "
        f"better, {100 * sum(step.changes.worse):.0f} % worse, SumR {step.before.sumr:.1f} to {step.after.sumr:.1f}"
        for step in every
    ]
    alt = "Stacked bars of the share of test queries (percent) by change of rank (places). " + "; ".join(ends) + "."
    title = "Rank differences between translations, queries and both mixed"
    return [Part("rank-differences", title, text, alt, draw(every), [step.row() for step in every], shown=False)]


def draw(every: Sequence[Step]) -> Figure:
    """One bar a step, the steps of a run together."""
    labels = list(dict.fromkeys(step.label for step in every))
    lines = len(every) + len(labels)
    figure = Figure(figsize=(8.0, 1.3 + 0.42 * lines), layout="constrained")
    axes = figure.add_subplot()
    at, ticks = 0.0, []
    for label in labels:
        axes.text(0, at, label, fontsize=10, fontweight="bold", va="center")
        for step in (step for step in every if step.label == label):
            at += 1
            _bar(step, at, axes)
            ticks.append((at, f"{step.before.name} → {step.after.name}"))
        at += 1
    axes.set_yticks([place for place, _ in ticks], [name for _, name in ticks])
    axes.set_ylim(at - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the test queries (%)")
    axes.set_ylabel("weights: before → after")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    sizes = size_names()
    names = [*(f"worse by {size}" for size in reversed(sizes)), "same rank", *(f"better by {size}" for size in sizes)]
    patches = [Patch(facecolor=shade, edgecolor="black", linewidth=0.5) for shade in _SHADES]
    figure.legend(patches, names, loc="outside upper center", ncols=4, fontsize=8, title="places", title_fontsize=8)
    return figure


def _bar(step: Step, at: float, axes: Axes) -> None:
    left = 0.0
    for share, shade in zip(step.shares, _SHADES, strict=True):
        axes.barh(at, share, left=left, height=0.72, color=shade, edgecolor="white", linewidth=0.6)
        if share >= _LEAST_SHOWN:
            colour = "white" if shade == _ON_DARK else "black"
            axes.text(left + share / 2, at, f"{share:.0f}", ha="center", va="center", fontsize=8, color=colour)
        left += share
    words = f"median gain {step.changes.median:g}\nSumR {step.before.sumr:.1f} → {step.after.sumr:.1f}"
    axes.text(101, at, words, va="center", fontsize=8)
