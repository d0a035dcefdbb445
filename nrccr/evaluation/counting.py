"""How many scores lie ahead of a relevant one: what a rank is made of.

On a processor a block is read once: a comparison with the lowest relevant score of each row leaves the few entries that
can lie ahead of any, and these alone are compared with every relevant score. Where they are not few (a model that knows
little) the whole block is compared with each. A transposed block is read as it lies in memory, not copied.

b rows in a block, N columns, K relevant items a row, C entries that may lie ahead, E of them equal to a relevant score.
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

PART_ENTRIES = 1 << 18  # compared at once: 1 MB of float32 and what is made of it stay beside the core
FEW = 16  # one entry in so many: more are counted faster where they lie than picked out


def places_ahead(block: Tensor, own: Tensor, columns: Tensor, ties: Ties) -> Tensor:
    """How many places of its row lie ahead of each relevant item: its 0-based rank, or this block's share of it.

    Args:
        block: (b, N) scores of any strides; where they are a part of the columns, the counts of all parts add up to
            the rank. NaN is neither higher than anything nor equal to it.
        own: (b, K) the relevant items' own scores; inf where a row has fewer (padding).
        columns: (b, K) their columns, counted from the block's first: negative or N and more if they are in others; negative at padding.
        ties: see the head of nrccr/evaluation/metrics.py.

    Returns:
        (b, K) float64.
    """
    if block.device.type != "cpu":
        return torch.stack([_ahead_on_device(block, *of, ties) for of in zip(own.T, columns.T, strict=True)], dim=1)
    scores, own_scores, places = block.numpy(), own.numpy(), columns.numpy()
    least = own_scores.min(axis=1, keepdims=True)  # (b, 1)
    ahead = np.zeros(own_scores.shape)  # (b, K)
    for rows, first, part in _parts(scores):
        remaining = part >= least[rows]
        few = np.count_nonzero(remaining) * FEW <= part.size
        count = _ahead_of_few if few else _ahead_of_all
        ahead[rows] += count(part, remaining, own_scores[rows], places[rows] - first, ties)
    return torch.from_numpy(ahead)


def _parts(scores: Array) -> Iterator[tuple[slice, int, Array]]:
    """Parts of a block that lie together in memory: some rows and all columns, or the reverse if it is transposed.

    Yields:
        The rows, the first column, the part.
    """
    height, width = scores.shape
    if _is_transposed(scores):
        step = max(1, PART_ENTRIES // height)
        yield from ((slice(None), first, scores[:, first : first + step]) for first in range(0, width, step))
    else:
        step = max(1, PART_ENTRIES // width)
        yield from (
            (slice(first, first + step), 0, scores[first : first + step]) for first in range(0, height, step)
        )


def _is_transposed(scores: Array) -> bool:
    return scores.strides[0] < scores.strides[1]


def _ahead_of_few(part: Array, remaining: Array, own: Array, columns: Array, ties: Ties) -> Array:
    """As `places_ahead`, from the entries that reach a relevant score of their row, `remaining` (b, N)."""
    height, slots = own.shape
    if _is_transposed(remaining):
        column, row = np.divmod(np.flatnonzero(remaining.T), height)
    else:
        row, column = np.divmod(np.flatnonzero(remaining), part.shape[1])
    scores = part[row, column]  # (C,)
    order = own.argsort(axis=1)  # (b, K)
    ascending = np.take_along_axis(own, order, axis=1)
    passed = np.zeros(len(scores), dtype=np.int64)  # (C,) how many relevant scores of its row each entry exceeds
    for of_rows in np.ascontiguousarray(ascending.T):
        passed += scores > of_rows.take(row)
    counts = np.bincount(row * (slots + 1) + passed, minlength=height * (slots + 1)).reshape(height, slots + 1)
    higher = counts[:, :0:-1].cumsum(axis=1)[:, ::-1]  # (b, K) entries above each of `ascending`
    ahead = np.empty(own.shape)
    np.put_along_axis(ahead, order, higher, axis=1)
    if ties == "optimistic":
        return ahead
    nearest = ascending.take(row * slots + np.minimum(passed, slots - 1))
    equal = np.flatnonzero(scores == nearest)  # the relevant entries, and what ties with them
    row, column = row[equal], column[equal]
    tied = scores[equal, None] == own[row]  # (E, K)
    tied &= column[:, None] < columns[row] if ties == "index" else column[:, None] != columns[row]
    entry, slot = np.nonzero(tied)
    others = np.bincount(row[entry] * slots + slot, minlength=own.size).reshape(own.shape)
    return ahead + (others if ties == "index" else others / 2)


def _ahead_of_all(part: Array, _: Array, own: Array, columns: Array, ties: Ties) -> Array:
    """As `places_ahead`, from all entries, compared with each relevant item in turn."""
    width = part.shape[1]
    ahead = np.empty(own.shape)
    for slot in range(own.shape[1]):
        own_score, own_column = own[:, slot, None], columns[:, slot]
        ahead[:, slot] = _count(part > own_score)
        if ties == "optimistic":
            continue
        equal = part == own_score
        itself = (own_column >= 0) & (own_column < width)
        if np.count_nonzero(equal) == np.count_nonzero(itself):
            continue  # ties are rare in real scores
        others = _count(equal) - itself
        if ties == "average":
            ahead[:, slot] += others / 2
        else:
            tied = np.flatnonzero(others)
            ahead[tied, slot] += _count(equal[tied] & (np.arange(width) < own_column[tied, None]))
    return ahead


def _count(matches: Array) -> Array:
    """How many entries of each row of a mask (b, N) are true: (b,) integers."""
    return matches.view(np.uint8).sum(axis=1, dtype=np.uint32).astype(np.int64)


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
