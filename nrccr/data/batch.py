"""Named batches: what the loaders give and the networks take.

N items or captions, L tokens, F frames, D feature width, 3 x H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self, cast

import torch
from torch import Tensor

ENGLISH = "en"  # the language that models of several languages start from


class _Batch:
    """A dataclass of tensors and batches that moves itself; a field may be none."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return the batch on `device`."""
        return self._map(lambda part: part.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Return the batch in page-locked memory (called by torch's loader)."""
        return self._map(lambda part: part.pin_memory())

    def _map(self, change: Callable[[Any], Any]) -> Self:
        parts = (getattr(self, f.name) for f in fields(cast(Any, self)))
        return type(self)(*(None if part is None else change(part) for part in parts))


@dataclass(frozen=True)
class TextBatch(_Batch):
    """Captions as token ids.

    Attributes:
        tokens: (N, L) integer ids, padded at the end.
        mask: (N, L), true or 1 at real tokens.
    """

    tokens: Tensor
    mask: Tensor


@dataclass(frozen=True)
class VideoBatch(_Batch):
    """Videos as frame features.

    Attributes:
        frames: (N, F, D) float features, zeros after the last real frame.
        mask: (N, F), true or 1 at real frames.
        mean: (N, D), the mean of all frames of each video, also of those that `frames` leaves out; none where no frame
            is left out or no network asks for it.
    """

    frames: Tensor
    mask: Tensor
    mean: Tensor | None = None


@dataclass(frozen=True)
class ImageBatch(_Batch):
    """Images, raw or as vectors.

    Attributes:
        pixels_or_vectors: (N, 3, H, W) pre-processed pixels, or (N, D) float vectors.
    """

    pixels_or_vectors: Tensor


VisualBatch = VideoBatch | ImageBatch


@dataclass(frozen=True)
class PairBatch(_Batch):
    """Training pairs: (v, s^S, s^T, s^B) of the paper, and which item each belongs to.

    Attributes:
        source: human source-language captions.
        target: their machine translations.
        back: the back-translations of `target`.
        visual: the items.
        items: (N,) integer; equal numbers are captions of one item.
    """

    source: TextBatch
    target: TextBatch
    back: TextBatch
    visual: VisualBatch
    items: Tensor


@dataclass(frozen=True)
class ViewBatch(_Batch):
    """MLCMR's training pairs, each part with a masked view of itself (see nrccr.data.sampling.masked_view).

    Attributes:
        source: captions; where the languages are not parallel those of both, mixed.
        target: the same captions in the other language, or none where the languages are not parallel.
        visual: the items.
        masked_source, masked_target: captions with words hidden behind [MASK], padded as the captions themselves.
        masked_visual: the items with most of their frames left out.
        items: (N,) integer; equal numbers are captions of one item.
    """

    source: TextBatch
    target: TextBatch | None
    visual: VideoBatch
    masked_source: TextBatch
    masked_target: TextBatch | None
    masked_visual: VideoBatch
    items: Tensor


@dataclass(frozen=True)
class PooledTextBatch(TextBatch):
    """Captions that are averaged over other positions than their own tokens (C2KD's released reading).

    Attributes:
        pool: (N, L), true at the positions of LaBSE's tokens of the same captions. `tokens` is padded far enough for
            these, also where the encoder's own tokenizer needs fewer.
    """

    pool: Tensor


@dataclass(frozen=True)
class MultilingualBatch(_Batch):
    """Videos with a caption each in several languages; a video may lack some (C2KD).

    Attributes:
        texts: language -> captions of the videos that have one, (n, L).
        rows: language -> (n,) integers, which videos these are.
        visual: the N videos, or vectors of N images.
        empty: (N,) bool, true where a video's English caption or the video itself says nothing; such a video is left
            out of the first English term. None: nothing is empty.
        english: (n,) integers, the English captions' positions in the training set, for embeddings computed before.
        items: (N,) integers, the videos' positions there.
        taught: for each teacher in the loop its own tokens of the English captions.
    """

    texts: dict[str, TextBatch]
    rows: dict[str, Tensor]
    visual: VisualBatch
    empty: Tensor | None = None
    english: Tensor | None = None
    items: Tensor | None = None
    taught: Sequence[TextBatch] = ()

    def _map(self, change: Callable[[Any], Any]) -> Self:
        empty, english, items = (None if p is None else change(p) for p in (self.empty, self.english, self.items))
        return type(self)(
            {language: change(text) for language, text in self.texts.items()},
            {language: change(rows) for language, rows in self.rows.items()},
            change(self.visual),
            empty,
            english,
            items,
            [change(text) for text in self.taught],
        )
