"""Scores of both sides, scaled and mixed, block by block.

Q queries, N items, D joint-space width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nrccr.evaluation.blocks import Blocks, Shaped, lowest_and_highest


def mix(source: Tensor, target: Tensor, target_weight: float) -> Tensor:
    """w_T f(sim(v, c^T)) + (1 - w_T) f(sim(v, c^S)); both (Q, N), already scaled."""
    return target_weight * target + (1.0 - target_weight) * source


class MinMax(Shaped):
    """Scores (Q, N) scaled so that the smallest of all is 0 and the largest 1 (spec section 5).

    All blocks are computed once for the extremes. A constant matrix becomes zeros.
    """

    def __init__(self, scores: Blocks, memory_mb: float | None = None) -> None:
        super().__init__(scores.shape, scores.device)
        self._scores = scores
        low, high = lowest_and_highest(scores, memory_mb)
        self._low, self._high = (torch.tensor(value, device=scores.device) for value in (low, high))

    def block(self, rows: range, columns: range) -> Tensor:
        """See Blocks."""
        return (self._scores.block(rows, columns) - self._low) / (self._high - self._low).clamp(min=1e-12)


class Mixed(Shaped):
    """`mix` of two matrices given as blocks, already scaled."""

    def __init__(self, source: Blocks, target: Blocks, target_weight: float) -> None:
        super().__init__(source.shape, source.device)
        self._source, self._target, self._weight = source, target, target_weight

    def block(self, rows: range, columns: range) -> Tensor:
        """See Blocks."""
        return mix(self._source.block(rows, columns), self._target.block(rows, columns), self._weight)
