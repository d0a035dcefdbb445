"""Quartet's training batch.

N captions of the source language in the batch, n of a language, L tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from nrccr.data.batch import TensorRecord, TextBatch, VisualBatch


@dataclass(frozen=True)
class LanguageBatch(TensorRecord):
    """Captions of one language.

    Attributes:
        text: (n, L).
        rows: (n,) integers, the captions of the source language that they translate; all of them for that itself.
        masked: the captions with words hidden behind [MASK]; none without views.
    """

    text: TextBatch
    rows: Tensor
    masked: TextBatch | None


@dataclass(frozen=True)
class QuartetBatch(TensorRecord):
    """Captions with translations and their items.

    Attributes:
        texts: by language, the source language first; `BACK` last where back-translations are read.
        visual: the N items.
        masked_visual: with most of their frames left out; none without views or for images.
        items: (N,) integer; equal numbers are captions of one item.
        pairs: (N,) integer, positions in the training set.
        epoch: scalar integer, from 1.
    """

    texts: dict[str, LanguageBatch]
    visual: VisualBatch
    masked_visual: VisualBatch | None
    items: Tensor
    pairs: Tensor
    epoch: Tensor

    @property
    def count(self) -> int:
        """N."""
        return len(self.items)

    def between(self, start: int, stop: int) -> Self:
        """Some captions of the source language, with their translations and items."""
        texts = {}
        for language, own in self.texts.items():  # a GPU is asked where their rows lie
            first, last = torch.searchsorted(own.rows, torch.tensor([start, stop], device=own.rows.device)).tolist()
            cut = own.between(first, last)
            texts[language] = replace(cut, rows=cut.rows - start)
        return replace(
            self,
            texts=texts,
            visual=self.visual.between(start, stop),
            masked_visual=None if self.masked_visual is None else self.masked_visual.between(start, stop),
            items=self.items[start:stop],
            pairs=self.pairs[start:stop],
        )
