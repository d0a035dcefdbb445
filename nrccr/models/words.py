"""Word vectors of a table of their own beside a backbone: what a caption's words say without any context.

N captions, L tokens, W width of a word vector, V words in the vocabulary.
"""

from __future__ import annotations

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

    def forward(self, text: TextBatch) -> Tensor:
        """Captions, their first and last real token special ones -> (N, W); 0 for a caption without words."""
        words, there = text.tokens[:, 1:-1], text.mask[:, 2:].bool()  # (N, L - 2); the last of a caption is special
        there = there & (self.dropout(torch.ones(there.shape, device=there.device)) > 0)
        vectors = self.table(words) * there.unsqueeze(-1)  # (N, L - 2, W)
        summed: Tensor = vectors.sum(dim=1) / there.sum(dim=1, keepdim=True).clamp(min=1).sqrt()
        return summed
