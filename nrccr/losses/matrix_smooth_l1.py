"""Distillation of a matrix of scores into another, entry by entry."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from nrccr.losses.similarity import at_least_float32


def matrix_smooth_l1(teacher: Tensor, student: Tensor) -> Tensor:
    """C2KD's ablation in place of KD: SmoothL1 between the matrices, d^2 / 2 where |d| < 1, else |d| - 1 / 2.

    Args:
        teacher: P (N, N), receives no gradient.
        student: S (N, N).

    Returns:
        The mean over all entries; 0 for no pairs.
    """
    if not len(student):
        return student.sum()
    return F.smooth_l1_loss(at_least_float32(student), at_least_float32(teacher.detach()))
