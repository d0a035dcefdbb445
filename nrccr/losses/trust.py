"""How much a batch's own ranking speaks for each of its pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from nrccr.losses.similarity import at_least_float32


def pair_probability(
    scores: Tensor, rows: Tensor, text_items: Tensor, visual_items: Tensor, temperature: float = 0.05
) -> Tensor:
    """The mean of p(video i | caption i) and p(caption i | video i), softmaxes over the batch; without gradient.

    A pair stands against other items alone: two captions of one video do not take from each other's probability. Where
    a language lacks translations each caption has all videos of the batch against it, a video fewer captions.

    Args:
        scores: (n, N) cosines, row = caption of one language, column = video of the batch.
        rows: (n,) the column of each caption's own video.
        text_items: (n,) item of each caption.
        visual_items: (N,) item of each video.
        temperature: divides the cosines.

    Returns:
        (n,), from 0 to 1. A pair whose caption describes another video of the batch is near 0.
    """
    logits = at_least_float32(scores.detach()) / temperature  # (n, N)
    own = rows[:, None]  # (n, 1)
    same = (text_items[:, None] == visual_items).scatter(1, own, torch.zeros_like(own, dtype=torch.bool))
    of_text = logits.masked_fill(same, -torch.inf).softmax(dim=1).gather(1, own)[:, 0]  # (n,)
    same = (text_items[:, None] == text_items).fill_diagonal_(False)  # (n, n)
    of_visual = logits[:, rows].masked_fill(same, -torch.inf).softmax(dim=0).diagonal()  # (n,)
    return 0.5 * (of_text + of_visual)
