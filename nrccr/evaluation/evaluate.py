"""Encode, score, rank a split, and write what came out.

Q queries, N items, D joint-space width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nrccr.config.choices import ScoreKind
from nrccr.errors import UserError
from nrccr.evaluation.blocks import Blocks, Matrix, Transposed, dense, fits, highest_columns
from nrccr.evaluation.directions import Bank, Directions, Embeddings, Normalisation
from nrccr.evaluation.encode import Network, encode_texts, encode_videos
from nrccr.evaluation.metrics import ranks_and_precision, recall_sum, recalls_by_length, summarise
from nrccr.evaluation.normalise import Settings
from nrccr.evaluation.score import mix, prepare, similarity
from nrccr.files import atomic_path, write_json, write_text
from nrccr.systems.mlcmr.data import Gallery
from nrccr.systems.nrccr.data import Queries

SWEEP = (1.0, 0.8, 0.5, 0.2, 0.0)  # weights of the source side, as the published test prints them
TOP = 10


def encode(network: Network, queries: Queries, batch_size: int, device: torch.device) -> Embeddings:
    """Encode each item and each caption of a split once."""
    return Embeddings(
        source=encode_texts(network, queries.source, batch_size, device),
        target=encode_texts(network, queries.target, batch_size, device),
        visual=encode_videos(network, queries.videos, batch_size, device),
    )


@torch.inference_mode()
def score(embeddings: Embeddings, kind: ScoreKind) -> tuple[Tensor, Tensor]:
    """The prepared score matrices (Q, N) of the translations and of the queries themselves."""
    source = prepare(similarity(embeddings.source, embeddings.visual), kind)
    target = prepare(similarity(embeddings.target, embeddings.visual), kind)
    return source, target


def both_directions(scores: Tensor, item_of: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Metrics of a score matrix (Q, N), text to visual, visual to text, and SumR; `item_of` (Q,) the relevant items.

    Items without a query are ranked, but rank none themselves.
    """
    matrix = Matrix(scores)
    used, place = np.unique(item_of, return_inverse=True)
    if len(used) == scores.shape[1]:
        return rank(matrix, Transposed(matrix), item_of).metrics()
    asking = Matrix(scores[:, torch.from_numpy(used).to(scores.device)])  # (Q, items with a query)
    backward = rank(asking, Transposed(asking), place).visual_to_text
    return Ranked(ranks_and_precision(matrix, item_of), backward).metrics()


@dataclass(frozen=True)
class Ranked:
    """Best ranks and average precisions of queries, both (Q,), and of items, both (N,)."""

    text_to_visual: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
    visual_to_text: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]

    def metrics(self) -> dict[str, Any]:
        """Metrics of both directions, SumR and mean recall."""
        forward, backward = summarise(*self.text_to_visual), summarise(*self.visual_to_text)
        total = recall_sum(forward, backward)
        return {"text_to_visual": forward, "visual_to_text": backward, "SumR": total, "mean_recall": total / 6}


def rank(forward: Blocks, backward: Blocks, item_of: npt.NDArray[np.int64], memory_mb: float | None = None) -> Ranked:
    """Rank items for queries by `forward` (Q, N), and queries for items by `backward` (N, Q)."""
    captions_of: list[list[int]] = [[] for _ in range(forward.shape[1])]
    for query, item in enumerate(item_of.tolist()):
        captions_of[item].append(query)
    return Ranked(
        ranks_and_precision(forward, item_of, memory_mb=memory_mb),
        ranks_and_precision(backward, captions_of, memory_mb=memory_mb),
    )


def validate(
    network: Network, queries: Queries, *, batch_size: int, target_weight: float, kind: ScoreKind, device: torch.device
) -> dict[str, Any]:
    """Metrics of one split at one weight.

    Raises:
        UserError: an embedding is not finite.
    """
    source, target = score(_finite(encode(network, queries, batch_size, device), queries), kind)
    return both_directions(mix(source, target, target_weight), queries.item_of)


@torch.inference_mode()
def validate_languages(
    network: Network, gallery: Gallery, *, batch_size: int, device: torch.device
) -> dict[str, dict[str, Any]]:
    """Metrics of captions in each language by their raw cosines with one gallery.

    Raises:
        UserError: an embedding is not finite.
    """
    visual = encode_videos(network, gallery.videos, batch_size, device)  # (N, D)
    require_finite(visual, gallery.videos.ids)
    metrics = {}
    for language, spoken in gallery.spoken.items():
        text = encode_texts(network, spoken.tokens, batch_size, device)  # (Q, D)
        require_finite(text, spoken.ids)
        metrics[language] = both_directions(similarity(text, visual), spoken.item_of)
    return metrics


@torch.inference_mode()
def evaluate(
    network: Network,
    queries: Queries,
    *,
    batch_size: int,
    target_weight: float,
    kind: ScoreKind,
    device: torch.device,
    save_scores: bool,
    header: dict[str, Any],
    folder: Path,
    lengths: npt.NDArray[np.int64] | None = None,
    normalisation: Normalisation | None = None,
    memory_mb: float = 2000.0,
) -> dict[str, Any]:
    """Test a network: headline metrics, the sweep of weights, and the files of a test folder.

    Args:
        network: the model, in evaluation mode.
        queries: the split.
        batch_size: captions or items encoded together.
        target_weight: w_T of the headline.
        kind: how similarities are prepared before mixing, unless they are normalised.
        device: where the network is.
        save_scores: also write `scores.npz`.
        header: first entries of `metrics.json`: collection, split, checkpoint, ...
        lengths: (Q,) tokens of each query; where given, `metrics.json` also has recalls by length.
        folder: gets `ranks.tsv`, `ranks_visual.tsv`, perhaps `scores.npz`, and last `metrics.json`.
        normalisation: of the scores, with its bank.
        memory_mb: what a block of scores may take; matrices that need more are never held.

    Returns:
        What `metrics.json` holds.

    Raises:
        UserError: an embedding is not finite, or scores to save that may not be held.
    """
    shape = (len(queries.query_ids), len(queries.videos))
    if save_scores and not fits(shape, memory_mb):
        raise UserError(
            f"evaluation.save_scores: {shape[0]:,} x {shape[1]:,} scores need more than "
            f"evaluation.memory_mb={memory_mb:g}; raise it or leave save_scores out"
        )
    embeddings = _finite(encode(network, queries, batch_size, device), queries)
    directions = Directions(embeddings, kind, memory_mb, normalisation.bank if normalisation else None)

    def scored(weight: float) -> tuple[Blocks, Blocks]:
        if normalisation is None:
            return directions.plain(weight)
        return directions.normalised(weight, normalisation.settings)

    forward, backward = scored(target_weight)
    ranked = rank(forward, backward, queries.item_of, memory_mb)
    metrics = {
        **header,
        "queries": shape[0],
        "items": shape[1],
        "target_weight": target_weight,
        "batch_size": batch_size,
        "normalisation": {"method": "none", "scores": kind} if normalisation is None else normalisation.record(kind),
        **ranked.metrics(),
        "sweep": [{"source_weight": w, **rank(*scored(1.0 - w), queries.item_of, memory_mb).metrics()} for w in SWEEP],
    }
    if lengths is not None:
        metrics["by_length"] = recalls_by_length(ranked.text_to_visual[0], lengths)
    for stale in ("metrics.json", "scores.npz"):
        (folder / stale).unlink(missing_ok=True)
    if save_scores:
        _write_scores(folder / "scores.npz", dense(forward, memory_mb), embeddings, queries)
    items = queries.videos.ids
    write_ranks(folder, ranked, (forward, backward), queries.query_ids, items, items, memory_mb)
    write_json(folder / "metrics.json", metrics)
    return metrics


def quality(
    network: Network,
    queries: Queries,
    *,
    batch_size: int,
    target_weight: float,
    device: torch.device,
    bank: Bank | None,
    memory_mb: float,
) -> Callable[[Settings], float]:
    """A function that says what SumR a normalisation reaches on a split, which is encoded once."""
    embeddings = _finite(encode(network, queries, batch_size, device), queries)
    directions = Directions(embeddings, "raw", memory_mb, bank)

    def reached(settings: Settings) -> float:
        forward, backward = directions.normalised(target_weight, settings)
        return float(rank(forward, backward, queries.item_of, memory_mb).metrics()["SumR"])

    return reached


def _finite(embeddings: Embeddings, queries: Queries) -> Embeddings:
    for values, ids in (
        (embeddings.source, queries.query_ids),
        (embeddings.target, queries.query_ids),
        (embeddings.visual, queries.videos.ids),
    ):
        require_finite(values, ids)
    return embeddings


def require_finite(embedded: Tensor, ids: Sequence[str]) -> None:
    """Make sure that embeddings (N, D) hold no NaN or infinity.

    Raises:
        UserError: some do; the message names the first of `ids` (N).
    """
    bad = (~embedded.isfinite().all(dim=1)).nonzero().flatten().tolist()
    if bad:
        raise UserError(
            f"the embedding of {ids[bad[0]]} and {len(bad) - 1} others is not finite; "
            "look for NaN in the features with `nrccr check`, or in the checkpoint"
        )


def write_ranks(
    folder: Path,
    ranked: Ranked,
    scores: tuple[Blocks, Blocks],
    query_ids: Sequence[str],
    item_ids: Sequence[str],
    asking: Sequence[str],
    memory_mb: float,
) -> None:
    """One line a query: its id, the rank of its item, the ten items placed first (ties by index); and one line an item.

    An item's line has the best rank of its queries and the average precision of them all.

    Args:
        folder: gets `ranks.tsv` and `ranks_visual.tsv`.
        ranked: ranks by `scores`.
        scores: (Q, N), and (items that have a query, Q).
        query_ids: Q of them.
        item_ids: N of them.
        asking: those that have a query.
        memory_mb: what a block may take.
    """
    best, _ = ranked.text_to_visual
    top = highest_columns(scores[0], TOP, memory_mb).tolist()  # (Q, 10)
    lines = ["query\trank\ttop"]
    for query, rank, columns in zip(query_ids, best, top, strict=True):
        lines.append(f"{query}\t{int(rank)}\t{' '.join(item_ids[column] for column in columns)}")
    write_text(folder / "ranks.tsv", "\n".join(lines) + "\n")
    best, precision = ranked.visual_to_text
    top = highest_columns(scores[1], TOP, memory_mb).tolist()  # (N, 10)
    lines = ["item\trank\tprecision\ttop"]
    for item, rank, mean, columns in zip(asking, best, precision, top, strict=True):
        found = " ".join(query_ids[column] for column in columns)
        lines.append(f"{item}\t{int(rank)}\t{float(mean)!r}\t{found}")
    write_text(folder / "ranks_visual.tsv", "\n".join(lines) + "\n")


def _write_scores(path: Path, scores: Tensor, embeddings: Embeddings, queries: Queries) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            scores=scores.float().cpu().numpy(),
            query_ids=np.array(queries.query_ids),
            item_ids=np.array(queries.videos.ids),
            text_source=embeddings.source.float().cpu().numpy(),
            text_target=embeddings.target.float().cpu().numpy(),
            visual=embeddings.visual.float().cpu().numpy(),
        )
