"""Word vectors of a table of their own beside a backbone: what a caption's words say without any context.

n captions of a batch, L tokens, W width of a word vector, V words in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nrccr.data.batch import TextBatch

SPREAD = 0.005  # of a word vector at the start: a word that training rarely sees stays next to nothing


class WordVectors(nn.Module):
    """Captions -> the sum of their word vectors over the root of their number.

    The table begins near zero. A backbone's own, from random weights, begins with vectors as long as trained ones, each
    normalised: there a rare word is as loud as a common one, and a small training set is overfitted.

    Args:
        vocabulary: number of token ids V.
        width: of a word vector.
        dropped: share of the words that training leaves out, drawn anew for each caption.
    """

    def __init__(self, vocabulary: int, width: int, dropped: float) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, width)
        self.width = width
        self.dropout = nn.Dropout(dropped)
        nn.init.normal_(self.table.weight, std=SPREAD)

    def forward(self, texts: Sequence[TextBatch]) -> list[Tensor]:
        """Batches of captions, first and last real token special ones -> (n, W) of each; 0 for one without words.

        One look into the table for all of them: each has a gradient as large as the table.
        """
        words = [text.tokens[:, 1:-1] for text in texts]  # (n, L - 2)
        vectors = self.table(torch.cat([own.flatten() for own in words])).split([own.numel() for own in words])
        return [
            (self._shares(text).unsqueeze(1) @ found.view(*own.shape, self.width)).squeeze(1)
            for text, own, found in zip(texts, words, vectors, strict=True)
        ]

    def _shares(self, text: TextBatch) -> Tensor:
        """What each word counts for in its caption (n, L - 2): 0 if it is padding, special or left out."""
        there = text.mask[:, 2:].bool()  # the last of a caption is special
        left: Tensor = self.dropout(torch.ones(there.shape, device=there.device)) > 0
        there = there & left
        return there / there.sum(dim=1, keepdim=True).clamp(min=1).sqrt()
