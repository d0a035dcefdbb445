"""Lazy score matrices: they are computed block by block.

A block that is computed again is the same to the last bit, as ranks need it: a score that was read from one is found
again when the whole row is counted. Blocks of other sizes may round otherwise.

Q rows (queries), N columns (items), D joint-space width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

BYTES_PER_ENTRY = 32  # of a block at work: scores, their float64 form, comparisons
USUAL_ENTRIES = 1 << 19  # of a block: larger ones do not stay in a processor's cache
LEAST_ROWS = 512  # of a block, where there are as many: a product of few rows with many columns is slow

Vectors: TypeAlias = npt.NDArray[Any] | Tensor


def as_matrix(scores: Any, name: str) -> Any:
    """Scores as they are if they are a tensor, an array or `Blocks`; anything else, such as lists, as an array.

    Raises:
        ValueError: what they hold is no numbers, or rows of different lengths.
    """
    if not isinstance(scores, Tensor | np.ndarray) and hasattr(scores, "block"):
        return scores
    try:
        made = scores if isinstance(scores, Tensor) else np.asarray(scores)
    except (ValueError, TypeError, RuntimeError) as error:  # RuntimeError: of tensors in a list
        raise ValueError(f"{name} are no matrix ({error}): give queries x items") from error
    if made.is_complex() if isinstance(made, Tensor) else made.dtype.kind not in "fiub":
        raise ValueError(f"{name} hold values of type {made.dtype}: give a matrix of numbers, queries x items")
    return made


class Blocks(Protocol):
    """A score matrix (Q, N) that gives out blocks."""

    @property
    def shape(self) -> tuple[int, int]:
        """(Q, N)."""

    @property
    def ndim(self) -> int:
        """2."""

    @property
    def device(self) -> torch.device:
        """Where its blocks are."""

    def block(self, rows: range, columns: range) -> Tensor:
        """Scores (len(rows), len(columns)). Not to be changed."""


class Shaped:
    """What all kinds share."""

    def __init__(self, shape: tuple[int, int], device: torch.device) -> None:
        self.shape, self.device = shape, device

    @property
    def ndim(self) -> int:
        """2."""
        return 2


class DenseScores(Shaped):
    """A score matrix that is there, as an array (memory-mapped ones too) or a tensor (Q, N)."""

    def __init__(self, scores: Vectors) -> None:
        if scores.ndim != 2:
            raise ValueError(f"scores have shape {tuple(scores.shape)}: give a matrix, queries x items")
        super().__init__((int(scores.shape[0]), int(scores.shape[1])), _device_of(scores))
        self._scores = scores

    def block(self, rows: range, columns: range) -> Tensor:
        return _floats(self._scores[rows.start : rows.stop, columns.start : columns.stop])


class Cosines(Shaped):
    """Inner products of text vectors (Q, D) with item vectors (N, D), in float32.

    Args:
        texts: one row a query; arrays may be memory-mapped.
        items: one row an item.
        device: where to compute; by default where `items` is.
    """

    def __init__(self, texts: Vectors, items: Vectors, device: torch.device | None = None) -> None:
        super().__init__((int(texts.shape[0]), int(items.shape[0])), _device_of(items) if device is None else device)
        self._texts, self._items = texts, items

    def block(self, rows: range, columns: range) -> Tensor:
        return self._part(self._texts, rows) @ self._part(self._items, columns).T

    def _part(self, vectors: Vectors, span: range) -> Tensor:
        """Some of the vectors, in fresh memory: how a product rounds may depend on where its factors begin."""
        return _floats(vectors[span.start : span.stop]).to(self.device, torch.float32, copy=True)


class Transposed(Shaped):
    """The other direction of a score matrix."""

    def __init__(self, scores: Blocks) -> None:
        super().__init__((scores.shape[1], scores.shape[0]), scores.device)
        self._scores = scores

    def block(self, rows: range, columns: range) -> Tensor:
        return self._scores.block(columns, rows).T


class Columns(Shaped):
    """Some columns of a score matrix.

    Args:
        scores: (Q, N).
        chosen: which columns, ascending.
    """

    def __init__(self, scores: Blocks, chosen: npt.NDArray[np.int64]) -> None:
        super().__init__((scores.shape[0], len(chosen)), scores.device)
        self._scores, self._chosen = scores, chosen

    def block(self, rows: range, columns: range) -> Tensor:
        """See Blocks; what is computed at once spans no more columns than requested."""
        wanted = self._chosen[columns.start : columns.stop]
        made, start = [], 0
        while start < len(wanted):
            first = int(wanted[start])
            stop = int(np.searchsorted(wanted, first + len(wanted)))
            block = self._scores.block(rows, range(first, int(wanted[stop - 1]) + 1))
            made.append(block[:, torch.from_numpy(wanted[start:stop] - first).to(block.device)])
            start = stop
        return torch.cat(made, dim=1)


def dense(scores: Blocks, memory_mb: float | None = None) -> Tensor:
    """The whole matrix (Q, N), put together from blocks of at most `memory_mb`."""
    made: Tensor | None = None
    for rows, columns in grid(scores.shape, memory_mb):
        block = scores.block(rows, columns)
        if made is None:
            made = torch.empty(scores.shape, dtype=block.dtype, device=block.device)
        made[rows.start : rows.stop, columns.start : columns.stop] = block
    assert made is not None
    return made


def fits(shape: tuple[int, int], memory_mb: float) -> bool:
    """Whether a whole matrix may be held."""
    return shape[0] * shape[1] * BYTES_PER_ENTRY <= memory_mb * 2**20


def spans(shape: tuple[int, int], memory_mb: float | None) -> tuple[list[range], list[range]]:
    """Rows and columns of the blocks that fit into `memory_mb`: whole rows where LEAST_ROWS of them fit.

    None stands for USUAL_ENTRIES; blocks are no larger than that unless LEAST_ROWS need it.
    """
    entries = USUAL_ENTRIES if memory_mb is None else int(memory_mb * 2**20) // BYTES_PER_ENTRY
    least = max(1, min(LEAST_ROWS, shape[0]))
    width = max(1, min(shape[1], entries // least))
    height = max(least, min(entries, USUAL_ENTRIES) // width)
    return (
        [range(start, min(start + height, shape[0])) for start in range(0, shape[0], height)],
        [range(start, min(start + width, shape[1])) for start in range(0, shape[1], width)],
    )


def grid(shape: tuple[int, int], memory_mb: float | None) -> Iterator[tuple[range, range]]:
    """Rows and columns of all blocks, row after row."""
    rows, columns = spans(shape, memory_mb)
    return ((row, column) for row in rows for column in columns)


def log_sum_exp(scores: Blocks, beta: float, added: Tensor | None = None, memory_mb: float | None = None) -> Tensor:
    """log sum_q exp(beta s_qg + added_q) of every column g, (N,) float64; finite at any beta."""
    sums = torch.full((scores.shape[1],), -torch.inf, dtype=torch.float64, device=scores.device)
    for rows, columns in grid(scores.shape, memory_mb):
        exponents = beta * scores.block(rows, columns).double()
        if added is not None:
            exponents += added[rows.start : rows.stop, None]
        at = slice(columns.start, columns.stop)
        sums[at] = torch.logaddexp(sums[at], exponents.logsumexp(dim=0))
    return sums


def mean_of_highest(scores: Blocks, k: int, memory_mb: float | None = None) -> Tensor:
    """Mean of the k highest scores of every column (of all, where there are fewer), (N,) float64."""
    means = torch.empty(scores.shape[1], dtype=torch.float64, device=scores.device)
    row_spans, column_spans = spans(scores.shape, memory_mb)
    for columns in column_spans:
        best = torch.empty(len(columns), 0, dtype=torch.float64, device=scores.device)
        for rows in row_spans:
            block = scores.block(rows, columns).T  # (columns, rows)
            highest = block.topk(min(k, len(rows)), dim=1).values.double()
            best = torch.cat([best, highest], dim=1)
            best = best.topk(min(k, best.shape[1]), dim=1).values
        means[columns.start : columns.stop] = best.mean(dim=1)
    return means


def highest(scores: Blocks, k: int, memory_mb: float | None = None) -> Iterator[tuple[range, Tensor, Tensor]]:
    """The k highest scores of every row and their columns, best first, equal ones by index, some rows at a time.

    Yields:
        The rows, their scores and the columns of these, both (rows, min(k, N)).
    """
    count = min(k, scores.shape[1])
    row_spans, column_spans = spans(scores.shape, memory_mb)
    for rows in row_spans if count else []:
        values = torch.empty(len(rows), 0, device=scores.device)
        places = torch.empty(len(rows), 0, dtype=torch.int64, device=scores.device)
        for columns in column_spans:
            block = scores.block(rows, columns)
            chosen = _first_highest(block, min(count, len(columns)))
            # What is kept stands before the block, so that of equal scores the smaller column stays first.
            values = torch.cat([values.to(block.dtype), block.gather(1, chosen)], dim=1)
            places = torch.cat([places, chosen + columns.start], dim=1)
            order = values.sort(dim=1, descending=True, stable=True).indices[:, :count]
            values, places = values.gather(1, order), places.gather(1, order)
        yield rows, values, places


def highest_columns(scores: Blocks, k: int, memory_mb: float | None = None) -> Tensor:
    """The k columns that score highest in every row, best first, equal ones by index: (Q, min(k, N)) integers."""
    found = torch.empty(scores.shape[0], min(k, scores.shape[1]), dtype=torch.int64, device=scores.device)
    for rows, _, places in highest(scores, k, memory_mb):
        found[rows.start : rows.stop] = places
    return found


def lowest_and_highest(scores: Blocks, memory_mb: float | None = None) -> tuple[float, float]:
    """The smallest and the largest score of all."""
    extremes = [scores.block(rows, columns).aminmax() for rows, columns in grid(scores.shape, memory_mb)]
    return min(float(low) for low, _ in extremes), max(float(high) for _, high in extremes)


def _device_of(values: Vectors) -> torch.device:
    return values.device if isinstance(values, Tensor) else torch.device("cpu")


def _first_highest(block: Tensor, k: int) -> Tensor:
    """Places of the k highest of every row, by column; of those that equal the k-th the first ones: (rows, k)."""
    if k == 1:
        return block.argmax(dim=1, keepdim=True)  # the first of equals
    least = block.topk(k, dim=1).values[:, -1:]
    higher, equal = block > least, block == least
    room = k - higher.sum(dim=1, keepdim=True)
    kept = higher | (equal & (equal.cumsum(dim=1) <= room))  # k in each row
    return kept.nonzero()[:, 1].view(len(block), k)


def _floats(part: Vectors) -> Tensor:
    """A part of an array or tensor as float32 or float64."""
    # A copy for numpy: torch takes neither read-only arrays nor negative strides.
    block = part.detach() if isinstance(part, Tensor) else torch.from_numpy(np.array(part, order="C"))
    if block.dtype in (torch.float32, torch.float64):
        return block
    return block.float() if block.is_floating_point() else block.double()
