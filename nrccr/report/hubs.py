"""Hubs: how unevenly the rankings of a run show its items, before and after normalisation.

Q queries, N items.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nrccr.config.keys import declared
from nrccr.data.batch import ENGLISH
from nrccr.data.collections import SplitName
from nrccr.data.queries import Sample
from nrccr.evaluation.banks import sampled_banks
from nrccr.evaluation.directions import Bank, Directions
from nrccr.evaluation.hubness import Counts, Hubness, first_places, hubness, occurrences, places_of
from nrccr.evaluation.normalise import Settings
from nrccr.evaluation.ranked import Scored
from nrccr.report import confused, mixing
from nrccr.report.captions import english_captions, first_of
from nrccr.report.charts import run_style
from nrccr.report.finished import ReportRun, Searched
from nrccr.report.gallery import Cell, Group, Row, draw_gallery
from nrccr.report.media import Look, looks
from nrccr.report.part import Part, Value
from nrccr.systems.base import splits_of

# With parameters that are not tuned: `nrccr test --tune` chooses them on the validation split.
TRIED = (Settings("is", beta=20.0), Settings("dis", beta=20.0, k=1), Settings("csls", k=10), Settings("nnn", k=10))
NAMES = {"is": "inverted softmax", "dis": "QB-Norm (dis)", "csls": "CSLS", "nnn": "NNN"}
PLAIN = "not normalised"
SIZE = 2000  # captions of a bank
SEED = 0
WORST = 5  # hubs shown of each run
COLUMNS = 2  # panels side by side


@dataclass(frozen=True)
class Shown:
    """How one ranking of a run's test queries shows its items.

    Attributes:
        panel: the run, with its query language where it has several.
        name: of the normalisation, or of the language.
        counts: (N,) for how many queries each item is among the first k.
        right: (N,) for how many of these it is the right one.
        places: k.
        metrics: text to visual and back.
    """

    panel: str
    name: str
    counts: Counts
    right: Counts
    places: int
    metrics: dict[str, float]

    @property
    def label(self) -> str:
        """What stands before its hubs."""
        return self.panel if self.name == PLAIN else f"{self.panel}, {self.name}"

    @property
    def hubness(self) -> Hubness:
        """Its numbers."""
        return hubness(self.counts)

    def row(self) -> dict[str, Value]:
        """Its numbers, for the table."""
        own = self.hubness
        return {
            "run": self.panel,
            "scores": self.name,
            "k": self.places,
            "items": len(self.counts),
            "mean k-occurrence": own.mean,
            "skewness": own.skewness,
            "never in a top k (%)": 100 * own.never,
            "largest k-occurrence": own.most,
            **self.metrics,
        }


def shown(panel: str, name: str, scored: Scored, memory_mb: float) -> Shown:
    """Count how a ranking shows its items."""
    items = scored.forward.shape[1]
    k = places_of(items)
    first = first_places(scored.forward, k, memory_mb)  # (Q, k)
    right = first[first == scored.item_of[:, None]]
    found = scored.ranked(memory_mb=memory_mb).metrics()
    metrics = {"R@1, text to visual (%)": found["text_to_visual"]["R@1"], "SumR": found["SumR"]}
    return Shown(panel, name, occurrences(first, items), occurrences(right, items), k, metrics)


def banks_of(run: ReportRun) -> list[Bank]:
    """A bank of training captions for each folder of the test; none where scores are not normalised.

    Raises:
        UserError: the training captions cannot be read, or are test queries.
    """
    config = run.config
    if config.model not in config.readers(declared(type(config))["evaluation.normalise"]):
        return []
    # Those of an unparallel training have no translations.
    split: SplitName = "val" if config.data.scenario == "unparallel" else "train"
    drawn = splits_of(run.retriever, run.root, split, Sample(SIZE, SEED, at_most=True))
    tested = (searched.split for searched in run.searched)
    pairs = zip(drawn, tested, strict=True)
    banks = (sampled_banks(run.retriever.network, one, other, run.rule, SEED) for one, other in pairs)
    return [bank for by_language in banks for bank in by_language.values()]


@torch.inference_mode()
def rankings(run: ReportRun) -> list[Shown]:
    """All rankings of a run: plain ones, and normalised ones where the model's scores are normalised."""
    rule, found = run.rule, []
    banks = banks_of(run)
    if not banks:
        return [shown(run.label, searched.language, searched.scored(), rule.memory_mb) for searched in run.searched]
    for searched, bank in zip(run.searched, banks, strict=True):
        panel = run.label if len(banks) == 1 else f"{run.label}, {searched.language}"
        found.append(shown(panel, PLAIN, searched.scored(), rule.memory_mb))
        directions = Directions(searched.encoded.embeddings, rule.kind, rule.memory_mb, bank)
        for settings in TRIED:
            both = directions.normalised(rule.target_weight, settings)
            scored = Scored.of(both, searched.encoded.item_of, rule.memory_mb)
            found.append(shown(panel, NAMES[settings.method], scored, rule.memory_mb))
    return found


def parts(runs: Sequence[ReportRun]) -> list[Part]:
    """Hubs, the languages that are confused, and what mixing queries with their translations does."""
    return [*of_hubs(runs), *confused.parts(runs), *mixing.parts(runs)]


def of_hubs(runs: Sequence[ReportRun]) -> list[Part]:
    """How unevenly items are shown, before and after normalisation, and the worst hubs."""
    by_run = {run.label: rankings(run) for run in runs}
    every = [ranking for found in by_run.values() for ranking in found]
    k = every[0].places
    text = (
        f"For how many test queries each item is among the first {k} (its {k}-occurrence): a fair ranking shows all "
        "items alike, a hub comes out for queries that it has nothing to do with, at the cost of items that never come "
        "out. Items are in the order of that number, most frequent first; the dotted line is its mean, which no "
        "ranking changes. Skewness is that of the distribution. Colours tell apart the rankings of one run. "
    )
    if any(ranking.name == PLAIN for ranking in every):
        text += (
            f"Normalised with a bank of up to {SIZE:,} captions that are no test queries, drawn from the training "
            f"split with seed {SEED} (the validation split where training captions have no translations); beta 20, k 1 "
            "(dis) or 10 (CSLS, NNN), alpha 0.75, not tuned."
        )
    alt = (
        f"Lines of the number of queries that have an item among their first {k}, over items in the order of that "
        f"number (percent of all items). {_in_words(every)}."
    )
    rows = [ranking.row() for ranking in every]
    title = "Hubness before and after normalisation"
    hubs = Part("hubness", title, text, alt, draw(every), rows, shown=True)
    return [hubs, worst_hubs(runs, by_run)]


def _in_words(every: Sequence[Shown]) -> str:
    return "; ".join(
        f"{one.panel}, {one.name}: skewness {one.hubness.skewness:.2f}, {100 * one.hubness.never:.0f} % of items never"
        for one in every
    )


def draw(every: Sequence[Shown]) -> Figure:
    """A panel a run, a line a ranking."""
    panels = list(dict.fromkeys(ranking.panel for ranking in every))
    columns = min(COLUMNS, len(panels))
    height = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(5.2 * columns, 3.9 * height), layout="constrained")
    grid = figure.subplots(height, columns, sharex=True, sharey=True, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _panel(axes, [ranking for ranking in every if ranking.panel == panel])
        axes.set_title(panel, fontsize=10)
    for axes in list(grid.flat)[len(panels) :]:
        axes.axis("off")
    figure.supxlabel("items, the most frequent first (% of all)", fontsize=10)
    figure.supylabel(f"queries that have the item among their first {every[0].places}", fontsize=10)
    return figure


def _panel(axes: Axes, every: Sequence[Shown]) -> None:
    for at, ranking in enumerate(every):
        counts = np.sort(ranking.counts)[::-1]  # (N,)
        share = 100 * np.arange(1, len(counts) + 1) / len(counts)
        own = ranking.hubness
        label = f"{ranking.name}: skewness {own.skewness:.2f}, never {100 * own.never:.0f} %"
        look = run_style(at)
        axes.plot(share, counts, label=label, linewidth=1.6, color=look["color"], linestyle=look["linestyle"])
    axes.axhline(every[0].hubness.mean, color="#555555", linestyle=":", linewidth=1.2)
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, 100)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7.5, loc="upper right")


def worst_hubs(runs: Sequence[ReportRun], by_run: dict[str, list[Shown]]) -> Part:
    """The items that come out for the most queries, of each run."""
    rows: list[dict[str, Value]] = []
    shown_as: list[Row] = []
    for run in runs:
        found = by_run[run.label]
        panels = dict.fromkeys(ranking.panel for ranking in found)
        groups = [[one for one in found if one.panel == panel] for panel in panels]
        if len(groups) < len(run.searched):  # a ranking a language
            groups = [[one] for one in found]
        for searched, group in zip(run.searched, groups, strict=True):
            own = _worst_of(searched, group)
            look = looks(searched)
            shown_as.append(Row(group[0].label, [_cell(place, row, look) for place, row in enumerate(own, start=1)]))
            rows += own
    names = dict.fromkeys(name for row in rows for name in row)
    rows = [{name: row.get(name) for name in names} for row in rows]
    k = next(iter(by_run.values()))[0].places
    text = (
        f"The {WORST} items of each run that are among the first {k} for the most test queries, before normalisation: "
        "for how many of these they are the right one, and for how many queries they come out after normalisation."
    )
    figure = draw_gallery([Group([f"The items among the first {k} for the most queries"], shown_as)], WORST)
    told = (f"{row['run']}, {row['queries in']}: {row['item']} for {row['queries']:,} queries" for row in rows)
    alt = f"The worst hubs of each run. {'; '.join(told)}."
    return Part("worst-hubs", "The worst hubs", text, alt, figure, rows, shown=True, languages={"captions": ENGLISH})


def _cell(place: int, row: dict[str, Value], look: Look) -> Cell:
    item, captions = str(row["item"]), str(row["captions"])
    note = f"{row['queries']:,} queries, right for {row['right for']:,}"
    return Cell(place, item, right=False, picture=look(item), captions=[captions] if captions else [], note=note)


def _worst_of(searched: Searched, group: Sequence[Shown]) -> list[dict[str, Value]]:
    before = group[0]
    captions = english_captions(searched)
    rows: list[dict[str, Value]] = []
    for item in np.argsort(-before.counts, kind="stable")[:WORST].tolist():
        name = searched.item_ids[item]
        row: dict[str, Value] = {
            "run": searched.run.label,
            "queries in": searched.language,
            "item": name,
            "queries": int(before.counts[item]),
            "right for": int(before.right[item]),
            "mean of all items": before.hubness.mean,
            **{f"after {other.name}": int(other.counts[item]) for other in group[1:]},
            "captions": " / ".join(first_of(captions.get(name, ()), 2)),
        }
        rows.append(row)
    return rows
