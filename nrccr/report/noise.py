"""Models against translation noise: the cells of the comparison, its table and its plot (the paper's figure 4)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from nrccr.data.generated.collection import rate_of
from nrccr.errors import UserError
from nrccr.evaluation.metrics import RECALLS, recall_sum
from nrccr.files import atomic_path, read_json
from nrccr.report.charts import new_axes, run_style
from nrccr.report.seeds import in_words, mean_and_deviation


@dataclass(frozen=True)
class Cell:
    """One run of the comparison; `changes` are the overrides that make the model."""

    model: str
    translator: str
    seed: int
    changes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its run folder's name."""
        return f"{self.model}-{self.translator}-s{self.seed}"

    @property
    def overrides(self) -> list[str]:
        """What it changes in the configuration."""
        return [*self.changes, f"data.translator={self.translator}", f"seed={self.seed}"]


@dataclass(frozen=True)
class NoiseRow:
    """One model with one translator over all seeds; recalls in percent.

    Attributes:
        recall: sum of the text-to-visual R@1, R@5 and R@10 of each seed.
        sumr: SumR of each seed.
    """

    model: str
    translator: str
    recall: list[float]
    sumr: list[float]


def cells(models: Mapping[str, tuple[str, ...]], translators: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """All runs, all models of one seed and translator in a row, so that an early stop leaves complete comparisons."""
    return [Cell(model, name, seed, own) for seed in seeds for name in translators for model, own in models.items()]


def collect(metrics: Mapping[Cell, Mapping[str, Any]]) -> list[NoiseRow]:
    """Rows from the test metrics of each cell, in the cells' order."""
    rows: dict[tuple[str, str], NoiseRow] = {}
    for cell, found in metrics.items():
        row = rows.setdefault((cell.model, cell.translator), NoiseRow(cell.model, cell.translator, [], []))
        row.recall.append(recall_sum(found["text_to_visual"]))
        row.sumr.append(found["SumR"])
    return list(rows.values())


def read_metrics(path: Path) -> dict[str, Any]:
    """The metrics of a tested run.

    Raises:
        UserError: a damaged file, or one without these numbers.
    """
    advice = f"remove {path.parent}, so that the run is tested again"
    found = read_json(path, advice)
    try:
        numbers = [found["SumR"], *(found["text_to_visual"][f"R@{k}"] for k in RECALLS)]
        if all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
            return found
    except (KeyError, TypeError):
        pass
    raise UserError(f"{path}: lacks SumR or a recall; {advice}")


def to_markdown(rows: Sequence[NoiseRow]) -> str:
    """The table as Markdown."""
    lines = ["| translator | model | T2V R@1+5+10 | SumR | seeds |", "|---|---|---|---|---|"]
    for row in rows:
        cells = (row.translator, row.model, in_words(row.recall), in_words(row.sumr), str(len(row.sumr)))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def to_json(rows: Sequence[NoiseRow]) -> str:
    """Every value of every row."""
    return json.dumps([vars(row) for row in rows], indent=2) + "\n"


def plot(rows: Sequence[NoiseRow], path: Path) -> None:
    """Write `draw` of the rows; PNG or SVG by the path's ending."""
    figure = draw(rows)
    with atomic_path(path) as temporary:
        figure.savefig(
            temporary, format=path.suffix[1:], dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None
        )


def draw(rows: Sequence[NoiseRow], intervals: Mapping[tuple[str, str], tuple[float, float]] | None = None) -> Figure:
    """SumR over noise, one line a model.

    Args:
        rows: one for each model and translator.
        intervals: by model and translator, the ends of a bar; left out: one deviation where there are several seeds.
    """
    translators = list(dict.fromkeys(row.translator for row in rows))
    rates = [rate_of(name) for name in translators]
    numeric = [rate for rate in rates if rate is not None]
    places = numeric if len(numeric) == len(rates) else list(range(len(rates)))
    figure, axes = new_axes(
        5, 3.5, "wrong words, %" if len(numeric) == len(rates) else "translator", "SumR, test, points"
    )
    for number, model in enumerate(dict.fromkeys(row.model for row in rows)):
        own = {row.translator: mean_and_deviation(row.sumr) for row in rows if row.model == model}
        at = [place for place, name in zip(places, translators, strict=True) if name in own]
        own = {name: own[name] for name in translators if name in own}
        means = [mean for mean, _ in own.values()]
        ends = [
            (mean - (deviation or 0.0), mean + (deviation or 0.0)) if intervals is None else intervals[model, name]
            for name, (mean, deviation) in own.items()
        ]
        bars = [[mean - low, high - mean] for mean, (low, high) in zip(means, ends, strict=True)]
        axes.errorbar(at, means, yerr=list(zip(*bars, strict=True)), capsize=3, label=model, **run_style(number))
    axes.set_xticks(
        places, [str(rate) if rate is not None else name for rate, name in zip(rates, translators, strict=True)]
    )
    axes.legend()
    return figure
