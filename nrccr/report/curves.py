"""Curves of a training: every named loss, validation, learning rate, and how often the discriminator is right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nrccr.evaluation.compare import DIRECTIONS
from nrccr.evaluation.metrics import RECALLS
from nrccr.report.charts import run_style
from nrccr.report.finished import ReportRun, is_count, is_number
from nrccr.report.part import Part, Value

COLUMNS = 3  # of small plots
STEP, EPOCH = "training step", "epoch"
MARKED = 8  # points of a curve that carry its run's marker, about


@dataclass(frozen=True)
class Curve:
    """One number of one run over its training.

    Attributes:
        run: the run's label.
        name: of the number.
        at: steps or epochs, ascending.
        values: there.
        best: the epoch whose weights were kept, on curves over epochs.
    """

    run: str
    name: str
    at: Sequence[int]
    values: Sequence[float]
    best: int | None = None


def parts(runs: Sequence[ReportRun]) -> list[Part]:
    """Losses, validation, learning rate, the discriminator's accuracy; without those that no run has."""
    lines = "Each point is the mean over the steps since the one before, on batches of the training split."
    best = "A star marks the epoch whose weights were kept."
    labels = [run.label for run in runs]
    made = [
        _part(
            Part("losses", "Losses", f"Every named loss, its weight applied, and their total. {lines}"),
            [curve for run in runs for curve in training_curves(run) if _is_loss(curve.name)],
            labels,
            {"": "loss"},
        ),
        _part(
            Part(
                "validation",
                "Validation",
                "Recalls of the validation split after every epoch; SumR adds six of them up, "
                f"the score is what an epoch is kept by. {best}",
            ),
            [curve for run in runs for curve in validation_curves(run)],
            labels,
            {"R@": "recall, %", "SumR": "sum of recalls, %", "score": "points"},
        ),
        _part(
            Part("learning-rate", "Learning rate", "The network's learning rate at every logged step."),
            [curve for run in runs for curve in training_curves(run) if curve.name == "learning_rate"],
            labels,
            {"": "learning rate"},
        ),
        _part(
            Part(
                "discriminator",
                "Accuracy of the discriminator",
                "How often the language discriminator names the language of a caption rightly, by language; 50 % is "
                f"guessing, which the network aims at. {lines}",
            ),
            [curve for run in runs for curve in training_curves(run) if curve.name.endswith("_accuracy")],
            labels,
            {"": "right, %"},
        ),
    ]
    return [part for part in made if part is not None]


def training_curves(run: ReportRun) -> list[Curve]:
    """Every number of the lines of kind `train`, by step; accuracies in percent."""
    points: dict[str, dict[int, float]] = {}
    for line in run.log:
        if line["kind"] == "train":
            for name, value in line.items():
                if name not in ("step", "epoch") and is_number(value):
                    scale = 100.0 if name.endswith("_accuracy") else 1.0
                    points.setdefault(name, {})[line["step"]] = scale * float(value)
    return [Curve(run.label, name, list(own), list(own.values())) for name, own in points.items()]


def validation_curves(run: ReportRun) -> list[Curve]:
    """Recalls of both directions, SumR and the score that epochs are chosen by, by epoch; of languages their mean."""
    points: dict[str, dict[int, float]] = {}
    for line in run.log:
        if line["kind"] == "validation" and is_count(line.get("epoch")):
            for name, value in _validated(line):
                points.setdefault(name, {})[line["epoch"]] = value
    finished = run.record["finished"].get("best_epoch")
    best = finished if is_count(finished) else None
    return [Curve(run.label, name, list(own), list(own.values()), best) for name, own in points.items()]


def _validated(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    own = line.get("mean") if isinstance(line.get("mean"), Mapping) else line
    assert isinstance(own, Mapping)
    for direction in DIRECTIONS:
        found = own.get(direction)
        for k in RECALLS:
            value = found.get(f"R@{k}") if isinstance(found, Mapping) else None
            if is_number(value):
                yield f"{direction.replace('_', ' ')} R@{k}", float(value)
    for name, value in (("SumR", own.get("SumR")), ("score", line.get("score"))):
        if is_number(value):
            yield name, float(value)


def _is_loss(name: str) -> bool:
    return name.endswith("_loss") or name == "total"


def _part(words: Part, curves: Sequence[Curve], labels: Sequence[str], units: Mapping[str, str]) -> Part | None:
    """The part of some curves, one small plot a name; none without curves.

    Args:
        words: its name, title and text.
        curves: of all runs.
        labels: of all runs, in the order of their colours.
        units: what the y axis says, by what a curve's name contains.
    """
    if not curves:
        return None
    over = EPOCH if words.name == "validation" else STEP
    names = _names(curves)
    rows: list[dict[str, Value]] = [
        {"run": curve.run, "name": curve.name, over: at, "value": value}
        for curve in curves
        for at, value in zip(curve.at, curve.values, strict=True)
    ]
    ends = [
        f"{name.replace('_', ' ')} ends at "
        + " and ".join(f"{curve.values[-1]:.4g} ({curve.run})" for curve in curves if curve.name == name)
        for name in names
    ]
    alt = f"Line plots over the {over}, one for each of {len(names)} numbers: {'; '.join(ends)}."
    return Part(words.name, words.title, words.text, alt, _grid(curves, labels, over, units), rows)


def _names(curves: Sequence[Curve]) -> list[str]:
    """The numbers in the order of their plots, a total last."""
    return sorted(dict.fromkeys(curve.name for curve in curves), key=lambda name: name == "total")


def _grid(curves: Sequence[Curve], labels: Sequence[str], over: str, units: Mapping[str, str]) -> Figure:
    names = _names(curves)
    columns = min(COLUMNS, len(names))
    height = -(-len(names) // columns)
    figure = Figure(figsize=(max(5.0, 3.4 * columns), 2.4 * height + 0.4), layout="constrained")
    every = list(figure.subplots(height, columns, squeeze=False).flat)
    drawn: dict[str, Line2D] = {}
    for axes, name in zip(every, names, strict=False):
        for curve in (curve for curve in curves if curve.name == name):
            own = run_style(labels.index(curve.run))
            (line,) = axes.plot(
                curve.at, curve.values, label=curve.run, markevery=max(1, len(curve.at) // MARKED), markersize=4, **own
            )
            drawn.setdefault(curve.run, line)
            if curve.best is not None and curve.best in curve.at:
                value = curve.values[list(curve.at).index(curve.best)]
                axes.plot(curve.best, value, marker="*", markersize=12, color=own["color"], markeredgecolor="black")
        axes.set_title(name.replace("_", " "), fontsize=10)
        axes.set_xlabel(over)
        axes.set_ylabel(next(unit for part, unit in units.items() if part in name))
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in every[len(names) :]:
        axes.set_visible(False)
    figure.legend(list(drawn.values()), list(drawn), loc="outside upper center", ncols=min(4, len(drawn)))
    return figure
