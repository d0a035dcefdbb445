"""Distillation of a matrix of scores into another."""

from __future__ import annotations

from torch import Tensor, nn

from nrccr.losses.similarity import at_least_float32


class MatrixDistillation(nn.Module):
    """C2KD's KD: KL(softmax_j(P / tau) || softmax_j(S / tau)), mean over rows, plus the same on the transposes.

    P never receives a gradient, so this is the paper's cross entropy up to a constant. There is no factor tau^2.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        """Set tau, the temperature that divides the scores of teacher and student."""
        super().__init__()
        self.temperature = temperature

    def forward(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Sum of rows and columns.

        Args:
            teacher: P (N, N), row = caption.
            student: S (N, N).

        Returns:
            Scalar; 0 for no pairs.
        """
        if not len(student):
            return student.sum()
        return self.rows(teacher, student) + self.rows(teacher.T, student.T)

    def rows(self, teacher: Tensor, student: Tensor) -> Tensor:
        """One direction: the mean over rows."""
        log_p = (at_least_float32(teacher.detach()) / self.temperature).log_softmax(dim=1)  # (N, N)
        log_q = (at_least_float32(student) / self.temperature).log_softmax(dim=1)  # (N, N)
        return (log_p.exp() * (log_p - log_q)).sum(dim=1).mean()
