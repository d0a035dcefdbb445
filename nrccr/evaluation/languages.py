"""Queries in several languages against one gallery: metrics of each language, their mean, how far ranks lie apart.

Q queries of a language, N items, D joint-space width, L languages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nrccr.data.sampling import Indices, ordered_batches
from nrccr.evaluation.blocks import Blocks, Cosines, Matrix, Transposed, dense, fits
from nrccr.evaluation.compare import rank_variance
from nrccr.evaluation.encode import encode_batches, encode_videos
from nrccr.evaluation.evaluate import Ranked, require_finite, write_ranks
from nrccr.evaluation.metrics import RECALLS, Ties, ranks_and_precision, recall_sum, summarise
from nrccr.files import write_json
from nrccr.systems.c2kd.data import LanguageQueries, LanguageQuery
from nrccr.systems.c2kd.network import C2KD, unit

MEMORY_MB = 2000.0
DIRECTIONS = ("text_to_visual", "visual_to_text")


@dataclass(frozen=True)
class Asked:
    """A language's queries as vectors.

    Attributes:
        vectors: (Q, D), unit length.
        ids: Q ids; of captions that were averaged the first one's.
        item_of: (Q,) each query's item.
    """

    vectors: Tensor
    ids: list[str]
    item_of: Indices


@torch.inference_mode()
def encode_languages(
    network: C2KD, queries: LanguageQueries, batch_size: int, device: torch.device
) -> tuple[dict[str, Asked], Tensor]:
    """Encode every caption and every item once: queries by language, and the gallery (N, D) of unit length.

    Where the split asks for it the captions of an item become one query: the mean of their vectors before these are
    brought to unit length, as the published evaluation has it.

    Raises:
        UserError: an embedding is not finite.
    """
    visual = encode_videos(network, queries.videos, batch_size, device)
    require_finite(visual, queries.videos.ids)
    asked = {}
    for language, query in queries.queries.items():

        def embed(chosen: Indices, query: LanguageQuery = query) -> Tensor:
            return network.project_text(query.tokens.batch(chosen).to(device)).float()

        batches = ordered_batches(query.tokens.lengths, batch_size, by_length=network.independent)
        vectors = encode_batches(batches, len(query.ids), embed, f"captions in {language}")  # (Q, D)
        require_finite(vectors, query.ids)
        asked[language] = (
            averaged(query, vectors) if queries.averaged else Asked(unit(vectors), query.ids, query.item_of)
        )
    return asked, visual


def averaged(query: LanguageQuery, vectors: Tensor) -> Asked:
    """One query for every item: the mean of its captions' vectors (Q, D), then at unit length."""
    items, first, place = np.unique(query.item_of, return_index=True, return_inverse=True)
    places = torch.from_numpy(place).to(vectors.device)
    sums = vectors.new_zeros(len(items), vectors.shape[1]).index_add_(0, places, vectors)
    counts = torch.bincount(places, minlength=len(items)).unsqueeze(1)  # (items, 1)
    return Asked(unit(sums / counts), [query.ids[row] for row in first.tolist()], items.astype(np.int64))


@dataclass(frozen=True)
class Scored:
    """Scores of a language in both directions; items without a query in it are ranked, but rank none themselves.

    Attributes:
        forward: (Q, N).
        backward: (items with a query, Q).
        item_of: (Q,) each query's item.
        asking: (items with a query,) positions among the items.
    """

    forward: Blocks
    backward: Blocks
    item_of: Indices
    asking: Indices

    def ranked(self, ties: Ties, memory_mb: float = MEMORY_MB) -> Ranked:
        """Best ranks and average precisions of both directions."""
        place = {item: row for row, item in enumerate(self.asking.tolist())}
        captions_of: list[list[int]] = [[] for _ in place]
        for query, item in enumerate(self.item_of.tolist()):
            captions_of[place[item]].append(query)
        return Ranked(
            ranks_and_precision(self.forward, self.item_of, ties, memory_mb),
            ranks_and_precision(self.backward, captions_of, ties, memory_mb),
        )


def score_language(asked: Asked, visual: Tensor, memory_mb: float = MEMORY_MB) -> Scored:
    """Cosines of a language's queries with the gallery (N, D); kept where they fit."""
    asking = np.unique(asked.item_of)
    forward: Blocks = Cosines(asked.vectors, visual)
    if fits(forward.shape, memory_mb):
        whole = dense(forward, memory_mb)  # (Q, N)
        used = torch.from_numpy(asking).to(whole.device)
        return Scored(Matrix(whole), Transposed(Matrix(whole[:, used])), asked.item_of, asking)
    used = torch.from_numpy(asking).to(visual.device)
    return Scored(forward, Transposed(Cosines(asked.vectors, visual[used])), asked.item_of, asking)


def language_metrics(ranked: Ranked) -> dict[str, Any]:
    """Metrics of both directions, with the geometric mean of R@1, R@5 and R@10, and SumR."""
    forward, backward = (
        summary | {"geometric_mean": geometric_mean(summary)}
        for summary in (summarise(*ranked.text_to_visual), summarise(*ranked.visual_to_text))
    )
    return {"text_to_visual": forward, "visual_to_text": backward, "SumR": recall_sum(forward, backward)}


def geometric_mean(summary: Mapping[str, float]) -> float:
    """(R@1 R@5 R@10)^(1/3), in percent: what the published code selects by."""
    return float(np.prod([summary[f"R@{k}"] for k in RECALLS]) ** (1 / len(RECALLS)))


def mean_metrics(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The mean over languages of every metric, ranks and geometric means included."""
    return {
        direction: {
            name: float(np.mean([own[direction][name] for own in metrics.values()]))
            for name in next(iter(metrics.values()))[direction]
        }
        for direction in DIRECTIONS
    } | {"SumR": float(np.mean([own["SumR"] for own in metrics.values()]))}


def variance_across(
    ranked: Mapping[str, npt.NDArray[np.float64]], item_of: Mapping[str, Indices]
) -> tuple[float | None, int]:
    """How far the ranks of one item's queries lie apart over the languages.

    For every item with exactly one query in every language: the variance (1 / L) sum_l (r_l - mean r)^2 of the ranks
    r_l that its queries give it, in squared places; averaged over these items. 0 where every language finds the same.

    Args:
        ranked: by language (Q,), the rank of each query's item, text to visual.
        item_of: by language (Q,), each query's item.

    Returns:
        The mean variance, none where there is one language only or no item has one query in every language; and how
        many have.
    """
    if len(item_of) < 2:
        return None, 0
    common: set[int] | None = None
    tables = {}
    for language, items in item_of.items():
        values, first, counts = np.unique(items, return_index=True, return_counts=True)
        alone = counts == 1
        tables[language] = dict(zip(values[alone].tolist(), ranked[language][first[alone]].tolist(), strict=True))
        common = set(tables[language]) if common is None else common & set(tables[language])
    chosen = sorted(common or ())
    if not chosen:
        return None, 0
    return rank_variance([np.array([table[item] for item in chosen]) for table in tables.values()]), len(chosen)


@torch.inference_mode()
def validate_by_language(
    network: C2KD, queries: LanguageQueries, *, batch_size: int, device: torch.device, memory_mb: float = MEMORY_MB
) -> tuple[float, dict[str, Any]]:
    """Validation: the mean over languages of R@1 + R@5 + R@10, text to visual; and the metrics behind it.

    Raises:
        UserError: an embedding is not finite.
    """
    asked, visual = encode_languages(network, queries, batch_size, device)
    metrics = {
        language: language_metrics(score_language(own, visual, memory_mb).ranked("index", memory_mb))
        for language, own in asked.items()
    }
    mean = mean_metrics(metrics)
    return recall_sum(mean["text_to_visual"]), {"mean": mean, "languages": metrics}


def _forget(folder: Path) -> None:
    """Delete what an earlier test wrote, which may have been in more languages; nothing else that lies there."""
    metrics = folder / "metrics.json"
    try:
        languages = [name for name in json.loads(metrics.read_text(encoding="utf-8"))["languages"] if name.isalpha()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        languages = []
    for language in languages:
        for name in ("ranks.tsv", "ranks_visual.tsv"):
            (folder / language / name).unlink(missing_ok=True)
    metrics.unlink(missing_ok=True)


@torch.inference_mode()
def evaluate_languages(
    network: C2KD,
    queries: LanguageQueries,
    *,
    batch_size: int,
    device: torch.device,
    header: Mapping[str, Any],
    folder: Path,
    memory_mb: float = MEMORY_MB,
) -> dict[str, Any]:
    """Test a network in every language: metrics by both tie rules, and the files of a test folder.

    Args:
        network: the model.
        queries: the split.
        batch_size: captions or items encoded together.
        device: where the network is.
        header: first entries of `metrics.json`.
        folder: gets `<language>/ranks.tsv` and `ranks_visual.tsv`, and last `metrics.json`.
        memory_mb: what a block of scores may take.

    Returns:
        What `metrics.json` holds: of each language and of their mean the metrics with ties by index, as everywhere in
        this package, and under `optimistic` with the first of the tied places, as the published evaluation has it.

    Raises:
        UserError: an embedding is not finite.
    """
    asked, visual = encode_languages(network, queries, batch_size, device)
    items = queries.videos.ids
    _forget(folder)
    exact, optimistic, places = {}, {}, {}
    for language, own in asked.items():
        scored = score_language(own, visual, memory_mb)
        ranked = scored.ranked("index", memory_mb)
        exact[language], places[language] = language_metrics(ranked), ranked.text_to_visual[0]
        optimistic[language] = language_metrics(scored.ranked("optimistic", memory_mb))
        asking = [items[item] for item in scored.asking.tolist()]
        (folder / language).mkdir(parents=True, exist_ok=True)
        write_ranks(folder / language, ranked, (scored.forward, scored.backward), own.ids, items, asking, memory_mb)
    variance, compared = variance_across(places, {language: own.item_of for language, own in asked.items()})
    metrics = {
        **header,
        "items": len(items),
        "batch_size": batch_size,
        "captions_averaged": queries.averaged,
        "languages": {
            language: {"queries": len(asked[language].ids), **found, "optimistic": optimistic[language]}
            for language, found in exact.items()
        },
        "mean": {**mean_metrics(exact), "optimistic": mean_metrics(optimistic)},
        "rank_variance": variance,
        "rank_variance_items": compared,
    }
    write_json(folder / "metrics.json", metrics)
    return metrics
