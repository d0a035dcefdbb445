"""Distillation of a teacher's similarities into a student."""

from __future__ import annotations

from torch import Tensor, nn

from nrccr.config.choices import SimilarityKind
from nrccr.losses.similarity import similarity


class SimilarityDistillation(nn.Module):
    """NRCCR's L_sim: the student ranks the batch as the teacher does, in both directions.

    With p = softmax(sim(teacher, visual) / temperature), q = softmax(sim(student, visual) / temperature):
    `soft_cross_entropy` (released) is mean_i -sum_j p_ij log q_ij, its targets p follow the visual vectors in the
    gradient; `kl` (paper) is mean_i sum_j p_ij log(p_ij / q_ij), its targets are constants. The teacher never
    receives a gradient.
    """

    def __init__(self, temperature: float = 0.07, kind: SimilarityKind = "soft_cross_entropy") -> None:
        """Choose the reading.

        Args:
            temperature: divides the cosines of teacher and student.
            kind: `soft_cross_entropy` (released) or `kl` (paper).

        Raises:
            ValueError: an unknown kind.
        """
        super().__init__()
        if kind not in ("soft_cross_entropy", "kl"):
            raise ValueError(f"kind is {kind!r}: choose soft_cross_entropy or kl")
        self.temperature = temperature
        self.kind = kind

    def forward(self, teacher: Tensor, student: Tensor, visual: Tensor) -> Tensor:
        """Mean over rows, then over text-to-visual and visual-to-text.

        Args:
            teacher: (N, D), unit length.
            student: (N, D), unit length.
            visual: (N, D), unit length.

        Returns:
            Scalar.
        """
        target_visual = visual.detach() if self.kind == "kl" else visual
        targets = similarity(teacher.detach(), target_visual) / self.temperature  # (N, N), row = caption
        logits = similarity(student, visual) / self.temperature  # (N, N)
        return 0.5 * (self._rows(targets, logits) + self._rows(targets.T, logits.T))

    def _rows(self, targets: Tensor, logits: Tensor) -> Tensor:
        log_p, log_q = targets.log_softmax(dim=1), logits.log_softmax(dim=1)  # (N, N)
        gap = log_p - log_q if self.kind == "kl" else -log_q
        return (log_p.exp() * gap).sum(dim=1).mean()
