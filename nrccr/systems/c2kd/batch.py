"""C2KD's training batch: the captions of all languages together, in parts of like length.

N videos in the batch, n of them with a caption in a language, L tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nrccr.data.batch import (
    ENGLISH,
    LowerStates,
    PooledTextBatch,
    TensorRecord,
    TextBatch,
    VideoBatch,
    VisualBatch,
)
from nrccr.data.sampling import PARTS, Indices, parts_of_like_length


@dataclass(frozen=True)
class MultilingualBatch(TensorRecord):
    """Videos with a caption each in several languages; a video may lack some. Make one with `of`.

    Attributes:
        texts: the captions of all languages, in parts of like length, each padded for itself.
        places: (all n,) integers: `torch.cat(vectors of the parts)[places]` is one language after the other.
        rows: language, in that order -> (n,) integers, which videos its captions belong to.
        visual: the N videos, or vectors of N images.
        kept: see kept_captions.
        english: (n,) integers, the English captions' positions in the training set, for precomputed embeddings.
        items: (N,) integers, the videos' positions there.
        taught: for each teacher in the loop its own tokens of the English captions.
    """

    texts: list[TextBatch]
    places: Tensor
    rows: dict[str, Tensor]
    visual: VisualBatch
    kept: Mapping[str, Tensor] = field(default_factory=dict)
    english: Tensor | None = None
    items: Tensor | None = None
    taught: Sequence[TextBatch] = ()

    @property
    def count(self) -> int:
        """N."""
        visual = self.visual
        return len(visual.frames if isinstance(visual, VideoBatch) else visual.pixels_or_vectors)

    def between(self, start: int, stop: int) -> Self:
        """What of the batch an encoder takes at a time: some videos, and as large a share of the captions, in order.

        Which belongs to which only the whole batch knows.
        """
        count, total = self.count, sum(len(text.tokens) for text in self.texts)
        first, last = (total * edge // count for edge in (start, min(stop, count)))
        texts, begin = [], 0  # of a part, among all captions
        for text in self.texts:
            end = begin + len(text.tokens)
            if first < end and begin < last:
                texts.append(text.between(max(first - begin, 0), last - begin))
            begin = end
        return replace(self, texts=texts, visual=self.visual.between(start, stop))

    @classmethod
    def of(
        cls,
        captions: Mapping[str, TextBatch],
        rows: dict[str, Tensor],
        visual: VisualBatch,
        *,
        padding: int = 0,
        empty: Tensor | None = None,
        **others: Any,
    ) -> Self:
        """Put the captions of all languages together, then cut them into parts of like length.

        With LaBSE's mask, under which states at padding count, they stay in one part.

        Args:
            captions: by language, (n, L), all with LaBSE's mask or all without.
            rows: by language, (n,).
            visual: the N videos.
            padding: the id of padded tokens.
            empty: (N,) bool, true where a video or its English caption is empty. None: nothing is.
            others: the other fields, by name.
        """
        together = _joined([captions[language] for language in rows], padding)  # (all n, L)
        cut = parts_of_like_length(together.counted(), 1 if isinstance(together, PooledTextBatch) else PARTS)
        texts = [together] if len(cut) == 1 else [_trimmed(together, chosen) for chosen in cut]
        places = torch.from_numpy(np.argsort(np.concatenate(cut)))
        return cls(texts, places, rows, visual, kept_captions(rows, empty), **others)


def kept_captions(rows: Mapping[str, Tensor], empty: Tensor | None = None) -> dict[str, Tensor]:
    """Which captions stay where some are left out, found on the host: a device would be waited for to count them.

    Args:
        rows: language -> (n,) videos of its captions.
        empty: (N,) bool, videos that are left out of the first English term.

    Returns:
        Language -> (m,) places among its captions: of English those whose videos are not empty, of the others those
        whose videos have an English caption too. A language of which all stay is not among them.
    """
    if ENGLISH not in rows:
        return {}
    stay = {
        language: torch.isin(own, rows[ENGLISH]) if language != ENGLISH else torch.ones(len(own), dtype=torch.bool)
        for language, own in rows.items()
    }
    if empty is not None:
        stay[ENGLISH] = ~empty[rows[ENGLISH]]
    return {language: own.nonzero().squeeze(1) for language, own in stay.items() if not own.all()}


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
