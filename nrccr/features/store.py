"""Vectors that are computed one item after the other, kept as they come, and put together at the end.

Beside the folder that is to be made lies `<name>.partial`. Every process that computes writes two files of its own
there: `<random>.bin`, vectors one after the other, and `<random>.jsonl`, a line an item once its vectors are on disk. A
process that is killed leaves both as they are; what its complete lines say is not computed again, by whichever process
comes next. Several may work at the same time.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nrccr.data.bigfile import write_bigfile
from nrccr.data.matrix import FLOAT_BYTES
from nrccr.errors import UserError
from nrccr.files import atomic_folder, make_parents, read_json, refuse_links, remove_empty, write_json

FINGERPRINT = "fingerprint.json"
Vectors = npt.NDArray[np.float32]
Stamp = list[int]


@dataclass(frozen=True)
class Part:
    """One item's vectors in a file of vectors, or why it has none.

    Attributes:
        file: the file.
        start: first byte.
        shape: frames and width.
        stamp: the source as it was when they were computed.
        failed: why there are none.
    """

    file: Path
    start: int
    shape: tuple[int, int]
    stamp: Stamp
    failed: str = ""

    def read(self) -> Vectors:
        """The vectors (frames, width)."""
        frames, width = self.shape
        values = np.fromfile(self.file, dtype="<f4", count=frames * width, offset=self.start)
        return values.reshape(frames, width)


class Store:
    """The vectors of a feature folder that is being made.

    Args:
        folder: the feature folder.
        fingerprint: what the vectors follow from, beside the sources; written into the folder.

    Raises:
        UserError: vectors of another fingerprint lie there, or a link.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any]) -> None:
        self.folder = folder
        self.partial = folder.with_name(f"{folder.name}.partial")
        self.fingerprint = json.loads(json.dumps(fingerprint))
        self._name = secrets.token_hex(8)
        self._written = 0
        refuse_links(folder.parent, [self.partial.name])
        self._made = make_parents(self.partial)
        self.partial.mkdir(exist_ok=True)
        self._require_same()

    def _require_same(self) -> None:
        path = self.partial / FINGERPRINT
        if not path.exists():
            write_json(path, self.fingerprint)
            return
        found = read_json(path, f"remove {self.partial}")
        other = sorted(key for key in {*found, *self.fingerprint} if found.get(key) != self.fingerprint.get(key))
        if other:
            raise UserError(
                f"{self.partial}: begun with other options ({', '.join(other)} differ); give the same, or remove it"
            )

    def parts(self) -> dict[str, Part]:
        """All items that any process has finished; of two entries the later one."""
        found: dict[str, Part] = {}
        for lines in sorted(self.partial.glob("*.jsonl"), key=lambda path: (path.stat().st_mtime_ns, path.name)):
            found |= _entries(lines)
        return found

    def add(self, items: Sequence[tuple[str, Stamp, Vectors | str]]) -> None:
        """Keep items with their vectors, or with why they have none; on disk when this returns."""
        data, lines = self.partial / f"{self._name}.bin", self.partial / f"{self._name}.jsonl"
        told = []
        with data.open("ab") as file:
            for item, stamp, vectors in items:
                entry: dict[str, Any] = {"id": item, "stamp": stamp}
                if isinstance(vectors, str):
                    entry["failed"] = vectors
                else:
                    values = np.ascontiguousarray(vectors, dtype="<f4")
                    entry |= {"start": self._written, "shape": list(values.shape)}
                    file.write(values.tobytes())
                    self._written += values.nbytes
                told.append(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with lines.open("a", encoding="utf-8") as file:
            file.write("".join(told))
            file.flush()
            os.fsync(file.fileno())

    def give_up(self) -> None:
        """Remove what this process kept, and the folder if that was all."""
        for ending in (".bin", ".jsonl"):
            (self.partial / f"{self._name}{ending}").unlink(missing_ok=True)
        if not any(self.partial.glob("*.jsonl")):
            self.remove()

    def remove(self) -> None:
        """Remove what all processes kept."""
        shutil.rmtree(self.partial, ignore_errors=True)
        remove_empty(self._made)

    def finish(self, items: Iterable[str], others: Mapping[str, bytes] | None = None) -> None:
        """Make the feature folder of these items, in this order, and remove what was kept.

        Raises:
            FileExistsError: another process was faster.
            UserError: an item cannot be written.
        """
        parts = self.parts()
        vectors: Iterator[tuple[str, Vectors]] = ((item, parts[item].read()) for item in items)
        write_bigfile(self.folder, vectors, {FINGERPRINT: self._told(), **(others or {})})
        self.remove()

    def finish_flat(self, items: Iterable[str], name: str) -> None:
        """Make a folder of one file of these items' vectors, one after the other, and remove what was kept.

        Raises:
            FileExistsError: another process was faster.
        """
        parts = self.parts()
        with atomic_folder(self.folder, replace=False) as temporary:
            with (temporary / name).open("wb") as file:
                for item in items:
                    file.write(parts[item].read().tobytes())
                file.flush()
                os.fsync(file.fileno())
            (temporary / FINGERPRINT).write_bytes(self._told())
        self.remove()

    def _told(self) -> bytes:
        return (json.dumps(self.fingerprint, indent=2, ensure_ascii=False) + "\n").encode()


def _entries(lines: Path) -> dict[str, Part]:
    """What a process has finished; a line that a kill cut short, and vectors that are not on disk, are left out."""
    data = lines.with_suffix(".bin")
    size = data.stat().st_size if data.exists() else 0
    found: dict[str, Part] = {}
    for line in lines.read_bytes().split(b"\n")[:-1]:
        try:
            entry = json.loads(line)
            start, (frames, width) = int(entry.get("start", 0)), map(int, entry.get("shape", (0, 0)))
            part = Part(data, start, (frames, width), list(entry["stamp"]), str(entry.get("failed", "")))
            item = str(entry["id"])
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            continue
        kept = min(start, frames - 1, width - 1) >= 0 and start + frames * width * FLOAT_BYTES <= size
        if kept or part.failed:
            found[item] = part
    return found
