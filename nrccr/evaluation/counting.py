"""How many scores lie ahead of a relevant one: what a rank is made of.

On a processor each relevant item costs one comparison with its row, in parts of a block that stay beside the core;
masks are added up in the smallest integers that hold the sum. A transposed block is read as it lies in memory, not
copied.

b rows in a block, N columns, K relevant items a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Ties: TypeAlias = Literal["index", "average", "optimistic"]
Array: TypeAlias = npt.NDArray[Any]

PART_ENTRIES = 1 << 18  # compared at once: 1 MB of float32
PART_COLUMNS = 255  # of a transposed part: one byte holds what a row of its mask adds up to


def places_ahead(block: Tensor, own: Tensor, columns: Tensor, ties: Ties) -> Tensor:
    """How many places of its row lie ahead of each relevant item: its 0-based rank, or this block's share of it.

    Args:
        block: (b, N) scores of any strides; where they are a part of the columns, the counts of all parts add up to
            the rank. NaN is neither higher than anything nor equal to it.
        own: (b, K) the relevant items' own scores; anything where a row has fewer.
        columns: (b, K) their columns, counted from the block's first: negative or N and more if they are in others;
            negative where a row has fewer.
        ties: see the head of nrccr/evaluation/metrics.py.

    Returns:
        (b, K) float64.
    """
    if block.device.type != "cpu":
        return torch.stack([_ahead_on_device(block, *of, ties) for of in zip(own.T, columns.T, strict=True)], dim=1)
    scores, own_scores, places = block.numpy(), own.numpy(), columns.numpy()
    ahead = np.zeros(own_scores.shape)  # (b, K)
    for rows, first, part in _parts(scores):
        ahead[rows] += _ahead(part, own_scores[rows], places[rows] - first, ties)
    return torch.from_numpy(ahead)


def _parts(scores: Array) -> Iterator[tuple[slice, int, Array]]:
    """Parts of a block that lie together in memory: some rows and all columns, or the reverse if it is transposed.

    Yields:
        The rows, the first column, the part.
    """
    height, width = scores.shape
    if scores.strides[0] < scores.strides[1]:
        step = max(1, min(PART_ENTRIES // height, PART_COLUMNS))
        for first in range(0, width, step):
            yield slice(None), first, scores[:, first : first + step]
    else:
        step = max(1, PART_ENTRIES // width)
        for first in range(0, height, step):
            yield slice(first, first + step), 0, scores[first : first + step]


def _ahead(part: Array, own: Array, columns: Array, ties: Ties) -> Array:
    """As `places_ahead`, of one part."""
    width = part.shape[1]
    own, columns = np.ascontiguousarray(own.T), np.ascontiguousarray(columns.T)  # (K, b): an item of each row together
    inside, later = (columns >= 0) & (columns < width), columns >= width
    bound = own
    if ties == "index":
        # All of this part comes before an item in a later one, so that equal scores are ahead of it too: those above
        # the next lower number.
        bound = np.where(later, np.nextafter(own, -np.inf), own)
    ahead = np.empty(own.shape)
    for slot, score in enumerate(own):
        ahead[slot] = _count(part > bound[slot, :, None])
        if ties == "average":
            equal = part == score[:, None]
            if np.count_nonzero(equal) > np.count_nonzero(inside[slot]):  # ties are rare in real scores
                ahead[slot] += (_count(equal) - inside[slot]) / 2
    if ties == "index":
        ahead[later & np.isneginf(own)] = width  # there is no lower number
        slots, rows = np.nonzero(inside)
        _add_ties(ahead, part, own, columns, (slots, rows))
    return ahead.T


def _add_ties(ahead: Array, part: Array, own: Array, columns: Array, pairs: tuple[Array, Array]) -> None:
    """Add to `ahead` (K, b) the equal scores at smaller columns, for pairs of an item and its row in this part."""
    width = part.shape[1]
    step = max(1, PART_ENTRIES // width)
    for first in range(0, len(pairs[0]), step):
        slots, rows = (of[first : first + step] for of in pairs)
        every = len(own) == 1 and len(rows) == len(part)  # each row's only item
        equal = (part if every else part[rows]) == own[slots, rows, None]
        if np.count_nonzero(equal) > len(rows):  # ties are rare in real scores
            equal &= np.arange(width) < columns[slots, rows, None]
            ahead[slots, rows] += _count(equal)


def _count(matches: Array) -> Array:
    """How many entries of each row of a mask (b, N) are true: (b,)."""
    counts: Array = matches.view(np.uint8).sum(axis=1, dtype=np.min_scalar_type(matches.shape[1]))
    return counts.astype(np.int64)


def _ahead_on_device(block: Tensor, own: Tensor, columns: Tensor, ties: Ties) -> Tensor:
    """As `places_ahead`, of one relevant item a row, (b,), by torch."""
    score, width = own[:, None], block.shape[1]
    ahead = (block > score).sum(dim=1).double()
    if ties == "optimistic":
        return ahead
    if ties == "average":
        itself = ((columns >= 0) & (columns < width)).long()
        return ahead + ((block == score).sum(dim=1) - itself) / 2
    before = torch.arange(width, device=block.device) < columns[:, None]
    return ahead + ((block == score) & before).sum(dim=1)
