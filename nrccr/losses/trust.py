"""How much a batch's own ranking speaks for each of its pairs."""

from __future__ import annotations

from torch import Tensor

from nrccr.losses.similarity import at_least_float32


def pair_probability(scores: Tensor, temperature: float = 0.05) -> Tensor:
    """The mean of p(video i | caption i) and p(caption i | video i), softmaxes over the batch; without gradient.

    Args:
        scores: (N, N) cosines, pairs on the diagonal.
        temperature: divides the cosines.

    Returns:
        (N,), from 0 to 1. A pair whose caption describes another video of the batch is near 0.
    """
    logits = at_least_float32(scores.detach()) / temperature  # (N, N)
    return 0.5 * (logits.softmax(dim=1).diagonal() + logits.softmax(dim=0).diagonal())
