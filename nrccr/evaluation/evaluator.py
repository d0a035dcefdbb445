"""Encode, score, rank a split, and write what came out.

Q queries, N items, D joint-space width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nrccr.data.datasets import Queries
from nrccr.errors import UserError
from nrccr.evaluation.encode import Network, encode_texts, encode_videos
from nrccr.evaluation.metrics import ranks, recall_sum, recalls_by_length, retrieval_metrics
from nrccr.evaluation.score import ScoreKind, mix, prepare, similarity
from nrccr.files import atomic_path, write_json, write_text

SWEEP = (1.0, 0.8, 0.5, 0.2, 0.0)  # weights of the source side, as the published test prints them
TOP = 10


@dataclass(frozen=True)
class Embeddings:
    """A split in the joint space: queries' translations (Q, D), queries (Q, D), items (N, D), all of unit length."""

    source: Tensor
    target: Tensor
    visual: Tensor


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
    """Metrics of a score matrix (Q, N), text to visual, visual to text, and SumR; `item_of` (Q,) the relevant items."""
    captions_of: list[list[int]] = [[] for _ in range(scores.shape[1])]
    for query, item in enumerate(item_of.tolist()):
        captions_of[item].append(query)
    text_to_visual = retrieval_metrics(scores, item_of)
    visual_to_text = retrieval_metrics(scores.T, captions_of)
    return {
        "text_to_visual": text_to_visual,
        "visual_to_text": visual_to_text,
        "SumR": recall_sum(text_to_visual, visual_to_text),
    }


def validate(
    network: Network, queries: Queries, *, batch_size: int, target_weight: float, kind: ScoreKind, device: torch.device
) -> dict[str, Any]:
    """Metrics of one split at one weight.

    Raises:
        UserError: an embedding is not finite.
    """
    source, target = score(_finite(encode(network, queries, batch_size, device), queries), kind)
    return both_directions(mix(source, target, target_weight), queries.item_of)


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
) -> dict[str, Any]:
    """Test a network: headline metrics, the sweep of weights, and the files of a test folder.

    Args:
        network: the model, in evaluation mode.
        queries: the split.
        batch_size: captions or items encoded together.
        target_weight: w_T of the headline.
        kind: how similarities are prepared before mixing.
        device: where the network is.
        save_scores: also write `scores.npz`.
        header: first entries of `metrics.json`: collection, split, checkpoint, ...
        folder: gets `ranks.tsv`, perhaps `scores.npz`, and last `metrics.json`.
        lengths: (Q,) tokens of each query; where given, `metrics.json` also has recalls by length.

    Returns:
        What `metrics.json` holds.

    Raises:
        UserError: an embedding is not finite.
    """
    embeddings = _finite(encode(network, queries, batch_size, device), queries)
    source, target = score(embeddings, kind)
    mixed = mix(source, target, target_weight)
    metrics = {
        **header,
        "queries": len(queries.query_ids),
        "items": len(queries.videos),
        "target_weight": target_weight,
        "batch_size": batch_size,
        "normalisation": {"method": "none", "scores": kind},
        **both_directions(mixed, queries.item_of),
        "sweep": [
            {"source_weight": w, **both_directions(mix(source, target, 1.0 - w), queries.item_of)} for w in SWEEP
        ],
    }
    if lengths is not None:
        metrics["by_length"] = recalls_by_length(ranks(mixed, queries.item_of), lengths)
    for stale in ("metrics.json", "scores.npz"):
        (folder / stale).unlink(missing_ok=True)
    if save_scores:
        _write_scores(folder / "scores.npz", mixed, embeddings, queries)
    _write_ranks(folder / "ranks.tsv", mixed, queries)
    write_json(folder / "metrics.json", metrics)
    return metrics


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


def _write_ranks(path: Path, scores: Tensor, queries: Queries) -> None:
    """One line a query: its id, the rank of its item, the ten items placed first (ties by index)."""
    best = ranks(scores, queries.item_of)  # (Q,)
    top = torch.sort(scores, dim=1, descending=True, stable=True).indices[:, :TOP].tolist()  # (Q, 10)
    names = queries.videos.ids
    lines = ["query\trank\ttop"]
    for query, rank, columns in zip(queries.query_ids, best, top, strict=True):
        lines.append(f"{query}\t{int(rank)}\t{' '.join(names[column] for column in columns)}")
    write_text(path, "\n".join(lines) + "\n")


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
