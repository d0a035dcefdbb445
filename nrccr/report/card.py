"""What a run is and what it reached: results, captions among captions, languages, configuration, data, time, memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nrccr.config.keys import keys_that_change
from nrccr.config.schema import plain, resolved_switches
from nrccr.config.yaml import flatten
from nrccr.evaluation.compare import METRICS, NAMES, common_ranks, rank_variance, resampled, weighted_metrics
from nrccr.evaluation.directions import Directions
from nrccr.evaluation.encode import Embeddings
from nrccr.evaluation.languages import variance_across
from nrccr.evaluation.ranked import Scored
from nrccr.report.finished import ReportRun, Searched, is_number
from nrccr.report.further import tuned_rows
from nrccr.report.part import Part, Value
from nrccr.report.runs import NAMED

RESAMPLES, SEED = 1000, 0
SHOWN = ("R@1", "R@5", "R@10", "MedR", "mAP")
Row = dict[str, Value]


def parts(runs: Sequence[ReportRun]) -> list[Part]:
    """Results, text to text, languages, configuration and facts; without the tables that no run fills."""
    found = [results(runs), tuned(runs), text_to_text(runs), languages(runs), configuration(runs), facts(runs)]
    return [part for part in found if part.rows]


def results(runs: Sequence[ReportRun]) -> Part:
    """Metrics of the test split, by run, query language and direction, with an interval of SumR."""
    rows: list[Row] = []
    for run in runs:
        for searched in run.searched:
            outcome = searched.outcome
            values = weighted_metrics(outcome, np.ones((1, len(outcome.item_ids))))[0]
            cloud = weighted_metrics(outcome, resampled(len(outcome.item_ids), RESAMPLES, SEED))
            column = NAMES.index(("both", "SumR"))
            low, high = np.percentile(cloud[:, column], [2.5, 97.5])
            for direction, shown in (("text_to_visual", "text to visual"), ("visual_to_text", "visual to text")):
                own = {name: float(values[NAMES.index((direction, name))]) for name in METRICS if name in SHOWN}
                total = {"SumR": float(values[column]), "SumR low": float(low), "SumR high": float(high)}
                rows.append({"run": run.label, "queries in": searched.language, "direction": shown, **own, **total})
    return Part(
        "results",
        "Results",
        "The test split at the run's own weight of languages, without normalisation against hubs; recalls and mAP in "
        f"percent. SumR has the 95 % interval of a bootstrap over items ({RESAMPLES:,} resamples, seed {SEED}).",
        rows=rows,
        shown=True,
    )


def tuned(runs: Sequence[ReportRun]) -> Part:
    """What `nrccr test --tune` chose, and what it brought."""
    return Part(
        "tuned",
        "Tuned on validation",
        "Tests with the weight of the queries and the normalisation against hubs that were best on the validation "
        "split, with a bank of training queries (`nrccr test --tune`), beside the configured weight without "
        "normalisation. SumR of the test split.",
        rows=[row for run in runs for row in tuned_rows(run.folder, run.label)],
        shown=True,
    )


def text_to_text(runs: Sequence[ReportRun]) -> Part:
    """Queries against their own translations, in both directions (the paper's table 5)."""
    rows: list[Row] = []
    for run in runs:
        for searched in run.searched:
            found = among_texts(searched)
            for direction, values in (found or {}).items():
                own = {name: values[name] for name in SHOWN}
                rows.append({"run": run.label, "queries in": searched.language, "direction": direction, **own})
    return Part(
        "text-to-text",
        "Text to text",
        "Queries against their translations: each has one that is right, its own. How near the two languages of a "
        "caption are, whatever the items; in percent.",
        rows=rows,
        shown=True,
    )


@torch.inference_mode()
def among_texts(searched: Searched) -> dict[str, dict[str, float]] | None:
    """Metrics of queries against their translations and the reverse; none where they have no translations."""
    embeddings = searched.encoded.embeddings
    if embeddings.source is None:
        return None
    memory_mb = searched.run.rule.memory_mb
    directions = Directions(Embeddings(None, embeddings.target, embeddings.source), "raw", memory_mb)
    metrics = (
        Scored.of(directions.plain(1.0), np.arange(len(embeddings.target)), memory_mb)
        .ranked(memory_mb=memory_mb)
        .metrics()
    )
    return {
        "query to its translation": metrics["text_to_visual"],
        "translation to its query": metrics["visual_to_text"],
    }


def languages(runs: Sequence[ReportRun]) -> Part:
    """Text to visual by query language, with the variance of ranks across languages."""
    rows: list[Row] = []
    for run in runs:
        if len(run.searched) > 1:
            variance, compared = variance_of(run)
            values = {searched.language: _text_to_visual(searched) for searched in run.searched}
            mean = {name: float(np.mean([own[name] for own in values.values()])) for name in SHOWN}
            for language, own in {**values, "mean": mean}.items():
                total: Row = {"rank variance": variance, "over": compared} if language == "mean" else {}
                empty: Row = {"rank variance": None, "over": None}
                rows.append({"run": run.label, "queries in": language, **own, **(empty | total)})
    return Part(
        "by-language",
        "Results by language",
        "Text to visual by the language of the queries, in percent. The rank variance is the mean, over what all "
        "languages ask for, of the variance of its rank across languages, in squared ranks: 0 where all rank alike.",
        rows=rows,
        shown=True,
    )


def variance_of(run: ReportRun) -> tuple[float | None, int]:
    """The rank variance over a run's query languages, and how many items or queries it is over.

    As a test by language has it (items with one query in every language); where each language was tested for itself as
    `nrccr compare --languages` has it (queries of the same item and number).
    """
    if all(searched.split.by_language for searched in run.searched):
        ranks = {searched.language: searched.ranks() for searched in run.searched}
        return variance_across(ranks, {searched.language: searched.encoded.item_of for searched in run.searched})
    common = common_ranks([searched.outcome for searched in run.searched])
    return rank_variance(common), len(common[0])


def _text_to_visual(searched: Searched) -> dict[str, float]:
    values = weighted_metrics(searched.outcome, np.ones((1, len(searched.outcome.item_ids))))[0]
    return {name: float(values[NAMES.index(("text_to_visual", name))]) for name in SHOWN}


def configuration(runs: Sequence[ReportRun]) -> Part:
    """The keys in which a run differs from the base configuration; what only changes where files lie is left out."""
    free = keys_that_change(type(runs[0].config), "nothing")
    base = flatten(plain(type(runs[0].config)()))
    values = [flatten(plain(run.config)) for run in runs]
    keys = [key for key in base if key not in free and any(own.get(key) != base[key] for own in values)]
    rows = [
        _wide({"key": key, "base": _shown(key, base[key])}, runs, [_shown(key, own.get(key)) for own in values])
        for key in keys
    ]
    switches = [resolved_switches(run.config) for run in runs]
    for name in switches[0]:
        if f"switches.{name}" not in keys and any(own[name] != switches[0][name] for own in switches):
            head: Row = {"key": f"switches.{name}", "base": "by the reading"}
            rows.append(_wide(head, runs, [str(own[name]) for own in switches]))
    return Part(
        "configuration",
        "Configuration",
        "Keys in which a run differs from the base configuration, and switches that readings set differently.",
        rows=rows,
        shown=True,
    )


def facts(runs: Sequence[ReportRun]) -> Part:
    """Data counts, commit, device, versions, time and memory of each run."""
    named: dict[str, Callable[[ReportRun], Value]] = {
        "commit": lambda run: _short(run.record.get("commit")),
        "seed": lambda run: run.config.seed,
        "parameters": lambda run: sum(own.numel() for own in run.retriever.network.parameters()),
        "device": lambda run: _text(run.record.get("device")),
        "threads": lambda run: _text(run.record.get("threads")),
        "steps": lambda run: _text(run.record["finished"].get("step")),
        "best epoch": lambda run: _text(run.record["finished"].get("best_epoch")),
        "training, seconds": training_seconds,
        "peak memory, MB": lambda run: _memory(run, "process"),
        "peak memory of the device, MB": lambda run: _memory(run, "device"),
    }
    rows = [_wide({"fact": fact}, runs, [value(run) for run in runs]) for fact, value in named.items()]
    counted = [_counts(run) for run in runs]
    versions = [run.record.get("versions") for run in runs]
    tables = [
        {f"version of {name}": _text(value) for name, value in own.items()} if isinstance(own, Mapping) else {}
        for own in versions
    ]
    for every in (counted, tables):
        names = dict.fromkeys(name for own in every for name in own)
        rows += [_wide({"fact": name}, runs, [own.get(name) for own in every]) for name in names]
    return Part(
        "facts",
        "Data, time and memory",
        "What run.json and metrics.jsonl record, and the test split's counts. Time is that of all logged training "
        "steps and validations, without reading the data at the start; memory is the peak of the process that finished "
        "the training.",
        rows=rows,
        shown=True,
    )


def training_seconds(run: ReportRun) -> float | None:
    """Seconds of training steps, waiting for their batches included, and of validations; none without a timed line."""
    total, before, timed = 0.0, 0, False
    for line in run.log:
        if line["kind"] == "train":
            each = sum(float(line[name]) for name in ("data_seconds", "step_seconds") if is_number(line.get(name)))
            total += each * (line["step"] - before)
            before, timed = line["step"], True
        elif is_number(line.get("seconds")):
            total += float(line["seconds"])
    return total if timed else None


def _memory(run: ReportRun, name: str) -> Value:
    found = run.record["finished"].get("peak_memory_mb")
    value = found.get(name) if isinstance(found, Mapping) else None
    return value if is_number(value) else None


def _counts(run: ReportRun) -> dict[str, Value]:
    """What was read of each split, counts by language each for itself."""
    data = run.record.get("data")
    every = {**(data if isinstance(data, Mapping) else {}), "test": dict(run.headline.split.counts)}
    flat = flatten(every)
    return {
        f"{name.replace('.', ' ').replace('_', ' ')}, count": value for name, value in flat.items() if is_number(value)
    }


def _wide(head: Row, runs: Sequence[ReportRun], values: Sequence[Value]) -> Row:
    """A row with a column for each run, named after it."""
    names = [f"run {run.label}" if run.label in head else run.label for run in runs]
    return head | dict(zip(names, values, strict=True))


def _shown(key: str, value: Any) -> str:
    """A value of the configuration in words; of folders their name, as where they lie changes nothing."""
    if key in NAMED:
        return Path(str(value)).name
    return "none" if value is None else str(value)


def _short(commit: Any) -> Value:
    """A commit by its first digits, with the mark of changed files."""
    return f"{commit[:12]}{'+' if commit.endswith('+') else ''}" if isinstance(commit, str) else None


def _text(value: Any) -> Value:
    return value if value is None or isinstance(value, str | int | float) else str(value)
