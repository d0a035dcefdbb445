"""How many scores lie ahead of a relevant one: what a rank is made of.

On a processor the lowest relevant items of all rows are compared with their rows, in parts of a block that stay beside
the core; masks are added up in the smallest integers that hold the sum. Once few scores lie ahead, only these are
compared with the rows' other relevant items. A transposed block is read as it lies in memory, not copied.

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

PART_ENTRIES = 1 << 19  # compared at once: 2 MB of float32
FEW = 80  # one of so many entries ahead: then it is faster to pick them out than to compare all once more
LINE_ENTRIES = 1 << 14  # of a transposed part, compared by one call of numpy's innermost loop
PART_COLUMNS = 255  # of a transposed part: one byte holds what a row of its mask adds up to


def places_ahead(block: Tensor, own: Tensor, columns: Tensor, ties: Ties, *, gaps: bool = False) -> Tensor:
    """How many places of its row lie ahead of each relevant item: its 0-based rank, or this block's share of it.

    Args:
        block: (b, N) scores of any strides; where they are a part of the columns, the counts of all parts add up to
            the rank.
        own: (b, K) the relevant items' own scores; anything where a row has fewer.
        columns: (b, K) their columns, counted from the block's first: negative or N and more if they are in others;
            negative where a row has fewer.
        ties: see the head of nrccr/evaluation/metrics.py.
        gaps: whether NaN stands for no score, which is neither higher than anything nor equal to it.

    Returns:
        (b, K) float64; without `gaps` NaN in a row that holds NaN.
    """
    if block.device.type != "cpu":
        found = torch.stack([_ahead_on_device(block, *of, ties) for of in zip(own.T, columns.T, strict=True)], dim=1)
        return found if gaps else found.masked_fill(block.isnan().any(dim=1, keepdim=True), torch.nan)
    # Each row's lowest first; of equal ones the last, which by index has at least what the others have ahead.
    order = np.lexsort((-columns.numpy(), own.numpy())).T.copy()  # (K, b): an item of each row together
    own_scores, places = (np.take_along_axis(of.numpy().T, order, axis=0) for of in (own, columns))
    below = np.nextafter(own_scores, -np.inf, dtype=own_scores.dtype)
    counts = np.zeros(own_scores.shape)  # (K, b)
    for rows, first, part in _parts(block.numpy()):
        counts[:, rows] += _ahead(part, own_scores[:, rows], below[:, rows], places[:, rows] - first, ties)
        # The highest of all is NaN where one is, and found faster than each row's, while the part is beside the core.
        if not gaps and np.isnan(part.max()):
            counts[:, rows][:, np.isnan(part).any(axis=1)] = np.nan
    ahead = np.empty(counts.shape)
    np.put_along_axis(ahead, order, counts, axis=0)
    return torch.from_numpy(ahead.T)


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


def _ahead(part: Array, own: Array, below: Array, columns: Array, ties: Ties) -> Array:
    """As `places_ahead`, of one part (b, w), and of items (K, b) that ascend; `below` are the next lower numbers."""
    width = part.shape[1]
    inside, later = (columns >= 0) & (columns < width), columns >= width
    # All of this part comes before an item in a later one, so that equal scores are ahead of it too: those above
    # the next lower number.
    bound = np.where(later, below, own) if ties == "index" else own
    ahead = _higher(part, bound)
    if ties == "average":
        for slot, score in enumerate(own):
            equal = part == score[:, None]
            if np.count_nonzero(equal) > np.count_nonzero(inside[slot]):  # ties are rare in real scores
                ahead[slot] += (_count(equal) - inside[slot]) / 2
    if ties == "index":
        ahead[later & np.isneginf(own)] = width  # there is no lower number
        slots, rows = np.divmod(np.flatnonzero(inside), inside.shape[1])  # faster than nonzero of two dimensions
        _add_ties(ahead, part, own, columns, (slots, rows))
    return ahead


def _higher(part: Array, bounds: Array) -> Array:
    """How many scores of each row (b, w) are above each of its bounds (K, b), which ascend: (K, b)."""
    higher = np.empty(bounds.shape)
    mask = np.empty_like(part, dtype=np.bool_)
    for slot, bound in enumerate(bounds):
        _above(part, bound, mask)
        higher[slot] = _count(mask)
        if slot + 1 < len(bounds) and FEW * higher[slot].sum() < part.size:
            higher[slot + 1 :] = _higher_among(part, mask, bounds[slot + 1 :])
            break
    return higher


def _above(part: Array, bound: Array, mask: Array) -> None:
    """Which scores of each row (b, w) are above its bound (b,): a mask (b, w), as the part lies in memory."""
    lines, shown, together = part.T, mask.T, LINE_ENTRIES // len(part)
    if together < 2 or not lines.flags.c_contiguous:
        np.greater(part, bound[:, None], out=mask)
        return
    # Several short lines of a transposed part at once, since numpy takes one after the other.
    whole = len(lines) // together * together
    repeated = np.empty((together, len(bound)), bound.dtype)
    repeated[:] = bound  # np.tile takes twice as long
    width = repeated.size
    np.greater(lines[:whole].reshape(-1, width), repeated.reshape(-1), out=shown[:whole].reshape(-1, width))
    np.greater(lines[whole:], bound, out=shown[whole:])


def _higher_among(part: Array, mask: Array, bounds: Array) -> Array:
    """As `_higher`, where all scores above a bound are among the few that a mask (b, w) shows."""
    transposed = part.strides[0] < part.strides[1]
    flat, shown = (part.T, mask.T) if transposed else (part, mask)  # as they lie in memory
    places = np.flatnonzero(shown)
    scores = flat.reshape(-1)[places]
    lines = places // flat.shape[1]
    rows = places - lines * flat.shape[1] if transposed else lines
    higher = np.empty(bounds.shape)
    for slot, bound in enumerate(bounds):
        kept = np.flatnonzero(scores > bound[rows])
        scores, rows = scores[kept], rows[kept]
        higher[slot] = np.bincount(rows, minlength=len(part))
    return higher


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
    counts: Array = np.add.reduce(matches.view(np.uint8), axis=1, dtype=np.min_scalar_type(matches.shape[1]))
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
