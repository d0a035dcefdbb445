"""Tables for the terminal, with the paper's figures beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from nrccr.config.choices import TEXT_TO_TEXT
from nrccr.config.schema import Config
from nrccr.data.check import Report
from nrccr.evaluation.compare import NAMES, weighted_metrics
from nrccr.report.papers import SUMR, Figures, paper_figures
from nrccr.report.seeds import in_words

if TYPE_CHECKING:
    from nrccr.evaluation.choice import Choice
    from nrccr.evaluation.compare import Interval, Outcome
    from nrccr.evaluation.normalise import Settings
    from nrccr.report.noise import NoiseRow
    from nrccr.report.strips import Strip
    from nrccr.systems.c2kd.convert import Converted

COLUMNS = ("R@1", "R@5", "R@10", "MedR", "MeanR", "mAP", "SumR")


def test_tables(metrics: dict[str, Any], config: Config) -> list[Table]:
    """What `nrccr test` shows of what `evaluate` found."""
    if "languages" in metrics:
        tables = [multilingual_table(metrics)]
        lengths = {
            f"by length of the query, {name}": own.get("by_length") for name, own in metrics["languages"].items()
        }
    else:
        tables = [text_to_text_table(metrics, config) if "task" in metrics else metrics_table(metrics, config)]
        lengths = {"by length of the query": metrics.get("by_length")}
    return tables + [length_table(bins, title) for title, bins in lengths.items() if bins is not None]


def metrics_table(metrics: dict[str, Any], config: Config) -> Table:
    """Both directions at the headline weight, the published figures if known, then text to items at every weight."""
    sizes = f"{metrics['queries']:,} queries, {metrics['items']:,} items"
    table = Table(title=f"{metrics['collection']} {metrics['split']}: {sizes}")
    table.add_column("")
    for name in COLUMNS:
        table.add_column(name, justify="right")
    paper = paper_figures(config, metrics["collection"]) if metrics["split"] == "test" else {}
    item = "video" if config.visual.kind == "video" else "image"
    for direction, label in (("text_to_visual", f"text to {item}"), ("visual_to_text", f"{item} to text")):
        table.add_row(label, *_cells(metrics[direction] | {"SumR": metrics["SumR"]}))
        if paper:
            cells = (paper.get(SUMR if name == "SumR" else (direction, name), "") for name in COLUMNS)
            table.add_row("  paper, full size", *cells, style="dim")
        if "untuned" in metrics:
            plain = metrics["untuned"]
            table.add_row("  not tuned", *_cells(plain[direction] | {"SumR": plain["SumR"]}))
    table.add_section()
    for entry in metrics["sweep"]:
        label = f"target weight {1 - entry['source_weight']:.1f}"
        table.add_row(label, *_cells(entry["text_to_visual"] | {"SumR": entry["SumR"]}), style="dim")
    normalisation = metrics["normalisation"]
    method = "" if normalisation["method"] == "none" else f", normalised by {normalisation['method']}"
    headline = f"headline: target weight {metrics['target_weight']}, scores {normalisation['scores']}{method}"
    if "tuned" in metrics:
        plain = metrics["untuned"]
        headline += (
            f", chosen on {metrics['tuned']['split']}; not tuned: target weight {plain['target_weight']}, "
            f"scores {plain['normalisation']['scores']}"
        )
    labels = {"text_to_visual": f"text to {item}", "visual_to_text": f"{item} to text"}
    table.caption = f"{headline}\n{_further(metrics, labels)}"
    return table


def _further(metrics: dict[str, Any], labels: dict[str, str]) -> str:
    """What a table of 80 columns has no room for, of each direction."""
    return "; ".join(
        f"{name} " + ", ".join(f"{label} {metrics[direction][name]:.2f}" for direction, label in labels.items())
        for name in ("nDCG@10", "MRR")
    )


def choice_line(choice: Choice, language: str) -> str:
    """What `nrccr test --tune` chose, and what SumR it has on validation, in one line."""
    where = f"chosen on validation{f', queries in {language}' if language else ''}"
    weight = f"target weight {choice.target_weight:g}, SumR {choice.at_weight:.1f}"
    if choice.target_weight != choice.configured:
        weight += f" (at {choice.configured:g}: {choice.before:.1f})"
    if choice.bank is None:
        return f"{where}: {weight}; no bank of training queries, so that no normalisation was tried"
    method = "no normalisation" if choice.settings is None else _method_words(choice.settings)
    return (
        f"{where}: {weight}; {method}, SumR {choice.best:.1f}, of {len(choice.methods)} with a bank of "
        f"{len(choice.bank.query_ids):,} training queries"
    )


def multilingual_table(metrics: dict[str, Any]) -> Table:
    """Text to visual of every language and their mean, then the mean of the other direction and the other tie rule."""
    table = Table(title=f"{metrics['collection']} {metrics['split']}: {metrics['items']:,} items, text to visual")
    names = [*COLUMNS[:-1], "geometric_mean"]
    for name in ("", *names):
        table.add_column({"geometric_mean": "geom."}.get(name, name), justify="right" if name else "left")

    def add(label: str, values: dict[str, float], style: str = "") -> None:
        table.add_row(label, *(f"{values[name]:.2f}" for name in names), style=style)

    untuned = metrics["untuned"]["languages"] if "untuned" in metrics else {}
    for language, entry in metrics["languages"].items():
        add(language, entry["text_to_visual"])
        if language in untuned:
            add("  not tuned", untuned[language]["text_to_visual"])
    table.add_section()
    mean = metrics["mean"]
    add("mean", mean["text_to_visual"])
    if untuned:
        add("  not tuned", metrics["untuned"]["mean"]["text_to_visual"])
    add("backward", mean["visual_to_text"], "dim")
    add("optimistic", mean["optimistic"]["text_to_visual"], "dim")
    lines = ["backward: mean of visual to text; optimistic: mean with equal scores at the first of their places"]
    lines.append(_further(mean, {"text_to_visual": "mean", "visual_to_text": "backward"}))
    if metrics["rank_variance"] is not None:
        over = f"over {metrics['rank_variance_items']:,} items"
        lines.append(f"rank variance across languages {metrics['rank_variance']:.1f}, {over}")
    table.caption = "\n".join(lines)
    return table


def together_table(metrics: Mapping[str, Mapping[str, Any]], together: Mapping[str, Any]) -> Table:
    """Queries in several languages that one model was tested with, folder by folder: each, and their mean."""
    table = Table(title=f"{together['collection']} {together['split']}, all query languages")
    for name in ("", *(f"{short} R@{k}" for short in ("T2V", "V2T") for k in (1, 5, 10)), "SumR"):
        table.add_column(name, justify="right" if name else "left")

    def add(label: str, values: Mapping[str, Any], style: str = "") -> None:
        both = [values[direction][f"R@{k}"] for direction in ("text_to_visual", "visual_to_text") for k in (1, 5, 10)]
        table.add_row(label, *(f"{value:.2f}" for value in (*both, values["SumR"])), style=style)

    for language, own in metrics.items():
        add(language, own)
    table.add_section()
    add("mean", together["mean"])
    if "untuned" in together:
        add("  not tuned", together["untuned"]["mean"])
    if together["rank_variance"] is not None:
        over = f"over {together['rank_variance_queries']:,} queries that all have"
        table.caption = f"rank variance across languages {together['rank_variance']:.1f}, {over}"
    return table


def text_to_text_table(metrics: dict[str, Any], config: Config) -> Table:
    """Queries against their translations, both directions, and the published figure if known."""
    table = Table(title=f"{metrics['collection']} {metrics['split']}, text to text: {metrics['queries']:,} queries")
    table.add_column("")
    for name in COLUMNS[:-1]:
        table.add_column(name, justify="right")
    paper: Figures = {}
    if metrics["split"] == "test":
        paper = paper_figures(config, metrics["collection"], f"test-{TEXT_TO_TEXT}")
    languages = {"target_to_source": "query to its translation", "source_to_target": "translation to its query"}
    for direction, label in languages.items():
        table.add_row(label, *_cells(metrics[direction]))
        cells = [paper.get((direction, name), "") for name in COLUMNS[:-1]]
        if any(cells):
            table.add_row("  paper, full size", *cells, style="dim")
    table.caption = _further(metrics, {"target_to_source": "query", "source_to_target": "translation"})
    return table


def length_table(bins: Sequence[dict[str, Any]], title: str) -> Table:
    """Recalls of queries of like length."""
    table = Table(title=title)
    for name in ("tokens", "queries", "R@1", "R@5", "R@10"):
        table.add_column(name, justify="right")
    for entry in bins:
        first, last = entry["tokens"]
        tokens = f"{first} or more" if last is None else f"{first} to {last}"
        table.add_row(tokens, f"{entry['queries']:,}", *(f"{entry[name]:.2f}" for name in ("R@1", "R@5", "R@10")))
    return table


def counts_table(report: Report, title: str) -> Table:
    """What `nrccr check` counted, one row a split."""
    table = Table(title=title)
    for name in ("split", "items", "captions", "unmatched", "without features", "frames (min / mean / max)"):
        table.add_column(name, justify="left" if name == "split" else "right")
    for row in report.rows:
        frames = "" if row.frames is None else f"{row.frames[0]} / {row.frames[1]:.1f} / {row.frames[2]}"
        counts = (row.items, row.captions, row.unmatched, row.without_features)
        table.add_row(row.split, *(f"{count:,}" for count in counts), frames)
    return table


def converted_table(converted: Converted) -> Table:
    """What `nrccr convert` wrote, one row a split and language."""
    table = Table(title=f"{converted.folder}")
    for name in ("split", "videos", "language", "captions", "missing"):
        table.add_column(name, justify="left" if name in ("split", "language") else "right")
    for split, captions in converted.captions.items():
        table.add_section()
        for row, (language, count) in enumerate(captions.items()):
            missing = converted.missing[split].get(language, 0)
            first = (split, f"{converted.items[split]:,}") if not row else ("", "")
            table.add_row(*first, language, f"{count:,}", f"{missing:,}" if missing else "")
    return table


def noise_table(rows: Sequence[NoiseRow]) -> Table:
    """Models under translation noise, mean and deviation over seeds."""
    table = Table(title="text to video and SumR under translation noise")
    for name in ("translator", "model", "T2V R@1+5+10", "SumR", "seeds"):
        table.add_column(name, justify="left" if name in ("translator", "model") else "right")
    for before, row in zip([None, *rows], rows, strict=False):
        if before is not None and before.translator != row.translator:
            table.add_section()
        table.add_row(row.translator, row.model, in_words(row.recall), in_words(row.sumr), str(len(row.sumr)))
    return table


def qbnorm_table(before: dict[str, dict[str, float]], after: dict[str, dict[str, float]], settings: Settings) -> Table:
    """Metrics of both directions before and after normalisation, rounded to 0.1 as the published script does."""
    table = Table(title=_method_words(settings))
    table.add_column("")
    names = list(before["text_to_visual"])
    for name in names:
        table.add_column({"geometric": "Geom"}.get(name, name), justify="right")
    for direction, label in (("text_to_visual", "text to visual"), ("visual_to_text", "visual to text")):
        for when, metrics in (("before", before), ("after", after)):
            table.add_row(f"{label}, {when}", *(f"{metrics[direction][name]:.1f}" for name in names))
    table.caption = "averaged ties; Geom: geometric mean of R@1, R@5, R@10"
    return table


def comparison_table(found: dict[tuple[str, str], Interval], a: str, b: str) -> Table:
    """Every metric of two runs and their difference, each with its 95 % interval."""
    table = Table(title=f"a = {a}, b = {b}")
    for name in ("", "a", "b", "b - a"):
        table.add_column(name, justify="left" if not name else "right")
    labels = {"text_to_visual": "T2V ", "visual_to_text": "V2T ", "both": ""}
    for (direction, name), entry in found.items():
        clear = entry.bounds[0] > 0 or entry.bounds[1] < 0
        table.add_row(
            labels[direction] + name.replace("_", " "),
            _interval(entry.a, entry.a_bounds),
            _interval(entry.b, entry.b_bounds),
            _interval(entry.difference, entry.bounds, "+.1f") + (" *" if clear else "  "),
        )
    table.caption = "95 % intervals; *: the interval of the difference leaves out 0"
    return table


def _interval(value: float, bounds: tuple[float, float], form: str = ".1f") -> str:
    return f"{value:{form}} {bounds[0]:{form}}..{bounds[1]:{form}}"


def languages_table(runs: Sequence[Outcome], variance: float, queries: int) -> Table:
    """Mean recall of every language's test, and the mean rank variance of the queries they share."""
    table = Table(title="languages")
    for name in ("test", "mean recall", "SumR", "MeanR"):
        table.add_column(name, justify="left" if name == "test" else "right")
    every = []
    for run in runs:
        metrics = dict(zip(NAMES, weighted_metrics(run, np.ones((1, len(run.item_ids))))[0].tolist(), strict=True))
        every.append([metrics["both", "mean_recall"], metrics["both", "SumR"], metrics["text_to_visual", "MeanR"]])
        table.add_row(str(run.folder), *(f"{value:.2f}" for value in every[-1]))
    table.add_section()
    table.add_row("mean", *(f"{value:.2f}" for value in np.mean(every, axis=0)))
    table.caption = f"mean rank variance over languages: {variance:.2f} ({queries:,} queries in all of them)"
    return table


def _method_words(settings: Settings) -> str:
    return ", ".join([settings.method, *(f"{name} {value:g}" for name, value in settings.used().items())])


def ranked_table(ranked: Sequence[tuple[str, Sequence[Strip]]], ranks: Sequence[int] | None, title: str) -> Table:
    """Queries with their best items and scores, a star at the relevant one, and its rank if it is known."""
    table = Table(title=title)
    table.add_column("query", overflow="fold")
    table.add_column("best first")
    if ranks is not None:
        table.add_column("rank of the right one", justify="right")
    for number, (query, strips) in enumerate(ranked):
        best = "\n".join(f"{strip.video} {strip.score:.3f}{' *' if strip.right else ''}" for strip in strips)
        table.add_row(query, best, *([str(ranks[number])] if ranks is not None else []))
    return table


def counts_line(split: str, counts: dict[str, Any]) -> str:
    """What was counted while reading a split, in one line; counts by language as `captions (en 5, de 4)`."""
    parts = []
    for name, value in counts.items():
        if isinstance(value, dict):
            each = ", ".join(f"{language} {count:,}" for language, count in value.items() if count)
            parts += [f"{name} ({each})"] if each else []
        else:
            parts.append(f"{value:,} {name.replace('_', ' ')}")
    return f"{split}: " + ", ".join(parts)


def _cells(values: dict[str, float]) -> list[str]:
    present = [name for name in COLUMNS if name in values]
    return [f"{values[name]:g}" if name == "MedR" else f"{values[name]:.2f}" for name in present]
