"""Embeddings -> score matrices.

Q queries, N items, D joint-space width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

ScoreKind = Literal["minmax", "raw"]


def similarity(text: Tensor, visual: Tensor) -> Tensor:
    """Cosines (Q, N) of unit vectors text (Q, D) and visual (N, D)."""
    return text @ visual.T


@dataclass(frozen=True)
class Cosines:
    """Cosines (Q, N) of unit vectors, computed for the rows that are asked for.

    For captions against captions, where all at once would take much memory: 900 MB for 15,000 x 15,000.

    Attributes:
        queries: (Q, D).
        items: (N, D).
    """

    queries: Tensor
    items: Tensor
    ndim: int = 2

    @property
    def shape(self) -> tuple[int, int]:
        """(Q, N)."""
        return len(self.queries), len(self.items)

    def __getitem__(self, rows: slice) -> Tensor:
        """Cosines of some queries with all items."""
        return similarity(self.queries[rows], self.items)


def normalise_minmax(scores: Tensor) -> Tensor:
    """Scores (Q, N) moved and stretched so that the smallest of all is 0 and the largest 1 (spec section 5).

    A constant matrix becomes zeros.
    """
    low, high = scores.aminmax()
    return (scores - low) / (high - low).clamp(min=1e-12)


def prepare(scores: Tensor, kind: ScoreKind) -> Tensor:
    """f of the paper's inference: min-max over the whole matrix (released) or the raw cosines (paper), (Q, N)."""
    return normalise_minmax(scores) if kind == "minmax" else scores


def mix(source: Tensor, target: Tensor, target_weight: float) -> Tensor:
    """w_T f(sim(v, c^T)) + (1 - w_T) f(sim(v, c^S)); both (Q, N), already prepared."""
    return target_weight * target + (1.0 - target_weight) * source
