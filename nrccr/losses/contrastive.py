"""Contrast of every caption with the batch's videos, and of every video with its captions."""

from __future__ import annotations

from torch import Tensor, nn

from nrccr.losses.similarity import at_least_float32


class ContrastiveLoss(nn.Module):
    """C2KD's NCE: -mean_i log softmax_j(S / T)_ii - mean_j log softmax_i(S / T)_jj.

    Both directions are added up, not averaged: chance level on N pairs is 2 log N.
    """

    def __init__(self, temperature: float = 0.05) -> None:
        """Set T, the temperature that divides the scores."""
        super().__init__()
        self.temperature = temperature

    def forward(self, scores: Tensor) -> Tensor:
        """Sum over both directions of the mean over pairs.

        Args:
            scores: (N, N) cosines, row = caption, pairs on the diagonal.

        Returns:
            Scalar; 0 for no pairs.
        """
        if not len(scores):
            return scores.sum()
        logits = at_least_float32(scores) / self.temperature  # (N, N)
        of_text, of_visual = logits.log_softmax(dim=1).diagonal(), logits.log_softmax(dim=0).diagonal()  # (N,)
        return -of_text.mean() - of_visual.mean()
