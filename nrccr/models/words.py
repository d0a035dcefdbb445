"""Word vectors of a table of their own beside a backbone: what a caption's words say without any context.

n captions of a batch, L tokens, l rows of a table for each, w their width, W width of what a caption gets.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nrccr.data.batch import TextBatch

PAIR_ROWS = 1 << 14
FACTORS, PRIME = (1_000_003, 998_244_353), 2**31 - 1  # of the hash of a pair; products stay below 2**63
SPREAD = 0.005  # of a word vector at the start: a word that training rarely sees stays next to nothing


class WordVectors(nn.Module):
    """Captions -> the sum of their word vectors over the root of their number, beside it that of neighbouring words.

    The table begins near zero. A backbone's own, from random weights, begins with vectors as long as trained ones, each
    normalised: there a rare word is as loud as a common one, and a small training set is overfitted.

    Two neighbours have a vector too: what one token alone does not say, such as a Chinese character or a piece of a
    German compound. Pairs are too many for a table of all; each has the row of its hash, which it shares with others.

    Args:
        vocabulary: number of token ids.
        width: of a word vector.
        dropped: share of the words that training leaves out, drawn anew for each caption; no pair has one of them.
        pairs: width of a pair's vector; 0: none.

    Attributes:
        width: W of a caption's vector, of words and pairs together.
    """

    def __init__(self, vocabulary: int, width: int, dropped: float, pairs: int = 0) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, width)
        self.pairs = nn.Embedding(PAIR_ROWS, pairs) if pairs else None
        self.width = width + pairs
        self.dropout = nn.Dropout(dropped)
        nn.init.normal_(self.table.weight, std=SPREAD)
        if self.pairs is not None:
            nn.init.normal_(self.pairs.weight, std=SPREAD)

    def forward(self, texts: Sequence[TextBatch]) -> list[Tensor]:
        """Batches of captions, first and last real token special ones -> (n, W) of each; 0 for one without words.

        One look into each table for all of them: a look has a gradient as large as the table.
        """
        words = [text.tokens[:, 1:-1] for text in texts]  # (n, L - 2)
        there = [self._kept(text) for text in texts]
        found = _sums(self.table, words, there)
        if self.pairs is None:
            return found
        both = [own[:, :-1] & own[:, 1:] for own in there]
        of_pairs = _sums(self.pairs, [pair_rows(own) for own in words], both)
        return [torch.cat(parts, dim=1) for parts in zip(found, of_pairs, strict=True)]

    def _kept(self, text: TextBatch) -> Tensor:
        """Which words of a caption count (n, L - 2): not padding, special ones and those left out."""
        there = text.mask[:, 2:].bool()  # the last of a caption is special
        kept: Tensor = there & (self.dropout(torch.ones(there.shape, device=there.device)) > 0)
        return kept


def pair_rows(words: Tensor) -> Tensor:
    """The rows of pairs of neighbours: ids of words (n, l) -> (n, l - 1), or (n, 0) of a single one."""
    first, second = words[:, :-1].long(), words[:, 1:].long()
    return (first * FACTORS[0] + second * FACTORS[1]) % PRIME % PAIR_ROWS


def _sums(table: nn.Embedding, rows: Sequence[Tensor], there: Sequence[Tensor]) -> list[Tensor]:
    """Rows of a table (n, l) of which those that are there count -> their sum over the root of their number, (n, w)."""
    vectors = table(torch.cat([own.flatten() for own in rows])).split([own.numel() for own in rows])
    shares = [own / own.sum(dim=1, keepdim=True).clamp(min=1).sqrt() for own in there]  # (n, l)
    return [
        (share.unsqueeze(1) @ found.view(*own.shape, table.embedding_dim)).squeeze(1)
        for share, own, found in zip(shares, rows, vectors, strict=True)
    ]
