"""Languages confused: which language the caption nearest to a caption, or to an item, is in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nrccr.evaluation.confusion import Nearest, Tongue, nearest_languages
from nrccr.report.finished import ReportRun
from nrccr.report.part import Part, Value

MOST = 2000  # captions of a language, and items, that search
SEED = 0
ITEMS = "items"
COLUMNS = 3  # tables side by side


@dataclass(frozen=True)
class Confused:
    """The languages of a run's nearest captions, by what searched: a language, or the items."""

    label: str
    by_query: Mapping[str, Nearest]

    @property
    def languages(self) -> list[str]:
        """Those of the captions that are found."""
        return list(self.by_query[ITEMS].shares)

    def rows(self) -> list[dict[str, Value]]:
        """A row for each pair of a query's language and the nearest caption's."""
        return [
            {
                "run": self.label,
                "query": query,
                "queries": own.queries,
                "nearest caption in": language,
                "share (%)": 100 * own.shares[language],
                "share of all captions (%)": 100 * own.expected[language],
                "of the same item (%)": None if right is None else 100 * right,
            }
            for query, own in self.by_query.items()
            for language, right in own.right.items()
        ]

    def in_words(self) -> str:
        """How often a caption's nearest is in its own language, against its share of all captions."""
        own = [
            f"{language} {100 * self.by_query[language].shares[language]:.0f} % "
            f"({100 * self.by_query[language].expected[language]:.0f} %)"
            for language in self.languages
        ]
        return f"{self.label}: {', '.join(own)}"


def tongues(run: ReportRun) -> dict[str, Tongue]:
    """The test captions of a run by language; of one with one query language, the queries and their translations."""
    first = run.headline
    places = {item: place for place, item in enumerate(first.item_ids)}
    found: dict[str, Tongue] = {}
    for searched in run.searched:
        # Splits that differ in language may name their items in another order.
        order = np.array([places.get(item, -1) for item in searched.item_ids], dtype=np.int64)
        found[searched.language] = Tongue(searched.encoded.embeddings.target, order[searched.encoded.item_of])
    source = first.encoded.embeddings.source
    if len(found) == 1 and source is not None:
        found[f"{run.config.data.source}, translated"] = Tongue(source, first.encoded.item_of)
    return found


@torch.inference_mode()
def confused(run: ReportRun) -> Confused | None:
    """The languages that a run confuses; none where its captions are all in one."""
    by_language = tongues(run)
    if len(by_language) < 2:
        return None
    items = run.headline.encoded.embeddings.visual
    captions, of_items = nearest_languages(by_language, items, MOST, SEED, run.rule.memory_mb)
    return Confused(run.label, {**captions, ITEMS: of_items})


def parts(runs: Sequence[ReportRun]) -> list[Part]:
    """Which languages are confused; none where no run has captions in two languages."""
    every = [found for run in runs if (found := confused(run)) is not None]
    if not every:
        return []
    text = (
        "The language of the caption that lies nearest to each test caption (not itself), and to each item, among the "
        "test captions of all languages; a row adds up to 100 %. Where languages share one space a row is like the "
        "last one, the share that each language has of all captions; where each has a region of its own, the diagonal "
        f"is dark. At most {MOST:,} captions of a language, and items, search (drawn with seed {SEED}); all are found."
    )
    told = "; ".join(one.in_words() for one in every)
    alt = (
        "Tables of shares (percent): rows are the language of the query, columns that of the nearest caption. Nearest "
        f"in the query's own language, in brackets its share of all captions: {told}."
    )
    rows = [row for one in every for row in one.rows()]
    return [Part("languages", "Languages confused", text, alt, draw(every), rows)]


def draw(every: Sequence[Confused]) -> Figure:
    """A table a run, darker where the share is larger."""
    most = max(len(one.languages) for one in every)
    width = 1.9 + 0.62 * max(most, 3)
    columns = min(COLUMNS, len(every))
    height = -(-len(every) // columns)
    figure = Figure(figsize=(width * columns, 0.4 + height * (0.9 + 0.42 * (most + 2))), layout="constrained")
    grid = list(figure.subplots(height, columns, squeeze=False).flat)
    for axes, one in zip(grid, every, strict=False):
        _table(axes, one)
    for axes in grid[len(every) :]:
        axes.axis("off")
    figure.supxlabel("language of the nearest caption (% of the queries)", fontsize=10)
    figure.supylabel("query", fontsize=10)
    return figure


def _table(axes: Axes, one: Confused) -> None:
    lines = [[own.shares[language] for language in one.languages] for own in one.by_query.values()]
    lines.append(list(one.by_query[ITEMS].expected.values()))
    values = 100 * np.array(lines)  # (languages + 2, languages)
    axes.imshow(values, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if value > 70 else "black"
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=9)
    axes.axhline(len(values) - 1.5, color="black", linewidth=1.2)
    axes.set_xticks(range(len(one.languages)), [name.replace(", ", ",\n") for name in one.languages], fontsize=9)
    axes.set_yticks(range(len(values)), [*one.by_query, "all captions"], fontsize=9)
    axes.tick_params(length=0)
    axes.set_title(one.label, fontsize=10)
