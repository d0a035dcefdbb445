"""The layout of a faiss file, checked before faiss reads it: faiss believes its sizes and the links of a graph.

N vectors of D dimensions. A list is its length in eight bytes, and its values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nrccr.sizes import SizeError

HEAD = 4 + 4 + 8 + 16 + 1 + 4  # of an index: name, D, N, two of no use, whether it is trained, metric
INNER_PRODUCT = 0


class _Layout:
    """Goes through a mapped file from its beginning."""

    def __init__(self, path: Path) -> None:
        self._bytes: npt.NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r")
        self._at = 0

    def take(self, count: int, kind: str) -> npt.NDArray[Any]:
        """The next values, not copied."""
        size = count * np.dtype(kind).itemsize
        if not 0 <= size <= len(self._bytes) - self._at:
            raise SizeError(f"{count} values at byte {self._at} are more than the file holds")
        found = np.frombuffer(self._bytes[self._at : self._at + size], dtype=kind)
        self._at += size
        return np.asarray(found)

    def number(self, kind: str = "<u8") -> int:
        """The next number."""
        return int(self.take(1, kind)[0])

    def expect(self, what: str, right: int, kind: str = "<u8") -> None:
        """The next number, which must be this one."""
        found = self.number(kind)
        if found != right:
            raise SizeError(f"{what} is {found}, not {right}")

    def values(self, what: str, kind: str, count: int | None = None) -> npt.NDArray[Any]:
        """The next list, of a known length or any."""
        if count is not None:
            self.expect(f"the length of {what}", count)
            return self.take(count, kind)
        return self.take(self.number(), kind)

    def head(self, name: bytes, count: int, width: int) -> None:
        """The beginning of an index."""
        if bytes(self.take(4, "u1")) != name:
            raise SizeError(f"no {name.decode()} at byte {self._at - 4}")
        self.expect("D", width, "<i4")
        self.expect("N", count, "<i8")
        self.take(16, "u1")
        self.expect("whether it is trained", 1, "u1")
        self.expect("the metric", INNER_PRODUCT, "<i4")

    def flat(self, count: int, width: int) -> None:
        """Vectors as they are."""
        self.head(b"IxFI", count, width)
        self.values("the vectors", "<f4", count * width)

    def end(self) -> None:
        """Nothing more."""
        if self._at != len(self._bytes):
            raise SizeError(f"{len(self._bytes) - self._at} bytes are too many")


def require_exact(path: Path, count: int, width: int) -> None:
    """Check a file of exact vectors under keys.

    Raises:
        SizeError: it is something else.
    """
    layout = _Layout(path)
    layout.head(b"IxM2", count, width)
    layout.flat(count, width)
    layout.values("the keys", "<i8", count)
    layout.end()


def require_ivfpq(path: Path, count: int, width: int, code_bytes: int) -> None:
    """Check a file of inverted lists of codes.

    Raises:
        SizeError: it is something else.
    """
    layout = _Layout(path)
    layout.head(b"IwPQ", count, width)
    lists = layout.number()
    if not lists or code_bytes < 1 or width % code_bytes:
        raise SizeError(f"{lists} lists of codes of {code_bytes} bytes for {width} dimensions")
    layout.number()  # how many are looked into, which a search says
    layout.flat(lists, width)
    layout.expect("the kind of its map", 0, "u1")
    layout.values("its map", "<i8", 0)
    layout.take(1, "u1")  # whether codes are of what a centre leaves
    layout.expect("a code's size", code_bytes)
    layout.expect("D", width)
    layout.expect("the parts of a vector", code_bytes)
    layout.expect("the bits of a part", 8)
    layout.values("the centres of parts", "<f4", 256 * width)
    if bytes(layout.take(4, "u1")) != b"ilar":
        raise SizeError("no inverted lists")
    layout.expect("the number of lists", lists)
    layout.expect("a code's size", code_bytes)
    kind = bytes(layout.take(4, "u1"))
    if kind == b"full":
        sizes = layout.values("the lists' lengths", "<u8", lists)
    elif kind == b"sprs":
        found = layout.values("the lists' lengths", "<u8")
        pairs = found[: len(found) // 2 * 2].reshape(-1, 2)
        if len(found) % 2 or (pairs[:, 0] >= lists).any() or len(np.unique(pairs[:, 0])) != len(pairs):
            raise SizeError("lengths of lists that are not there")
        sizes = pairs[:, 1]
    else:
        raise SizeError("inverted lists of an unknown kind")
    if (sizes > count).any() or int(sizes.sum()) != count:
        raise SizeError(f"the lists do not hold {count} vectors")
    layout.take(count * (code_bytes + 8), "u1")
    layout.end()


def require_hnsw(path: Path, count: int, width: int) -> None:
    """Check a file of a graph, each of its links too.

    Raises:
        SizeError: it is something else, or a link leads out of the graph.
    """
    layout = _Layout(path)
    layout.head(b"IHNf", count, width)
    layout.values("the levels' shares", "<f8")
    ends = layout.values("a vector's links up to a level", "<i4").astype(np.int64)
    levels = layout.values("the vectors' levels", "<i4", count)
    offsets = layout.values("where links begin", "<u8", count + 1)
    links = layout.values("the links", "<i4")
    entry, top = layout.number("<i4"), layout.number("<i4")
    layout.take(3, "<i4")  # efforts, which a search says
    layout.flat(count, width)
    layout.end()
    if len(ends) < 2 or ends[0] != 0 or (np.diff(ends) <= 0).any():
        raise SizeError("the numbers of links are none")
    if (levels < 1).any() or (levels >= len(ends)).any():
        raise SizeError("a vector has a level that is not there")
    if offsets[0] != 0 or offsets[-1] != len(links) or (np.diff(offsets.astype(np.int64)) != ends[levels]).any():
        raise SizeError("links begin where they must not")
    if (links < -1).any() or (links >= count).any():
        raise SizeError("a link leads out of the graph")
    if not count:
        return
    if not 0 <= entry < count or top != levels.max() - 1 or levels[entry] != top + 1:
        raise SizeError("a search would begin where nothing is")
    for level in range(1, top + 1):
        high = np.flatnonzero(levels > level)
        places = offsets[high].astype(np.int64)[:, None] + np.arange(ends[level], ends[level + 1])
        linked = links[places]
        if (levels[linked[linked >= 0]] <= level).any():
            raise SizeError("a link leads to a level that is not there")
