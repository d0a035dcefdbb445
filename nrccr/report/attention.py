"""The teacher's attention between words (the paper's figure 3), and its trust in right and in wrong words.

V source words, W target words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from nrccr.errors import printable
from nrccr.evaluation.detection import separation
from nrccr.report.charts import COLOURS
from nrccr.report.finished import ReportRun
from nrccr.report.looks import (
    PAIRS,
    SAMPLE,
    SEED,
    Floats,
    Look,
    choose_worst,
    count_trust,
    find_pairs,
    has_teacher,
    look,
)
from nrccr.report.part import Part, Value
from nrccr.report.translations import read_translations

LONGEST_WORD, LONGEST_ID = 24, 60  # characters in a figure
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
# Of target words: how they are marked, colour and hatching of their bar, and what they are.
MARKS = {
    "wrong": ("× ", COLOURS[1], "////", "wrong"),
    "moved": ("↔ ", COLOURS[2], "....", "right, but moved"),
    "right": ("", COLOURS[0], "", "right"),
    None: ("", "#777777", "", "not known, or punctuation"),
}
MEASURES = {"trust": "1: an even share of the attention", "similarity": "mean cosine"}
KINDS = {
    "right": "right and in their place",
    "moved": "right, but moved",
    "wrong": "wrong",
    "lost": "what should stand there, in the clean sentence",
}


def parts(runs: Sequence[ReportRun], pairs: Sequence[str] = ()) -> list[Part]:
    """Maps of each run that has a teacher, the same pairs for all, and the trust in right and in wrong words.

    Args:
        runs: the report's.
        pairs: ids of captions to show, as the source's caption file has them; by default the worst translations.

    Raises:
        UserError: an id that the training split does not have, or damaged data.
    """
    taught = [run for run in runs if has_teacher(run.retriever)]
    others = ", ".join(run.label for run in runs if run not in taught)
    if not taught:
        text = "None of these runs has a teacher that attends to translations, as NRCCR's distillation losses train it."
        return [Part("attention", "What the teacher looks at", text)]
    made: list[Part] = []
    counted: dict[str, dict[str, Floats]] = {}
    chosen: dict[str, tuple[list[str], str]] = {}  # by collection: the pairs are the same for all its runs
    for number, run in enumerate(taught, start=1):
        translations = read_translations(run.retriever, run.root)
        assert translations is not None  # whoever has a teacher was trained on translations
        sample = translations.sample(SAMPLE, SEED)
        if pairs:
            ids, rule = list(pairs)[:PAIRS], f"They were chosen by their ids, the first {PAIRS} of them."
        else:
            key = f"{translations.split.collection} {translations.language}"
            if key not in chosen:
                chosen[key] = choose_worst(run.retriever, translations, sample)
            ids, rule = chosen[key]
        looks = list(look(run.retriever, translations, find_pairs(translations, ids)))
        without = f" Without such a teacher: {others}." if others and number == 1 else ""
        made.append(_map_part(number, run.label, looks, rule + without))
        trusted = count_trust(run.retriever, translations, sample)
        if "right" in trusted and "wrong" in trusted:
            counted[run.label] = trusted
    return [*made, *([_trust_part(counted)] if counted else [])]


def _map_part(number: int, label: str, looks: Sequence[Look], rule: str) -> Part:
    known = any(fate is not None for each in looks for fate in each.fates)
    special = float(np.mean([each.special for each in looks])) if looks else 0.0
    marks = " A wrong word is marked × and hatched, one that is right but moved ↔ and dotted." if known else ""
    text = (
        f"How each source word (rows) of training captions attends to the words of their translation (columns) in the "
        f"teacher of {label}, mean over heads. Weights are summed over the pieces of a target word and averaged over "
        f"those of a source word; special tokens and padding, {special:.0%} of the attention, are left out, so that "
        "each row sums to 1. The bars above are the teacher's trust in each target word: the attention that it gets "
        "from the source words on average, divided by its share of the translation's pieces; 1 is an even share."
        f"{marks} {rule}"
    )
    least = [_extreme(each, np.argmin, "least") + " and " + _extreme(each, np.argmax, "most") for each in looks]
    alt = (
        f"{len(looks)} heat maps of attention from source words (vertical axis) to target words (horizontal axis), "
        f"with bars of trust. {'; '.join(least)}."
    )
    rows: list[dict[str, Value]] = [
        {
            "pair": each.id,
            "row": row,
            "source word": source,
            "column": column,
            "target word": target,
            "attention": float(each.attention[row, column]),
            "trust": float(each.trust[column]),
            "known": "" if each.fates[column] is None else str(each.fates[column]),
        }
        for each in looks
        for row, source in enumerate(each.source.texts)
        for column, target in enumerate(each.target.texts)
    ]
    name = "attention" if number == 1 else f"attention-{number}"
    title = f"What the teacher looks at: {label}"
    return Part(name, title, text, alt, draw_maps(looks) if looks else None, rows)


def _extreme(each: Look, choose: Any, how: str) -> str:
    at = int(choose(each.trust))
    return f"{each.id} trusts {each.target.texts[at]} {how} ({each.trust[at]:.2f})"


def draw_maps(looks: Sequence[Look]) -> Figure:
    """Small multiples, two in a row: a map for each pair, bars of trust above it."""
    columns = min(2, len(looks))
    height = -(-len(looks) // columns)
    figure = Figure(figsize=(5.4 * columns, 4.1 * height + 0.6), layout="constrained")
    known = any(fate is not None for each in looks for fate in each.fates)
    top = max(float(each.attention.max()) for each in looks)
    highest = max(float(each.trust.max()) for each in looks)
    cells = figure.subfigures(height, columns, squeeze=False).flat
    image = None
    for cell, each in zip(cells, looks, strict=False):
        bars, axes = cell.subplots(2, 1, sharex=True, height_ratios=(1, 3))
        _draw_bars(bars, each, highest)
        image = axes.imshow(each.attention, aspect="auto", cmap="cividis", vmin=0, vmax=top)
        _label(axes, each)
        cell.suptitle(_short(each.id, LONGEST_ID), fontsize=9)
        cell.colorbar(image, ax=axes, label="attention", fraction=0.05, pad=0.02)
    if known:
        there = {fate for each in looks for fate in each.fates}
        fills = [
            Patch(facecolor=fill, hatch=hatch, edgecolor="white", label=f"{mark}{name}")
            for fate, (mark, fill, hatch, name) in MARKS.items()
            if fate in there
        ]
        figure.legend(handles=fills, loc="outside upper center", ncols=len(fills), title="target words")
    return figure


def _draw_bars(axes: Axes, each: Look, highest: float) -> None:
    for at, (value, fate) in enumerate(zip(each.trust, each.fates, strict=True)):
        _, fill, hatch, _ = MARKS[fate]
        axes.bar(at, value, color=fill, hatch=hatch, edgecolor="white", linewidth=0)
    axes.axhline(1, color="black", linewidth=0.8, linestyle="--")
    axes.set_ylim(0, 1.05 * highest)
    axes.set_ylabel("trust\n(1: even)", fontsize=8)
    axes.tick_params(labelsize=8, bottom=False)


def _short(word: str, longest: int = LONGEST_WORD) -> str:
    """A word or an id as the figure shows it."""
    shown = printable(word)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def _label(axes: Axes, each: Look) -> None:
    # Narrow words stand upright, as Chinese characters are read, with their mark below.
    narrow = [len(word) <= (2 if word.isascii() else 1) for word in each.target.texts]
    names = [
        f"{_short(word)}\n{MARKS[fate][0].strip()}" if upright else MARKS[fate][0] + _short(word)
        for word, fate, upright in zip(each.target.texts, each.fates, narrow, strict=True)
    ]
    axes.set_xticks(range(len(names)), names, fontsize=9)
    for tick, fate, upright in zip(axes.get_xticklabels(), each.fates, narrow, strict=True):
        tick.set_rotation(0 if upright else 90)
        if fate == "wrong":
            tick.set_color("#A34700")  # the bars' colour, dark enough for text
            tick.set_fontweight("bold")
    axes.set_yticks(range(len(each.source.texts)), [_short(word) for word in each.source.texts], fontsize=9)
    axes.set_xlabel("word of the translation", fontsize=8)
    axes.set_ylabel("source word", fontsize=8)


def _trust_part(counted: Mapping[str, Mapping[str, Floats]]) -> Part:
    """Whether the teacher trusts wrong words less; by measure, run and kind of word."""
    rows: list[dict[str, Value]] = []
    found: list[str] = []
    for at, measure in enumerate(MEASURES):
        for label, kinds in counted.items():
            wrong, right = kinds["wrong"][at], kinds["right"][at]
            found.append(
                f"{measure}, {label}: wrong words {wrong.mean():.2f} on average, right ones {right.mean():.2f}, a "
                f"right one has more with a chance of {separation(right, wrong):.2f}"
            )
            for kind, both in kinds.items():
                values = both[at]
                spread = dict(
                    zip((f"{q:.0%}" for q in QUANTILES), np.quantile(values, QUANTILES).tolist(), strict=True)
                )
                rows.append(
                    {"measure": measure, "run": label, "target words": KINDS[kind], "count": len(values),
                     "mean": float(values.mean()), **spread,
                     "chance to have more than a wrong one": None if kind == "wrong" else separation(values, wrong)}
                )  # fmt: skip
    text = (
        f"All target words of up to {SAMPLE:,} training translations (drawn with seed {SEED}) whose clean sentence is "
        "known, by what became of the word; punctuation is left out. Trust is as above, 1 is an even share of the "
        "attention; similarity is the mean cosine of a word's state with those of the source words, before attention. "
        "Boxes hold the middle half, whiskers 80 %, a line is the median, a triangle the mean. The last column is the "
        "chance that such a word has more than a wrong one (area under the ROC curve): above 0.5 wrong words have "
        "less. Wrong words are mostly words of content, which are attended to more than others; so the last line of a "
        "run gives the words that should stand there, where the teacher is shown the clean sentence."
    )
    alt = f"Box plots of trust and of similarity by run and kind of word. {'; '.join(found)}."
    return Part("trust", "Trust in right and in wrong words", text, alt, _draw_trust(rows), rows, shown=True)


def _draw_trust(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Boxes of both measures side by side, a line for each run and kind of word."""
    names = [f"{q:.0%}" for q in QUANTILES]
    lines = len(rows) // len(MEASURES)
    figure = Figure(figsize=(10.5, 0.42 * lines + 1.2), layout="constrained")
    every = figure.subplots(1, len(MEASURES), sharey=True)
    for axes, (measure, unit) in zip(every, MEASURES.items(), strict=True):
        own = [row for row in rows if row["measure"] == measure][::-1]
        stats = [dict(zip(("whislo", "q1", "med", "q3", "whishi"), (row[name] for name in names), strict=True),
                      mean=row["mean"], label=f"{row['run']}: {row['target words']}") for row in own]  # fmt: skip
        first = axes is every[0]  # names the lines of both
        drawn = axes.bxp(
            stats, orientation="horizontal", showfliers=False, showmeans=True, patch_artist=True, manage_ticks=first
        )
        for line in drawn["medians"]:
            line.set(color="black", linewidth=2)
        for mark in drawn["means"]:
            mark.set(markerfacecolor="black", markeredgecolor="black")
        for box, row in zip(drawn["boxes"], own, strict=True):
            is_wrong = row["target words"] == KINDS["wrong"]
            box.set(facecolor="#F5C9A8" if is_wrong else "#BBD7EA", hatch="//" if is_wrong else "")
        axes.set_xlabel(f"{measure} ({unit})")
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=9)
    every[0].axvline(1, color="black", linewidth=0.8, linestyle="--")
    every[0].set_ylabel("run: target words")
    return figure
