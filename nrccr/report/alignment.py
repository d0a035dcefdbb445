"""Items with their captions in the joint space (the paper's figure 6): a picture of a few, and a number for all.

P points (captions and items), D joint-space width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke

from nrccr.data.batch import ENGLISH
from nrccr.evaluation.compactness import compactness
from nrccr.report.charts import COLOURS, MARKERS
from nrccr.report.finished import ReportRun, Searched
from nrccr.report.part import Part, Value

ITEMS, SEED = 12, 0  # in the picture
PERPLEXITY = 30.0  # t-SNE's usual one; fewer where there are few points
COLUMNS = 2  # of small plots
CAPTION, TRANSLATION, ITEM = "caption", "translation", "item"
# Which points a compactness is computed over.
OVER: Mapping[str, tuple[str, ...]] = {
    "captions, translations and item": (CAPTION, TRANSLATION, ITEM),
    "captions and translations": (CAPTION, TRANSLATION),
    "captions and item": (CAPTION, ITEM),
}
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Space:
    """The test split of a run in its joint space.

    Attributes:
        label: the run's.
        vectors: (P, D) of unit length.
        items: (P,) the id of each point's item.
        kinds: (P,) CAPTION, TRANSLATION or ITEM.
        ids: (P,) of captions, and of items.
    """

    label: str
    vectors: Floats
    items: list[str]
    kinds: list[str]
    ids: list[str]

    def only(self, kinds: Sequence[str], items: Sequence[str] | None = None) -> Space:
        """The points of these kinds, and of these items."""
        kept = [
            at for at, kind in enumerate(self.kinds) if kind in kinds and (items is None or self.items[at] in items)
        ]
        lists = ([values[at] for at in kept] for values in (self.items, self.kinds, self.ids))
        return Space(self.label, self.vectors[kept], *lists)


def parts(runs: Sequence[ReportRun]) -> list[Part]:
    """For each test split of the runs a picture of some items, the same for all runs, and the compactness of all.

    Raises:
        UserError: no such collection, damaged data, or an embedding that is not finite.
    """
    groups: dict[tuple[str, str], list[Space]] = {}
    for run in runs:
        searched = headline(run)
        groups.setdefault((searched.split.collection, searched.language), []).append(space_of(searched))
    made: list[Part] = []
    for number, ((collection, language), spaces) in enumerate(groups.items(), start=1):
        ending = "" if number == 1 else f"-{number}"
        what = f"{collection}, {language}"
        shown = _picture_part(f"alignment{ending}", what, spaces)
        made += [*([shown] if shown else []), _compactness_part(f"compactness{ending}", what, spaces)]
    return made


def headline(run: ReportRun) -> Searched:
    """The queries of the configured target language where there are several, of the first one that is not English."""
    others = [searched for searched in run.searched if searched.language != ENGLISH]
    if not run.headline.split.by_language or not others:
        return run.headline
    return next((own for own in others if own.language == run.config.data.target), others[0])


def space_of(searched: Searched) -> Space:
    """The queries, their translations, and the gallery; of queries by language what people wrote in English."""
    encoded, gallery = searched.encoded, searched.item_ids
    found = [(CAPTION, encoded.embeddings.target, encoded.item_of, encoded.ids)]
    if encoded.embeddings.source is not None:
        found.append((TRANSLATION, encoded.embeddings.source, encoded.item_of, encoded.ids))
    elif searched.split.by_language and searched.language != ENGLISH:
        for other in searched.run.searched:
            if other.language == ENGLISH and other.split is searched.split:
                english = other.encoded
                found.append((TRANSLATION, english.embeddings.target, english.item_of, english.ids))
    found.append((ITEM, encoded.embeddings.visual, np.arange(len(gallery)), gallery))
    return Space(
        searched.run.label,
        np.concatenate([vectors.double().cpu().numpy() for _, vectors, _, _ in found]),
        [gallery[at] for _, _, item_of, _ in found for at in item_of.tolist()],
        [kind for kind, _, _, ids in found for _ in ids],
        [own for _, _, _, ids in found for own in ids],
    )


def project(space: Space) -> Floats:
    """t-SNE of a few points, (P, 2), the same every time.

    Raises:
        ValueError: fewer than four points.
    """
    from sklearn.manifold import TSNE

    if len(space.ids) < 4:
        raise ValueError("t-SNE needs four points")
    placed: Floats = TSNE(perplexity=_perplexity(space), init="pca", random_state=SEED).fit_transform(space.vectors)
    return placed


def _perplexity(space: Space) -> float:
    return min(PERPLEXITY, (len(space.ids) - 1) / 3)


def sample_items(spaces: Sequence[Space]) -> list[str]:
    """Items that all runs have, with a caption in all of them, drawn without repetition, in the first run's order."""
    described = [{item for item, kind in zip(own.items, own.kinds, strict=True) if kind == CAPTION} for own in spaces]
    common = set.intersection(*described)
    every = [item for item in dict.fromkeys(spaces[0].items) if item in common]
    drawn = np.random.default_rng(SEED).choice(len(every), min(ITEMS, len(every)), replace=False)
    return [every[at] for at in sorted(drawn.tolist())]


def _picture_part(name: str, what: str, spaces: Sequence[Space]) -> Part | None:
    items = sample_items(spaces)
    chosen = [space.only((CAPTION, TRANSLATION, ITEM), items) for space in spaces]
    if any(len(own.ids) < 4 for own in chosen):
        return None
    placed = [project(own) for own in chosen]
    rows: list[dict[str, Value]] = [
        {"run": own.label, "number": items.index(item) + 1, "item": item, "kind": kind, "id": each,
         "x": float(x), "y": float(y)}
        for own, places in zip(chosen, placed, strict=True)
        for item, kind, each, (x, y) in zip(own.items, own.kinds, own.ids, places.tolist(), strict=True)
    ]  # fmt: skip
    ratios = [f"{own.label} {_ratio(own, OVER[next(iter(OVER))]):.3f}" for own in spaces]
    text = (
        f"t-SNE (scikit-learn, seed {SEED}, perplexity {_perplexity(chosen[0]):.3g}) of {len(items)} test items of "
        f"{what}, drawn with seed {SEED}, with their captions and the captions' translations: the same items in every "
        "plot, each run in its own space. Filled marks are captions, hollow ones translations, the large one with the "
        "item's number is the item itself; an item keeps its colour and shape. Distances between far groups mean "
        "nothing in such a picture; the compactness is computed in the space itself, over all test items."
    )
    alt = (
        f"Scatter plots, one a run, of the points of {len(items)} items in two t-SNE dimensions without unit. "
        f"Compactness (within items over between items, lower is more compact): {', '.join(ratios)}."
    )
    return Part(name, f"Captions and items in one space: {what}", text, alt, _draw(chosen, placed, items, spaces), rows)


def _compactness_part(name: str, what: str, spaces: Sequence[Space]) -> Part:
    rows: list[dict[str, Value]] = []
    for points, kinds in OVER.items():
        for space in spaces:
            own = space.only(kinds)
            if set(own.kinds) == set(kinds):
                found = compactness(own.vectors, own.items)
                rows.append(
                    {"points": points, "run": space.label, "number of points": found.points, "items": found.items,
                     "within": found.within, "between": found.between, "within / between": found.ratio}
                )  # fmt: skip
    text = (
        f"Mean cosine distance of two points of the same test item (within) and of two of different items (between), "
        f"over all items of {what}, in the embedding space. Their ratio is 0 where all points of an item are one, and "
        "1 where items mean nothing; lower is more compact."
    )
    return Part(name, f"Compactness of items: {what}", text, rows=rows, shown=True)


def _ratio(space: Space, kinds: Sequence[str]) -> float:
    own = space.only(kinds)
    return compactness(own.vectors, own.items).ratio


def _draw(chosen: Sequence[Space], placed: Sequence[Floats], items: Sequence[str], whole: Sequence[Space]) -> Figure:
    columns = min(COLUMNS, len(chosen))
    height = -(-len(chosen) // columns)
    figure = Figure(figsize=(5.2 * columns, 4.9 * height + 0.5), layout="constrained")
    every = figure.subplots(height, columns, squeeze=False).flat
    for axes, own, places, space in zip(every, chosen, placed, whole, strict=False):
        _scatter(axes, own, places, items)
        ratio = _ratio(space, OVER[next(iter(OVER))])
        axes.set_title(f"{own.label}\ncompactness of all items {ratio:.3f}", fontsize=10)
        axes.set_xlabel("t-SNE 1 (no unit)")
        axes.set_ylabel("t-SNE 2 (no unit)")
    for axes in list(every)[len(chosen) :]:
        axes.set_visible(False)
    looks = {CAPTION: ("#555555", 6.0), TRANSLATION: ("white", 6.0), ITEM: ("#cccccc", 12.0)}
    there = [kind for kind in looks if any(kind in own.kinds for own in chosen)]
    handles = [
        Line2D([], [], linestyle="", marker="o", color="#555555", markerfacecolor=looks[kind][0],
               markersize=looks[kind][1], label=kind if kind != ITEM else "item, with its number")
        for kind in there
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def _scatter(axes: Axes, own: Space, places: Floats, items: Sequence[str]) -> None:
    for number, item in enumerate(items):
        # The eighth item begins the colours again, with other shapes.
        colour = COLOURS[number % len(COLOURS)]
        marker = MARKERS[(number + number // len(COLOURS) * 3) % len(MARKERS)]
        for kind in (CAPTION, TRANSLATION, ITEM):
            at = [i for i, each in enumerate(own.items) if each == item and own.kinds[i] == kind]
            if not at:
                continue
            x, y = places[at].T
            style = {CAPTION: (colour, colour, 34), TRANSLATION: ("white", colour, 34), ITEM: (colour, "black", 150)}
            face, edge, size = style[kind]
            axes.scatter(x, y, s=size, marker=marker, facecolors=face, edgecolors=edge, linewidths=1.3, zorder=2)
            if kind == ITEM:
                # Each number in a direction of its own: items that lie together keep all of theirs legible.
                angle = 2 * math.pi * (0.125 + 5 * number / ITEMS)
                beside = 14 * math.cos(angle), 14 * math.sin(angle)  # points
                for each_x, each_y in zip(x, y, strict=True):
                    axes.annotate(
                        str(number + 1), (each_x, each_y), beside, textcoords="offset points", zorder=3,
                        ha="center", va="center", fontsize=10, fontweight="bold",
                        path_effects=[Stroke(linewidth=2.5, foreground="white"), Normal()],
                    )  # fmt: skip
