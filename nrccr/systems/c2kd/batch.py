"""C2KD's training batch: the captions of all languages together, in parts of like length.

N videos in the batch, n of them with a caption in a language, L tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nrccr.data.batch import LowerStates, PooledTextBatch, TensorRecord, TextBatch, VisualBatch
from nrccr.data.sampling import PARTS, Indices, parts_of_like_length


@dataclass(frozen=True)
class MultilingualBatch(TensorRecord):
    """Videos with a caption each in several languages; a video may lack some. Make one with `of`.

    Attributes:
        texts: the captions of all languages, in parts of like length, each padded for itself.
        places: (all n,) integers: `torch.cat(vectors of the parts)[places]` is one language after the other.
        rows: language, in that order -> (n,) integers, which videos its captions belong to.
        visual: the N videos, or vectors of N images.
        empty: (N,) bool, true where a video or its English caption is empty; such a video is left
            out of the first English term. None: nothing is empty.
        english: (n,) integers, the English captions' positions in the training set, for precomputed embeddings.
        items: (N,) integers, the videos' positions there.
        taught: for each teacher in the loop its own tokens of the English captions.
    """

    texts: list[TextBatch]
    places: Tensor
    rows: dict[str, Tensor]
    visual: VisualBatch
    empty: Tensor | None = None
    english: Tensor | None = None
    items: Tensor | None = None
    taught: Sequence[TextBatch] = ()

    @classmethod
    def of(
        cls,
        captions: Mapping[str, TextBatch],
        rows: dict[str, Tensor],
        visual: VisualBatch,
        *,
        padding: int = 0,
        **others: Any,
    ) -> Self:
        """Put the captions of all languages together, then cut them into parts of like length.

        With LaBSE's mask, under which states at padding count, they stay in one part.

        Args:
            captions: by language, (n, L), all with LaBSE's mask or all without.
            rows: by language, (n,).
            visual: the N videos.
            padding: the id of padded tokens.
            others: the other fields, by name.
        """
        together = _joined([captions[language] for language in rows], padding)  # (all n, L)
        cut = parts_of_like_length(together.counted(), 1 if isinstance(together, PooledTextBatch) else PARTS)
        texts = [together] if len(cut) == 1 else [_trimmed(together, chosen) for chosen in cut]
        places = torch.from_numpy(np.argsort(np.concatenate(cut)))
        return cls(texts, places, rows, visual, **others)


def _joined(texts: Sequence[TextBatch], padding: int) -> TextBatch:
    """Batches of captions as one, padded to the longest.

    Args:
        texts: all with LaBSE's mask or all without.
        padding: the id of padded tokens.
    """
    longest = max(text.tokens.shape[1] for text in texts)

    def stack(rows: list[Tensor], value: int) -> Tensor:
        return torch.cat([functional.pad(row, (0, longest - row.shape[1]), value=value) for row in rows])  # (all n, L)

    tokens, mask = stack([text.tokens for text in texts], padding), stack([text.mask for text in texts], 0)
    pools = [text.pool for text in texts if isinstance(text, PooledTextBatch)]
    lengths = np.concatenate([text.counted() for text in texts])  # (all n,)
    if pools:
        return PooledTextBatch(tokens, mask, stack(pools, 0), lengths=lengths)
    lower = [text.lower.states for text in texts if text.lower is not None]
    return TextBatch(tokens, mask, lengths=lengths, lower=LowerStates.of(torch.cat(lower), mask) if lower else None)


def _trimmed(text: TextBatch, chosen: Indices) -> TextBatch:
    """Some captions, padded to their own longest."""
    lengths = text.counted()[chosen]
    longest = int(lengths.max())
    mask, lower = text.mask[chosen, :longest], text.lower
    if lower is not None:
        lower = LowerStates.of(lower.states[lower.places[chosen, :longest][mask]], mask)
    return TextBatch(text.tokens[chosen, :longest], mask, lengths=lengths, lower=lower)
