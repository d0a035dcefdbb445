"""Lazy score matrices: they are asked for block by block.

A block is put together from tiles of one fixed shape, cut from the same grid however large the block is, and padded at
the edges. So a score is computed by the same instructions in every block, and comes out the same to the last bit: a
matrix product of another shape may round otherwise. Sums over rows go tile by tile for the same reason.

Q rows (queries), N columns (items), D joint-space width, T = TILE.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

TILE = 512  # rows and columns: large enough for a fast product, small enough to lose little at the edges
BYTES_PER_ENTRY = 32  # of a block at work: scores, their float64 form, comparisons

Vectors: TypeAlias = npt.NDArray[Any] | Tensor


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
        """Scores (len(rows), len(columns)); both start at a multiple of TILE. Not to be changed."""


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
        block = torch.empty(len(rows), len(columns), device=self.device)
        texts = [(row, self._tile(self._texts, row)) for row in tiles(rows)]
        for column in tiles(columns):
            items = self._tile(self._items, column)  # (T, D)
            for row, text in texts:
                score = text @ items.T  # (T, T)
                at = slice(row.start - rows.start, row.stop - rows.start)
                block[at, column.start - columns.start : column.stop - columns.start] = score[: len(row), : len(column)]
        return block

    def _tile(self, vectors: Vectors, rows: range) -> Tensor:
        """T of the vectors, zeros after the last, in fresh memory."""
        tile = torch.zeros(TILE, int(vectors.shape[1]), device=self.device)
        tile[: len(rows)] = _floats(vectors[rows.start : rows.stop]).to(self.device)
        return tile


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
        """See Blocks; only tiles that hold a chosen column are computed."""
        wanted = self._chosen[columns.start : columns.stop]
        made = []
        for tile in sorted(set((wanted // TILE).tolist())):
            held = wanted[wanted // TILE == tile] - tile * TILE
            block = self._scores.block(rows, range(tile * TILE, min((tile + 1) * TILE, self._scores.shape[1])))
            made.append(block[:, torch.from_numpy(held).to(block.device)])
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


def tiles(span: range) -> list[range]:
    """A span cut at every TILE."""
    return [range(start, min(start + TILE, span.stop)) for start in range(span.start, span.stop, TILE)]


def spans(shape: tuple[int, int], memory_mb: float | None) -> tuple[list[range], list[range]]:
    """Rows and columns of the blocks that fit into `memory_mb`: whole rows where a tile of them fits; at least a tile.

    None stands for a few tiles; blocks are no larger than that unless whole rows need it, for larger ones are slower.
    """
    usual = 8 * TILE * TILE
    entries = usual if memory_mb is None else int(memory_mb * 2**20) // BYTES_PER_ENTRY
    width = max(1, min(-(-shape[1] // TILE), entries // (TILE * TILE))) * TILE
    height = max(1, min(entries, usual) // (width * TILE)) * TILE
    return (
        [range(start, min(start + height, shape[0])) for start in range(0, shape[0], height)],
        [range(start, min(start + width, shape[1])) for start in range(0, shape[1], width)],
    )


def grid(shape: tuple[int, int], memory_mb: float | None) -> Iterator[tuple[range, range]]:
    """Rows and columns of all blocks, row after row."""
    rows, columns = spans(shape, memory_mb)
    return ((row, column) for row in rows for column in columns)


def column_tiles(scores: Blocks) -> Iterator[tuple[range, Iterator[tuple[range, Tensor]]]]:
    """For every tile of columns: its columns, and all tiles below one another as (rows, (T, T) float64).

    Tiles are padded with -inf at the edges, so that every sum has the same shape.
    """
    for columns in tiles(range(scores.shape[1])):
        yield columns, ((rows, _padded(scores.block(rows, columns))) for rows in tiles(range(scores.shape[0])))


def log_sum_exp(scores: Blocks, beta: float, added: Tensor | None = None) -> Tensor:
    """log sum_q exp(beta s_qg + added_q) of every column g, (N,) float64; finite at any beta."""
    sums = torch.empty(scores.shape[1], dtype=torch.float64, device=scores.device)
    for columns, below in column_tiles(scores):
        highest = torch.full((TILE,), -torch.inf, dtype=torch.float64, device=scores.device)
        total = torch.zeros_like(highest)
        for rows, tile in below:
            exponents = beta * tile  # (T, T)
            if added is not None:
                exponents[: len(rows)] += added[rows.start : rows.stop, None]
            new = torch.maximum(highest, exponents.amax(dim=0))
            safe = new.masked_fill(new == -torch.inf, 0.0)  # columns of padding
            total = total * (highest - safe).exp() + (exponents - safe).exp().sum(dim=0)
            highest = new
        sums[columns.start : columns.stop] = (highest + total.log())[: len(columns)]
    return sums


def mean_of_highest(scores: Blocks, k: int) -> Tensor:
    """Mean of the k highest scores of every column (of all, where there are fewer), (N,) float64."""
    count = min(k, scores.shape[0])
    means = torch.empty(scores.shape[1], dtype=torch.float64, device=scores.device)
    for columns, below in column_tiles(scores):
        best = torch.full((count, TILE), -torch.inf, dtype=torch.float64, device=scores.device)
        for _, tile in below:
            best = torch.cat([best, tile]).topk(count, dim=0).values  # (k, T), highest first
        means[columns.start : columns.stop] = best.mean(dim=0)[: len(columns)]
    return means


def highest_columns(scores: Blocks, k: int, memory_mb: float | None = None) -> Tensor:
    """The k columns that score highest in every row, best first, equal ones by index: (Q, min(k, N)) integers."""
    count = min(k, scores.shape[1])
    found = torch.empty(scores.shape[0], count, dtype=torch.int64, device=scores.device)
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


def in_tiles(function: Callable[[Tensor], Tensor], block: Tensor) -> Tensor:
    """An elementwise function of a block (float64), to the same last bit in every block.

    Vectorised logarithms and exponentials may round otherwise at the end of a row.
    """
    made = torch.empty_like(block)
    height, width = block.shape
    for rows in tiles(range(height)):
        for columns in tiles(range(width)):
            at = (slice(rows.start, rows.stop), slice(columns.start, columns.stop))
            made[at] = function(_padded(block[at]))[: len(rows), : len(columns)]
    return made


def _padded(block: Tensor) -> Tensor:
    """A block of at most (T, T) as (T, T) float64, -inf where it ends."""
    tile = torch.full((TILE, TILE), -torch.inf, dtype=torch.float64, device=block.device)
    tile[: block.shape[0], : block.shape[1]] = block
    return tile


def _floats(part: Vectors) -> Tensor:
    """A part of an array or tensor as float32 or float64."""
    # A copy for numpy: torch takes neither read-only arrays nor negative strides.
    block = part.detach() if isinstance(part, Tensor) else torch.from_numpy(np.array(part, order="C"))
    if block.dtype in (torch.float32, torch.float64):
        return block
    return block.float() if block.is_floating_point() else block.double()
