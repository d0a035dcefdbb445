"""Contrast with several positives: every caption of an item, in any language, belongs to it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nrccr.losses.similarity import at_least_float32


def soft_labels(rows: Tensor, columns: Tensor) -> Tensor:
    """What a row should find: its item's columns, all alike.

    Args:
        rows: (N,) item of each row.
        columns: (M,) item of each column.

    Returns:
        (N, M), 1 / (columns of the row's item) at these and 0 elsewhere; a row without any is all 0.
    """
    matching = (rows[:, None] == columns).float()  # (N, M)
    return matching / matching.sum(dim=1, keepdim=True).clamp(min=1)


class MultiPositiveContrast(nn.Module):
    """Mean over rows of the cross entropy of softmax(S / T) against soft labels, mean of both directions.

    With captions of K languages as rows and videos as columns, each video ranks all captions of all languages in one
    softmax (1-to-K). With one caption an item this is the usual symmetric InfoNCE.
    """

    def forward(
        self, scores: Tensor, text_items: Tensor, visual_items: Tensor, scale: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """The loss of a batch.

        Args:
            scores: (N, M) cosines, row = caption, column = video.
            text_items: (N,) item of each caption.
            visual_items: (M,) item of each video.
            scale: 1 / T, a scalar; it may be learned.
            weights: (N,) trust in each caption, from 0: it weighs the caption as a row, and as a positive of its video,
                which itself weighs as much as its most trusted caption. None: 1 each.

        Returns:
            Scalar; 0 for no pairs.
        """
        logits = at_least_float32(scores) * scale  # (N, M)
        trust = torch.ones(len(scores), device=scores.device) if weights is None else weights.float()  # (N,)
        of_text = -(soft_labels(text_items, visual_items) * logits.log_softmax(dim=1)).sum(dim=1)  # (N,)
        wanted = (visual_items[:, None] == text_items) * trust  # (M, N)
        found = functional.pad(wanted, (0, 1)).amax(dim=1)  # (M,), 0 where a video has no caption with any trust
        wanted = wanted / wanted.sum(dim=1, keepdim=True).clamp(min=torch.finfo(wanted.dtype).tiny)
        of_visual = -(wanted * logits.T.log_softmax(dim=1)).sum(dim=1)  # (M,)
        return 0.5 * (_weighted(of_text, trust) + _weighted(of_visual, found))


def _weighted(losses: Tensor, weights: Tensor) -> Tensor:
    """Their mean; 0 where no loss has any weight."""
    return (weights * losses).sum() / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
