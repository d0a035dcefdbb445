"""Contrast of two views of the same items."""

from __future__ import annotations

from torch import Tensor, nn

from nrccr.losses.similarity import similarity


class InfoNCELoss(nn.Module):
    """MLCMR's loss between an item and its masked view: each should find the other among all of the batch.

    M(a, b) = (N(a, b) + N(b, a)) / 2 with N(a, b) = -sum_i log softmax_j(cos(a_i, b_j) / temperature) at j = i. It is
    summed over the batch, not averaged, as the ranking loss beside it is.
    """

    def __init__(self, temperature: float = 0.07) -> None:
        """Set the temperature that divides the cosines."""
        super().__init__()
        self.temperature = temperature

    def forward(self, items: Tensor, views: Tensor) -> Tensor:
        """Sum over the batch, mean of both directions; symmetric in its arguments.

        Args:
            items: (N, D), unit length.
            views: (N, D), unit length; row i is a view of row i of `items`.

        Returns:
            Scalar, 0 for a batch of one.
        """
        logits = similarity(items, views) / self.temperature  # (N, N), row = item
        finds_view, finds_item = logits.log_softmax(dim=1).diagonal(), logits.log_softmax(dim=0).diagonal()  # (N,)
        return -0.5 * (finds_view.sum() + finds_item.sum())
