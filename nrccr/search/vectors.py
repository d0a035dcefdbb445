"""Vectors under whole numbers as keys, ranked by inner product: faiss, exact, IVF-PQ or HNSW.

N vectors of an index, Q queries, D dimensions, K results.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from nrccr.errors import UserError, first_line
from nrccr.extras import need
from nrccr.search.faissfile import require_exact, require_hnsw, require_ivfpq
from nrccr.sizes import SizeError, require_faiss

Kind: TypeAlias = Literal["exact", "ivfpq", "hnsw"]
Floats: TypeAlias = npt.NDArray[np.float32]
Keys: TypeAlias = npt.NDArray[np.int64]

KINDS: tuple[Kind, ...] = get_args(Kind)
LEAST_TRAINING = 39 * 256  # vectors that faiss wants for the 256 centres of a code's byte
MOST_TRAINING = 256 * 256  # more change little
MARKS = {"exact": b"IxM2", "ivfpq": b"IwPQ", "hnsw": b"IHNf"}  # a file's first four bytes


@dataclass(frozen=True)
class Shape:
    """How vectors are kept.

    Attributes:
        kind: exact; ivfpq, inverted lists of product-quantised codes, small; hnsw, a graph, fast and large.
        lists: of ivfpq, 0 for 4 sqrt(N).
        code_bytes: of ivfpq, a vector's size.
        links: of hnsw, neighbours of a vector.
        effort: of hnsw, candidates while it is built.
    """

    kind: Kind = "exact"
    lists: int = 0
    code_bytes: int = 32
    links: int = 16
    effort: int = 80

    def record(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return asdict(self)


class Vectors:
    """An index in memory that is built, or a mapped one that is searched."""

    def __init__(self, index: Any, shape: Shape) -> None:
        self._index, self._shape = index, shape

    @classmethod
    def build(cls, vectors: Floats, keys: Keys, shape: Shape) -> Vectors:
        """An index of vectors (N, D) under their keys (N,); those of hnsw must be 0 to N - 1.

        Raises:
            UserError: too few vectors for ivfpq.
        """
        faiss = need("faiss", "search")
        width = vectors.shape[1]
        if shape.kind == "exact":
            index = faiss.IndexIDMap2(faiss.IndexFlatIP(width))
        elif shape.kind == "hnsw":
            index = faiss.IndexHNSWFlat(width, shape.links, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = shape.effort
        else:
            lists = shape.lists or int(4 * math.sqrt(len(vectors)))
            least = max(LEAST_TRAINING, 39 * lists)
            if len(vectors) < least:
                raise UserError(
                    f"{len(vectors)} items are too few for --kind ivfpq with {lists} lists, which learns from {least}; "
                    "take exact, which is fast at this size"
                )
            index = faiss.IndexIVFPQ(
                faiss.IndexFlatIP(width), width, lists, shape.code_bytes, 8, faiss.METRIC_INNER_PRODUCT
            )
            most = max(MOST_TRAINING, least)
            chosen = np.random.default_rng(0).permutation(len(vectors))[:most]
            index.train(np.ascontiguousarray(vectors[np.sort(chosen)]))
        made = cls(index, shape)
        made.add(vectors, keys)
        return made

    @property
    def count(self) -> int:
        """N, vectors that were removed from a graph included."""
        return int(self._index.ntotal)

    def add(self, vectors: Floats, keys: Keys) -> None:
        """Add vectors (n, D); those of hnsw must have the next keys."""
        if self._shape.kind == "hnsw":
            assert np.array_equal(keys, np.arange(self.count, self.count + len(keys)))
            self._index.add(vectors)
        else:
            self._index.add_with_ids(vectors, keys)

    def remove(self, keys: Keys) -> None:
        """Remove vectors. A graph cannot lose any: give `search` the keys that are gone."""
        if self._shape.kind != "hnsw":
            self._index.remove_ids(keys)

    def search(self, queries: Floats, count: int, gone: Keys, effort: int | None = None) -> tuple[Floats, Keys]:
        """The best vectors of queries (Q, D): scores and keys (Q, K), best first, key -1 where there are no more.

        Args:
            queries: rows.
            count: K.
            gone: keys that a graph no longer has.
            effort: lists that are looked into (ivfpq, default 32), or candidates (hnsw, default 128).
        """
        faiss = need("faiss", "search")
        parameters = None
        if self._shape.kind == "ivfpq":
            parameters = faiss.SearchParametersIVF(nprobe=min(effort or 32, self._index.nlist))
        elif self._shape.kind == "hnsw":
            options: dict[str, Any] = {"efSearch": max(effort or 128, count)}
            if len(gone):
                options["sel"] = faiss.IDSelectorNot(faiss.IDSelectorBatch(gone))
            parameters = faiss.SearchParametersHNSW(**options)
        scores, keys = self._index.search(np.ascontiguousarray(queries), count, params=parameters)
        return scores, keys

    def write(self, path: Path) -> None:
        """Write it, not whole or not at all: into a folder that appears so.

        Raises:
            OSError: the disk is full; faiss itself does not say so of the last bytes of a file.
        """
        faiss = need("faiss", "search")
        with path.open("wb") as file:
            faiss.write_index(self._index, faiss.PyCallbackIOWriter(file.write))


def read_vectors(path: Path, shape: Shape, width: int, count: int, *, mapped: bool) -> Vectors:
    """Read an index, mapped into memory where it is only searched.

    Args:
        path: the file.
        shape: what it should hold.
        width: D.
        count: N.
        mapped: leave the vectors on disk; then it cannot be changed.

    Raises:
        UserError: no such file, a damaged one, or another index.
    """
    faiss = need("faiss", "search")
    # Only the second flag maps Flat and HNSW, only the first inverted lists.
    flag = 0 if not mapped else faiss.IO_FLAG_MMAP if shape.kind == "ivfpq" else faiss.IO_FLAG_MMAP_IFC
    least = 4 * width if shape.kind != "ivfpq" else shape.code_bytes
    try:
        require_faiss(path, MARKS[shape.kind], (count, width), least)
        if shape.kind == "exact":
            require_exact(path, count, width)
        elif shape.kind == "hnsw":
            require_hnsw(path, count, width)
        else:
            require_ivfpq(path, count, width, shape.code_bytes)
        index = faiss.read_index(str(path), flag)
    except (SizeError, RuntimeError) as error:
        raise UserError(f"{path}: damaged ({first_line(error)}); build the index again") from error
    if index.ntotal != count or index.d != width:
        raise UserError(f"{path}: not the vectors that items.sqlite describes; build the index again")
    return Vectors(index, shape)
