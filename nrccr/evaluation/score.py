"""Embeddings -> score matrices, whole or block by block, with the same numbers.

Q queries, N items, D joint-space width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nrccr.config.choices import ScoreKind
from nrccr.evaluation.blocks import Blocks, Cosines, Shaped, dense, lowest_and_highest


def similarity(text: Tensor, visual: Tensor) -> Tensor:
    """Cosines (Q, N) of unit vectors text (Q, D) and visual (N, D), each computed as `Cosines` does."""
    return dense(Cosines(text, visual))


def normalise_minmax(scores: Tensor) -> Tensor:
    """Scores (Q, N) moved and stretched so that the smallest of all is 0 and the largest 1 (spec section 5).

    A constant matrix becomes zeros.
    """
    low, high = scores.aminmax()
    return _stretch(scores, low, high)


def _stretch(scores: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return (scores - low) / (high - low).clamp(min=1e-12)


def prepare(scores: Tensor, kind: ScoreKind) -> Tensor:
    """f of the paper's inference: min-max over the whole matrix (released) or the raw cosines (paper), (Q, N)."""
    return normalise_minmax(scores) if kind == "minmax" else scores


def mix(source: Tensor, target: Tensor, target_weight: float) -> Tensor:
    """w_T f(sim(v, c^T)) + (1 - w_T) f(sim(v, c^S)); both (Q, N), already prepared."""
    return target_weight * target + (1.0 - target_weight) * source


class MinMax(Shaped):
    """`normalise_minmax` of a matrix given as blocks, which are all looked at once for the extremes."""

    def __init__(self, scores: Blocks, memory_mb: float | None = None) -> None:
        super().__init__(scores.shape, scores.device)
        self._scores = scores
        # Kept as float32, so that a block is moved and stretched by what the whole matrix would be.
        low, high = lowest_and_highest(scores, memory_mb)
        self._low, self._high = (torch.tensor(value, device=scores.device) for value in (low, high))

    def block(self, rows: range, columns: range) -> Tensor:
        """See Blocks."""
        return _stretch(self._scores.block(rows, columns), self._low, self._high)


class Mixed(Shaped):
    """`mix` of two matrices given as blocks, already prepared."""

    def __init__(self, source: Blocks, target: Blocks, target_weight: float) -> None:
        super().__init__(source.shape, source.device)
        self._source, self._target, self._weight = source, target, target_weight

    def block(self, rows: range, columns: range) -> Tensor:
        """See Blocks."""
        return mix(self._source.block(rows, columns), self._target.block(rows, columns), self._weight)
