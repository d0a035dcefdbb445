"""Triplet ranking with the hardest negative of the batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nrccr.losses.similarity import similarity


class TripletLoss(nn.Module):
    """NRCCR's ranking loss, `Triplet(a, b)` of the objective (used for L_tri and, between captions, for L_cyc).

    sum_i [margin + max_j s(t_i, v_j) - s(t_i, v_i)]+  +  sum_i [margin + max_j s(t_j, v_i) - s(t_i, v_i)]+, j != i.
    It is summed over the batch, not averaged: a larger batch is a larger loss. The gradient reaches one negative
    for each anchor and direction.
    """

    def __init__(self, margin: float = 0.2) -> None:
        """Set the margin, in cosine, by which a positive must lead the hardest negative."""
        super().__init__()
        self.margin = margin

    def forward(self, text: Tensor, visual: Tensor, same: Tensor | None = None) -> Tensor:
        """Sum over anchors and both directions.

        Args:
            text: (N, D), unit length.
            visual: (N, D), unit length; row i belongs to row i of `text`.
            same: (N, N) bool, true where caption i also describes item j, so that j is no negative of i. The
                diagonal always counts as true. None: every other pair is a negative, two captions of one item too.

        Returns:
            Scalar. An anchor without any negative adds 0, so a batch of one pair is 0 and can still be differentiated.
        """
        scores = similarity(text, visual)  # (N, N), row = caption
        matching = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
        if same is not None:
            matching = matching | same
        positive = scores.diagonal()  # (N,)
        negatives = scores.masked_fill(matching, -torch.inf)  # (N, N)
        # max with index, not amax: amax would share the gradient among equal negatives.
        hardest_visual = negatives.max(dim=1).values  # (N,)
        hardest_text = negatives.max(dim=0).values  # (N,)
        visual_cost = (self.margin + hardest_visual - positive).relu()  # (N,)
        text_cost = (self.margin + hardest_text - positive).relu()  # (N,)
        return visual_cost.sum() + text_cost.sum()
