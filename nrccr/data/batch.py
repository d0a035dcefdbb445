"""Named batches: what the loaders give and the networks take.

N items or captions, L tokens, F frames, D feature width, 3 x H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Generic, Self, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

ENGLISH = "en"


class TensorRecord:
    """Base of dataclasses that hold tensors, themselves or in records, lists, tuples and dicts; a field may be none.

    What stays on the host whatever the device is a numpy array.
    """

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return the same record with `change` applied to every tensor in it."""
        changed = {f.name: _mapped(getattr(self, f.name), change) for f in fields(cast(Any, self))}
        return type(self)(**changed)

    def between(self, start: int, stop: int) -> Self:
        """Return the same record of some of its rows; every tensor and array in it has one row for each."""
        cut = {f.name: _between(getattr(self, f.name), start, stop) for f in fields(cast(Any, self))}
        return type(self)(**cut)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return the record on `device`."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Return the record in page-locked memory (called by torch's loader)."""
        return self.map(lambda tensor: tensor.pin_memory())


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A field's value with `change` applied to every tensor in it.

    Raises:
        TypeError: neither a tensor, nor an array, nor none, nor a collection of those.
    """
    if value is None or isinstance(value, np.ndarray):
        return value
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, TensorRecord):
        return value.map(change)
    if isinstance(value, Mapping):
        return {key: _mapped(part, change) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_mapped(part, change) for part in value)
    raise TypeError(f"a {type(value).__name__} cannot be mapped: give tensors, records, lists, tuples or dicts of them")


def _between(value: Any, start: int, stop: int) -> Any:
    """Rows of a field's value; an array's too, which `map` leaves alone."""
    if isinstance(value, np.ndarray):
        return value[start:stop]
    if isinstance(value, TensorRecord):
        return value.between(start, stop)
    return _mapped(value, lambda tensor: tensor[start:stop])


Batch = TypeVar("Batch", bound=TensorRecord)


@dataclass(frozen=True)
class Parts(TensorRecord, Generic[Batch]):
    """What a training set gives for a batch; a network takes it as `network(*batch.parts)`.

    Attributes:
        parts: one, or several of like length, each padded for itself.
    """

    parts: list[Batch]


@dataclass(frozen=True)
class LowerStates(TensorRecord):
    """What the frozen lower layers of a backbone give of captions, H wide.

    Attributes:
        states: (T, H) of the real tokens of all captions, one after the other.
        places: (N, L) integer, where among them each token is; 0 for padding, whose states are never read.
    """

    states: Tensor
    places: Tensor

    @classmethod
    def of(cls, states: Tensor, mask: Tensor) -> Self:
        """The states (T, H) of the real tokens of captions with this mask (N, L)."""
        return cls(states, (mask.flatten().cumsum(0).view(mask.shape) - 1).where(mask.bool(), 0))

    def between(self, start: int, stop: int) -> Self:
        """Some captions; the states of all stay together."""
        return replace(self, places=self.places[start:stop])

    def padded(self) -> Tensor:
        """The states (N, L, H)."""
        return self.states[self.places]


@dataclass(frozen=True)
class TextBatch(TensorRecord):
    """Captions as token ids.

    Attributes:
        tokens: (N, L) integer ids, padded at the end.
        mask: (N, L), true or 1 at real tokens.
        lengths: (N,) the real tokens of each on the host, so that no step waits for the device to count them; none:
            `mask` is counted.
        lower: what frozen lower layers give of them; none where it is not kept.
    """

    tokens: Tensor
    mask: Tensor
    lengths: npt.NDArray[np.int64] | None = field(default=None, kw_only=True)
    lower: LowerStates | None = field(default=None, kw_only=True)

    def counted(self) -> npt.NDArray[np.int64]:
        """The real tokens of each caption (N,), on the host."""
        return self.mask.sum(dim=1).long().cpu().numpy() if self.lengths is None else self.lengths


@dataclass(frozen=True)
class VideoBatch(TensorRecord):
    """Videos as frame features.

    Attributes:
        frames: (N, F, D) float features, zeros after the last real frame.
        mask: (N, F), true or 1 at real frames.
        mean: (N, D), the mean of all frames of each video, also of those that `frames` leaves out; none where no frame
            is left out or no network uses it.
        lengths: (N,) the real frames of each on the host, so that no step waits for the device to count them; none:
            `mask` is counted.
    """

    frames: Tensor
    mask: Tensor
    mean: Tensor | None = None
    lengths: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True)
class ImageBatch(TensorRecord):
    """Images, raw or as vectors.

    Attributes:
        pixels_or_vectors: (N, 3, H, W) pre-processed pixels, or (N, D) float vectors.
    """

    pixels_or_vectors: Tensor


VisualBatch = VideoBatch | ImageBatch


@dataclass(frozen=True)
class PairBatch(TensorRecord):
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

    @property
    def count(self) -> int:
        """N."""
        return len(self.items)


@dataclass(frozen=True)
class ViewBatch(TensorRecord):
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

    @property
    def count(self) -> int:
        """N."""
        return len(self.items)


@dataclass(frozen=True)
class PooledTextBatch(TextBatch):
    """Captions pooled over other positions than their own tokens (C2KD's released reading).

    Attributes:
        pool: (N, L), true at the positions of LaBSE's tokens of the same captions. `tokens` is padded far enough for
            these, also where the encoder's own tokenizer needs fewer.
    """

    pool: Tensor
