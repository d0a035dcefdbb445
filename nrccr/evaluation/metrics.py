"""Ranks and the metrics made from them: R@K, MedR, MeanR, mAP, MRR, nDCG@10, SumR.

Nothing is sorted. The rank of a relevant item is a count: how many items of its row score higher, and how many of those
that score the same come first. Counts are taken over blocks, so memory does not grow with the matrix, and a matrix that
is given as `Blocks` never exists as a whole.

Ties, for an item with g higher scores in its row and e equal ones (itself included):
    index       1 + g + (equal scores at smaller columns), as a stable sort gives (NRCCR, MLCMR)
    average     1 + g + (e - 1) / 2, the mean of the tied positions (QB-Norm)
    optimistic  1 + g, the first of the tied positions (C2KD)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nrccr.evaluation.blocks import Blocks, DenseScores, as_matrix, spans
from nrccr.evaluation.counting import Ties as Ties
from nrccr.evaluation.counting import places_ahead

# Q rows (queries), N columns (items), b rows in a block, K relevant items in the fullest row of a block

Scores: TypeAlias = npt.NDArray[Any] | Tensor | Blocks
Rows: TypeAlias = Scores | Sequence[Sequence[float]]
Relevant: TypeAlias = npt.NDArray[Any] | Tensor | Sequence[int] | Sequence[Sequence[int]]

RECALLS = (1, 5, 10)
CUT = 10  # places that nDCG looks at
LENGTHS = (10, 15, 20, 25, 30)  # tokens of the longest query in each bin of recalls_by_length but the last
BLOCK_ENTRIES = 1 << 20  # entries of one block of scores: 4 MB of float32 stays in a processor's cache
TALL = 2048  # rows of a transposed matrix that are read together, as they lie in memory


def retrieval_metrics(
    scores: Rows, relevant: Relevant, ties: Ties = "index", memory_mb: float | None = None
) -> dict[str, float]:
    """Retrieval metrics of a score matrix, one query a row (specification of NRCCR, section 8).

    Args:
        scores: (Q, N) array, lists, or tensor on any device, higher is better; -inf and inf are allowed, NaN is not. A
            transposed view is as good as a copy. Never changed. Or `Blocks`, which is read block by block.
        relevant: the relevant columns: (Q,) integers, one a row; or (Q, N) booleans; or Q sequences of integers.
        ties: `index`, `average` or `optimistic`; see the head of this file.
        memory_mb: what a block may take, where `scores` are `Blocks`.

    Returns:
        R@1, R@5, R@10 (percent), MedR, MeanR (of the 1-based rank of a row's best-placed relevant item), mAP, MRR and
        nDCG@10 (percent), unrounded. MedR of an even number of rows is the mean of the middle two; MRR is the mean of
        1 / rank, not cut.

        R@K counts ranks below K + 1, and R@1 a rank of exactly 1. For whole ranks this is rank <= K; for averaged ones
        it is QB-Norm's rule (0-based rank below K, but 0 for K = 1): a tie for first misses R@1, rank 5.5 is in R@5.

        The precision at a relevant item, for mAP, is its rank among the relevant items of its row over its rank
        among all, both by the same tie rule. With `index` this is the usual average precision; with the others a tie of
        relevant items alone costs nothing, and no precision exceeds 1.

        nDCG@10 has linear gain, here 1 for a relevant item and 0 for others: sum of 1 / log2(1 + rank) over relevant
        items of rank below 11, over the same sum of their ranks among the relevant ones; 0 where tied ranks leave none
        below 11. With `index` this is the usual one.

    Raises:
        ValueError: empty scores, NaN, a row without a relevant item, a column out of range or duplicated.

    Examples:
        >>> import numpy as np
        >>> from nrccr.evaluation.metrics import retrieval_metrics
        >>> scores = np.array([[0.9, 0.1, 0.2], [0.8, 0.3, 0.1]])  # two queries, three items
        >>> found = retrieval_metrics(scores, np.array([0, 1]))  # the first belongs to item 0, the second to item 1
        >>> found["R@1"], found["R@5"], found["MeanR"]
        (50.0, 100.0, 1.5)
    """
    return summarise(ranks_and_precision(scores, relevant, ties, memory_mb))


class Placed(NamedTuple):
    """How the relevant items of every row are placed; arrays (Q,).

    Attributes:
        best: 1-based rank of the best-placed one.
        precision: average precision, 0..1.
        gain: nDCG@10, 0..1.
    """

    best: npt.NDArray[np.float64]
    precision: npt.NDArray[np.float64]
    gain: npt.NDArray[np.float64]


def summarise(placed: Placed) -> dict[str, float]:
    """Retrieval metrics of what `ranks_and_precision` returns."""
    return recalls(placed.best) | {
        "MedR": float(np.median(placed.best)),
        "MeanR": float(np.mean(placed.best)),
        "mAP": 100.0 * float(np.mean(placed.precision)),
        "MRR": 100.0 * float(np.mean(1 / placed.best)),
        f"nDCG@{CUT}": 100.0 * float(np.mean(placed.gain)),
    }


def recalls(ranks: npt.NDArray[np.float64], at: Sequence[int] = RECALLS) -> dict[str, float]:
    """R@K in percent of 1-based ranks (Q,), as `retrieval_metrics` counts them."""
    return {f"R@{k}": 100.0 * float(np.mean(ranks < k + 1 if k > 1 else ranks == 1)) for k in at}


def ranks(
    scores: Rows, relevant: Relevant, ties: Ties = "index", memory_mb: float | None = None
) -> npt.NDArray[np.float64]:
    """The 1-based rank (Q,) of every row's best-placed relevant item; arguments and errors as `retrieval_metrics`.

    Ranks are whole numbers except with averaged ties.
    """
    return ranks_and_precision(scores, relevant, ties, memory_mb).best


def recalls_by_length(
    best: npt.NDArray[np.float64], lengths: npt.NDArray[np.int64], longest: Sequence[int] = LENGTHS
) -> list[dict[str, Any]]:
    """Recalls of queries of like length (the paper's figure 5).

    Args:
        best: (Q,) ranks, from `ranks`.
        lengths: (Q,) tokens of each query.
        longest: the longest length of each bin but the last, ascending.

    Returns:
        One entry for each bin that has queries, shortest first: `tokens` (its shortest and its longest length, None
        where there is no limit), `queries` (how many), R@1, R@5 and R@10 (percent).
    """
    first, last = [0, *(edge + 1 for edge in longest)], [*longest, None]
    bins = np.searchsorted(longest, lengths)  # (Q,)
    return [
        {"tokens": [first[at], last[at]], "queries": int((bins == at).sum()), **recalls(best[bins == at])}
        for at in np.unique(bins).tolist()
    ]


def recall_sum(*directions: Mapping[str, float]) -> float:
    """R@1, R@5 and R@10 added up over directions, in percent; of both directions it is SumR.

    Args:
        directions: from `retrieval_metrics`, one or more.

    Returns:
        0..300 a direction.
    """
    return sum(direction[f"R@{k}"] for direction in directions for k in RECALLS)


def geometric_mean(summary: Mapping[str, float]) -> float:
    """(R@1 R@5 R@10)^(1/3), in percent: by which C2KD's and QB-Norm's published code select."""
    return float(np.prod([summary[f"R@{k}"] for k in RECALLS]) ** (1 / len(RECALLS)))


def ranks_and_precision(
    scores: Rows, relevant: Relevant, ties: Ties = "index", memory_mb: float | None = None
) -> Placed:
    """Best rank, average precision and nDCG@10 of every row; arguments and errors as `retrieval_metrics`."""
    if ties not in ("index", "average", "optimistic"):
        raise ValueError(f"ties is {ties!r}: choose index, average or optimistic")
    matrix: Scores = as_matrix(scores, "scores")
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"scores have shape {tuple(matrix.shape)}: give a matrix of at least one query and one item")
    count, width = int(matrix.shape[0]), int(matrix.shape[1])
    columns, starts = _relevant_columns(relevant, count, width)
    placed = Placed(np.empty(count), np.empty(count), np.empty(count))
    for strip in _strips(matrix, memory_mb):
        rows = slice(strip.rows.start, strip.rows.stop)
        padded, valid = _pad(columns, starts[rows.start : rows.stop + 1])  # (b, K)
        own = strip.at(padded)  # (b, K)
        padded, valid = padded.to(own.device), valid.to(own.device)
        places = padded.masked_fill(~valid, -1)
        overall = torch.ones(own.shape, dtype=torch.float64, device=own.device)
        for part in strip.parts:
            overall += places_ahead(strip.block(part), own, places - part.start, ties)  # (b, K)
        _require_numbers(overall, rows.start)
        # Among the relevant ones padding is NaN, which is neither higher than anything nor equal to it.
        among = own.masked_fill(~valid, torch.nan)
        slots = torch.arange(own.shape[1], device=own.device).expand_as(own).masked_fill(~valid, -1)
        within = 1 + places_ahead(among, own, slots, ties, gaps=True)  # (b, K)
        placed.best[rows] = overall.masked_fill(~valid, torch.inf).amin(dim=1).cpu().numpy()
        precision = (within / overall).masked_fill(~valid, 0.0).sum(dim=1) / valid.sum(dim=1)
        placed.precision[rows] = precision.cpu().numpy()
        gained, most = (_discounted(places, valid).cpu().numpy() for places in (overall, within))
        placed.gain[rows] = gained / np.where(most > 0, most, 1.0)
    return placed


def _discounted(places: Tensor, valid: Tensor) -> Tensor:
    """Sum over the first CUT of 1 / log2(1 + place), (b,), of 1-based places (b, K)."""
    counted = valid & (places < CUT + 1)
    return places.add(1).log2().reciprocal().masked_fill(~counted, 0.0).sum(dim=1)


@dataclass
class _Strip:
    """Some rows of a matrix, in one part or more; a single one is kept, others are computed anew."""

    scores: Tensor | Blocks
    rows: range
    parts: list[range]
    kept: Tensor | None = None

    def block(self, columns: range) -> Tensor:
        """One part (b, len(columns)), floating."""
        if isinstance(self.scores, Tensor):
            return self.scores[self.rows.start : self.rows.stop, columns.start : columns.stop]
        if self.kept is not None:
            return self.kept
        block = self.scores.block(self.rows, columns)
        if block.dtype not in (torch.float32, torch.float64):
            block = block.float() if block.is_floating_point() else block.double()
        if len(self.parts) == 1:
            self.kept = block
        return block

    def at(self, columns: Tensor) -> Tensor:
        """Scores at the given columns of each row, (b, K) both; parts that hold none of them are not computed."""
        found: Tensor | None = None
        for part in self.parts:
            inside = (columns >= part.start) & (columns < part.stop)  # (b, K)
            if inside.any():
                block = self.block(part)
                inside = inside.to(block.device)
                score = block.gather(1, (columns - part.start).clamp(0, len(part) - 1).to(block.device))
                found = score if found is None else torch.where(inside, score, found)
        assert found is not None
        return found


def _require_numbers(places: Tensor, first: int) -> None:
    """Make sure that no row of the strip from row `first` held NaN, which its places (b, K) then are."""
    bad = places.isnan().any(dim=1)  # (b,)
    if bad.any():
        raise ValueError(f"scores hold NaN in row {first + int(bad.nonzero()[0])}: fix the embeddings they come from")


def _strips(scores: Scores, memory_mb: float | None) -> Iterator[_Strip]:
    """All rows, as many at a time as fit."""
    count, width = int(scores.shape[0]), int(scores.shape[1])
    matrix = _viewed(scores)
    if isinstance(matrix, Tensor):
        transposed = matrix.stride(0) < matrix.stride(1)
        height = max(1, BLOCK_ENTRIES // width, TALL if transposed else 0)
        strips, parts = [range(first, min(first + height, count)) for first in range(0, count, height)], [range(width)]
    else:
        strips, parts = spans((count, width), memory_mb)
    return (_Strip(matrix, rows, parts) for rows in strips)


def _viewed(scores: Scores) -> Tensor | Blocks:
    """A matrix as a tensor, if it can be read in place; else block by block."""
    if isinstance(scores, np.ndarray):
        # torch takes neither read-only arrays nor negative strides.
        if not scores.flags.writeable or min(scores.strides) < 0 or scores.dtype not in (np.float32, np.float64):
            return DenseScores(scores)
        return torch.from_numpy(scores)
    if isinstance(scores, Tensor):
        return scores.detach() if scores.dtype in (torch.float32, torch.float64) else DenseScores(scores)
    return scores


def _relevant_columns(
    relevant: Relevant, count: int, width: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Relevant columns of all rows, row after row and ascending, and where each row starts (count + 1 entries)."""
    rows, columns = _pairs(relevant, count, width)
    outside = (columns < 0) | (columns >= width)
    if outside.any():
        at = int(np.argmax(outside))
        raise ValueError(f"relevant column {columns[at]} of row {rows[at]}: scores have columns 0 to {width - 1}")
    order = np.lexsort((columns, rows))
    rows, columns = rows[order], columns[order]
    repeated = (np.diff(rows) == 0) & (np.diff(columns) == 0)
    if repeated.any():
        at = int(np.argmax(repeated))
        raise ValueError(f"row {rows[at]} duplicates column {columns[at]}: name each once, or give a bool mask")
    counts = np.bincount(rows, minlength=count)
    if not counts.all():
        raise ValueError(f"row {int(np.argmin(counts))} has no relevant item: leave it out or name at least one column")
    return columns, np.concatenate([[0], np.cumsum(counts)])


def _pairs(relevant: Relevant, count: int, width: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(row, relevant column) pairs of the three accepted forms, columns not yet checked."""
    if not isinstance(relevant, Sequence | np.ndarray | Tensor) or isinstance(relevant, str) or _is_scalar(relevant):
        raise ValueError(
            f"relevant is of type {type(relevant).__name__}: give a list, one entry for each row of scores"
        )
    if len(relevant) != count:
        raise ValueError(f"relevant has {len(relevant)} rows and scores {count}: give one entry for each row of scores")
    if isinstance(relevant, Tensor):
        relevant = relevant.detach().cpu().numpy()
    if isinstance(relevant, np.ndarray) and relevant.dtype == np.bool_:
        if relevant.shape != (count, width):
            raise ValueError(f"the bool mask has shape {relevant.shape}: it needs that of scores, {(count, width)}")
        rows, columns = np.nonzero(relevant)
        return rows, columns
    if np.ndim(cast(Any, relevant[0])) == 0:
        return np.arange(count), _integers(relevant)
    lists = cast(Sequence[Sequence[int]], relevant)
    try:
        lengths = [*map(len, lists)]
    except TypeError as error:
        wrong = next(row for row, entries in enumerate(lists) if not hasattr(entries, "__len__"))
        raise ValueError(
            f"relevant of row {wrong} is no list of columns, as that of row 0 is: give lists throughout"
        ) from error
    rows = np.repeat(np.arange(count), lengths)
    return rows, _integers(list(chain.from_iterable(lists)))


def _is_scalar(values: Any) -> bool:
    return getattr(values, "ndim", 1) == 0


def _integers(values: Any) -> npt.NDArray[np.int64]:
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(
            "relevant holds lists in some rows alone: give integer columns, or lists throughout"
        ) from error
    if array.size and (array.ndim != 1 or array.dtype.kind not in "iu"):
        raise ValueError(f"relevant holds {array.dtype} values: give integer columns, or a bool array as a mask")
    return array.astype(np.int64)


def _pad(columns: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Relevant columns of one block, (b, K) padded with column 0, and which of them are real, (b, K) bool."""
    counts = np.diff(starts)  # (b,)
    valid = np.arange(counts.max()) < counts[:, None]  # (b, K)
    padded = np.zeros(valid.shape, dtype=np.int64)
    padded[valid] = columns[starts[0] : starts[-1]]
    return torch.from_numpy(padded), torch.from_numpy(valid)
