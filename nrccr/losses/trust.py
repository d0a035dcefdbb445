"""How much a batch's own ranking speaks for each of its pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from nrccr.losses.similarity import at_least_float32


def pair_probability(scores: Tensor, items: Tensor, temperature: float = 0.05) -> Tensor:
    """The mean of p(video i | caption i) and p(caption i | video i), softmaxes over the batch; without gradient.

    A pair stands against other items alone: two captions of one video do not take from each other's probability.

    Args:
        scores: (N, N) cosines, pairs on the diagonal.
        items: (N,) item of each pair.
        temperature: divides the cosines.

    Returns:
        (N,), from 0 to 1. A pair whose caption describes another video of the batch is near 0.
    """
    logits = at_least_float32(scores.detach()) / temperature  # (N, N)
    same = (items[:, None] == items).fill_diagonal_(False)  # (N, N)
    logits = logits.masked_fill(same, -torch.inf)
    return 0.5 * (logits.softmax(dim=1).diagonal() + logits.softmax(dim=0).diagonal())
