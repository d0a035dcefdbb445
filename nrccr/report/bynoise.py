"""Scores against translation noise (the paper's figure 4), of runs that differ in their translator."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nrccr.config.keys import keys_that_change
from nrccr.config.schema import plain
from nrccr.config.yaml import flatten
from nrccr.data.generated.collection import rate_of
from nrccr.evaluation.compare import NAMES, Outcome, resampled, weighted_metrics
from nrccr.evaluation.metrics import RECALLS
from nrccr.report.finished import ReportRun
from nrccr.report.noise import NoiseRow, draw
from nrccr.report.part import Part, Value
from nrccr.report.runs import NAMED
from nrccr.report.seeds import mean_and_deviation

RESAMPLES, SEED = 1000, 0
SUMR = NAMES.index(("both", "SumR"))
RECALL = [NAMES.index(("text_to_visual", f"R@{k}")) for k in RECALLS]


def parts(runs: Sequence[ReportRun]) -> list[Part]:
    """SumR over noise; nothing where no model was trained with two translators."""
    models = by_model(runs)
    models = {model: own for model, own in models.items() if len({run.config.data.translator for run in own}) > 1}
    if not models:
        return []
    translators = sorted({run.config.data.translator for own in models.values() for run in own}, key=_by_rate)
    rows, intervals = [], {}
    for model, own in models.items():
        for translator in translators:
            chosen = [run for run in own if run.config.data.translator == translator]
            if chosen:
                outcomes = [run.headline.outcome for run in chosen]
                rows.append(_row(model, translator, outcomes))
                intervals[model, translator] = interval_of(outcomes)
    table: list[dict[str, Value]] = []
    for row in rows:
        low, high = intervals[row.model, row.translator]
        table.append(
            {
                "model": row.model,
                "translator": row.translator,
                "wrong words, %": rate_of(row.translator),
                "seeds": len(row.sumr),
                "R@1+5+10": mean_and_deviation(row.recall)[0],
                "SumR": mean_and_deviation(row.sumr)[0],
                "SumR low": low,
                "SumR high": high,
            }
        )
    said = "; ".join(f"{row['model']} {row['SumR']:.1f} with {row['translator']}" for row in table)
    return [
        Part(
            "noise",
            "Score against translation noise",
            "SumR of the test split, of models that were trained with several translators. Bars are 95 % intervals of "
            f"a bootstrap over items ({RESAMPLES:,} resamples, seed {SEED}); of several seeds the means.",
            f"Lines of SumR over the noise of the training captions: {said}.",
            draw(rows, intervals),
            table,
            shown=True,
        )
    ]


def by_model(runs: Sequence[ReportRun]) -> dict[str, list[ReportRun]]:
    """The runs that differ in nothing but translator and seed together, by the name of the first without these."""
    groups: dict[str, list[ReportRun]] = {}
    for run in runs:
        free = {"seed", "data.translator"} | keys_that_change(type(run.config), "digits", "nothing")
        values = {key: value for key, value in flatten(plain(run.config)).items() if key not in free}
        values |= {key: Path(str(values[key])).name for key in NAMED if key in values}
        groups.setdefault(json.dumps(values, sort_keys=True, default=str), []).append(run)
    named: dict[str, list[ReportRun]] = {}
    for own in groups.values():
        name = _name(own[0])
        named[name if name not in named else own[0].label] = own
    return named


def interval_of(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """The 95 % interval of the mean SumR of several seeds' runs, by a bootstrap over the items of each."""
    clouds = [
        weighted_metrics(outcome, resampled(len(outcome.item_ids), RESAMPLES, SEED))[:, SUMR] for outcome in outcomes
    ]
    low, high = np.percentile(np.mean(clouds, axis=0), [2.5, 97.5])
    return float(low), float(high)


def _row(model: str, translator: str, outcomes: Sequence[Outcome]) -> NoiseRow:
    found = [weighted_metrics(outcome, np.ones((1, len(outcome.item_ids))))[0] for outcome in outcomes]
    return NoiseRow(model, translator, [float(own[RECALL].sum()) for own in found], [float(own[SUMR]) for own in found])


def _by_rate(translator: str) -> tuple[bool, int, str]:
    rate = rate_of(translator)
    return rate is None, rate or 0, translator


def _name(run: ReportRun) -> str:
    """The label without seed and translator, as `nrccr noise` names its runs."""
    short = re.sub(r"-s\d+$", "", run.label).replace(f"-{run.config.data.translator}", "")
    return short or run.label
