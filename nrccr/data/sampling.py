"""Which items make up a batch, and in what order; what a masked view of an item leaves out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, overload

import numpy as np
import numpy.typing as npt
import torch

from nrccr.data.batch import TextBatch

Indices = npt.NDArray[np.int64]
FRAMES_REMOVED = 0.8
TOKENS_MASKED = 0.15
PARTS = 4  # of a batch, of like length: enough to save most of the padding of a batch of 128


class EpochBatches(Sequence[Indices]):
    """The batches of an epoch, each cut when it is read: four bytes a pair and eight a batch, in no Python object.

    Args:
        order: (pairs,) all positions; shared by slices of the epoch.
        bounds: (batches + 1,) where each batch begins in `order`, and where the last one ends.
    """

    def __init__(self, order: npt.NDArray[np.int32] | Indices, bounds: Indices) -> None:
        self.order = order
        self.bounds = bounds

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @overload
    def __getitem__(self, index: int) -> Indices: ...

    @overload
    def __getitem__(self, index: slice) -> EpochBatches: ...

    def __getitem__(self, index: int | slice) -> Indices | EpochBatches:
        """A batch, or those from one to another."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                raise ValueError("batches follow each other: a slice has no step")
            return EpochBatches(self.order, self.bounds[start : max(start, stop) + 1])
        place = range(len(self))[index]
        return self.order[self.bounds[place] : self.bounds[place + 1]].astype(np.int64)


def epoch_batches(
    count: int, batch_size: int, seed: int, epoch: int, *, drop_last: bool = False, least: int = 2
) -> EpochBatches:
    """A shuffled epoch cut into batches; the last short batch is kept, unless it is to be dropped.

    The order depends on (seed, epoch) alone, so that a resumed run and any number of workers and processes see the same
    batches. A last batch of one pair joins the one before: batch normalisation cannot use it.

    Args:
        count: number of training pairs, two or more.
        batch_size: pairs in a batch, two or more.
        seed: the run's seed.
        epoch: from 0.
        drop_last: leave out a last batch that is short, if it is not the only one.
        least: pairs in a last batch that does not join the one before; a pair for each process.

    Returns:
        Index arrays that together hold every pair once, except dropped ones.
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    narrow = torch.int32 if count < 2**31 else torch.int64  # the same numbers
    order = torch.randperm(count, generator=generator, dtype=narrow).numpy()
    bounds = np.append(np.arange(0, count, batch_size, dtype=np.int64), count)
    last = count - int(bounds[-2])
    if len(bounds) > 2 and drop_last and last < batch_size:
        bounds = bounds[:-1]
    elif len(bounds) > 2 and last < max(2, least):
        bounds = np.delete(bounds, -2)
    return EpochBatches(order, bounds)


def shares(batch: Indices, count: int) -> list[Indices]:
    """A batch in parts of equal size, one for each process; the first are one larger where it is no multiple."""
    return np.array_split(batch, count)


def ordered_batches(lengths: Indices, batch_size: int, *, by_length: bool) -> Iterator[Indices]:
    """Batches for encoding: in file order, or sequences of like length together, which saves padding.

    File order is for the released reading, where padding counts and the batch changes its embeddings.
    """
    order = np.argsort(lengths, kind="stable") if by_length else np.arange(len(lengths))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def parts_of_like_length(lengths: Indices, parts: int) -> list[Indices]:
    """Cut a batch into parts of like length, so that little of each is padding.

    Args:
        lengths: (N,) of each sequence.
        parts: how many at most; fewer where there are fewer sequences.

    Returns:
        Positions in the batch, together each once: in order of length, of equal ones the first first, cut into parts of
        equal size, the first of them one larger where N is not a multiple. One part is the batch as it is.
    """
    if parts == 1:
        return [np.arange(len(lengths))]
    return np.array_split(np.argsort(lengths, kind="stable"), max(1, min(parts, len(lengths))))


def parts_of_share(own: Indices, whole: Indices, lengths: Indices, parts: int) -> list[tuple[Indices, Indices]]:
    """One process's share of a batch in parts, each with those that it is padded with.

    Args:
        own: its share.
        whole: the batch.
        lengths: of each of its own sequences.
        parts: as parts_of_like_length; with one, where padding counts, the share is as wide as the whole batch.
    """
    cut = (own[part] for part in parts_of_like_length(lengths, parts))
    return [(part, whole if parts == 1 else part) for part in cut]


class MaskedView(NamedTuple):
    """What is drawn for one item.

    Attributes:
        frames: positions of the frames that remain, in order.
        tokens: for each caption the positions that [MASK] takes, in order.
    """

    frames: Indices
    tokens: list[Indices]


def masked_view(seed: int, epoch: int, item: int, frames: int, tokens: Sequence[int]) -> MaskedView:
    """MLCMR's masked view of one training pair, uniform and without replacement.

    It depends on (seed, epoch, item) and the lengths alone, so that neither the number of workers, nor the order or
    size of batches, nor a resumed run changes it.

    Args:
        seed: the run's seed, from 0, below 2**63.
        epoch: from 0.
        item: the training pair's position in the training set.
        frames: all frames of its video, n >= 1; int(0.8 n) of them go.
        tokens: length L of each of its captions, first and last special token included; int(0.15 L) positions between
            these two become [MASK].

    Returns:
        The n - int(0.8 n) frames that remain, at least one, and each caption's masked positions.
    """
    generator = _generator(seed, epoch, item)
    kept = _choose(generator, frames, frames_kept(frames))
    return MaskedView(kept, [1 + _choose(generator, length - 2, int(TOKENS_MASKED * length)) for length in tokens])


def frames_kept(frames: int) -> int:
    """How many of a video's frames a masked view keeps; more of a longer video."""
    return frames - int(FRAMES_REMOVED * frames)


def kept_frames(seed: int, epoch: int, item: int, frames: int, dropped: float) -> Indices:
    """Which frames of one training pair's video remain; of (seed, epoch, item) alone, and drawn apart from its view.

    Args:
        seed: the run's seed, from 0, below 2**63.
        epoch: from 0.
        item: the training pair's position in the training set.
        frames: all frames, one or more.
        dropped: share that goes, from 0 and below 1.

    Returns:
        Positions in order, at least one.
    """
    generator = np.random.default_rng(np.array([seed % 2**32, seed >> 32, epoch, item, 1], dtype=np.uint32))
    return _choose(generator, frames, frames - int(dropped * frames))


def caption_draws(seed: int, epoch: int, items: Indices, counts: Indices) -> Indices:
    """Which of its captions each item shows in an epoch, uniform; of (seed, epoch, item) alone, as `masked_view`.

    Args:
        seed: the run's seed, from 0, below 2**63.
        epoch: from 0.
        items: (N,) positions in the training set.
        counts: (N,) captions of each, one or more.

    Returns:
        (N,) numbers, from 0.
    """
    pairs = zip(items.tolist(), counts.tolist(), strict=True)
    return np.array([_generator(seed, epoch, item).integers(count) for item, count in pairs], dtype=np.int64)


def _generator(seed: int, epoch: int, item: int) -> np.random.Generator:
    # Words of fixed width: numpy would take as many as a number needs, and other triples could give the same ones.
    return np.random.default_rng(np.array([seed % 2**32, seed >> 32, epoch, item], dtype=np.uint32))


def _choose(generator: np.random.Generator, count: int, chosen: int) -> Indices:
    """`chosen` of the numbers below `count`, in order."""
    return np.sort(generator.choice(count, chosen, replace=False, shuffle=False)) if chosen else np.empty(0, np.int64)


def mask_tokens(text: TextBatch, positions: Sequence[Indices], mask_id: int) -> TextBatch:
    """A copy of captions with [MASK] at `positions` of each; the attention mask stays, as in the published code.

    Args:
        text: N captions.
        positions: N arrays, as `masked_view` draws them.
        mask_id: the vocabulary's [MASK], 103 in the multilingual BERT.
    """
    tokens = text.tokens.clone()
    rows = np.repeat(np.arange(len(positions)), [len(row) for row in positions])
    tokens[torch.from_numpy(rows), torch.from_numpy(np.concatenate(positions))] = mask_id
    return TextBatch(tokens, text.mask, lengths=text.lengths)
