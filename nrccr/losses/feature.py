"""Distillation of a teacher's vectors into a student."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from nrccr.config.choices import FeatureKind
from nrccr.losses.similarity import at_least_float32


class FeatureDistillation(nn.Module):
    """NRCCR's L_feat: the student's mapped vectors approach the teacher's.

    `smooth_l1` (released): d^2 / (2 beta) where |d| < beta, else |d| - beta / 2. Both vectors are attached, so the
    teacher also moves towards the student. On unit vectors |d| <= 2 < beta = 4: it is a scaled squared error.
    `l1` (paper): |d|, the teacher detached.
    """

    def __init__(self, kind: FeatureKind = "smooth_l1", beta: float = 4.0) -> None:
        """Choose the reading.

        Args:
            kind: `smooth_l1` (released) or `l1` (paper).
            beta: where `smooth_l1` turns from square to line.

        Raises:
            ValueError: an unknown kind.
        """
        super().__init__()
        if kind not in ("smooth_l1", "l1"):
            raise ValueError(f"kind is {kind!r}: choose smooth_l1 or l1")
        self.kind = kind
        self.beta = beta

    def forward(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Mean over all entries.

        Args:
            teacher: (N, D), unit length.
            student: (N, D), unit length.

        Returns:
            Scalar.
        """
        teacher, student = at_least_float32(teacher), at_least_float32(student)
        if self.kind == "l1":
            return F.l1_loss(student, teacher.detach())
        return F.smooth_l1_loss(student, teacher, beta=self.beta)
