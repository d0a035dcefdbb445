"""What is translated of a file so far: a line a batch, appended, so that a run which was killed goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path

from nrccr.errors import UserError, not_written
from nrccr.files import Lock, open_to_append


class Journal:
    """Batches of one file, by number. A torn last line is dropped; a journal of other work begins anew.

    Args:
        path: of the journal.
        fingerprint: of the work: its texts, its translator, its batches.

    Raises:
        UserError: another run writes it, or it is no regular file.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path = path
        self.done: dict[int, list[str]] = {}
        self._lock = Lock()
        if not self._lock.take(path):
            raise UserError(f"{path}: another run is translating this file; wait for its end")
        whole = self._read(json.dumps({"fingerprint": fingerprint}))
        self._descriptor = open_to_append(path)
        os.ftruncate(self._descriptor, whole)
        if not whole:
            self._append({"fingerprint": fingerprint})

    def add(self, number: int, texts: list[str]) -> None:
        """Keep the translations of a batch."""
        self._append([number, texts])
        self.done[number] = texts

    def close(self, *, remove: bool = False) -> None:
        """Let others have it; `remove` it when its file is written."""
        os.close(self._descriptor)
        if remove:
            self.path.unlink(missing_ok=True)
        self._lock.release()

    def _append(self, value: object) -> None:
        data = (json.dumps(value, ensure_ascii=True) + "\n").encode()
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            raise not_written(self.path, error) from error

    def _read(self, first: str) -> int:
        """Read the whole lines; gives how many bytes they are, none where the work was another."""
        lines = self.path.read_bytes().splitlines(keepends=True)
        if not lines or lines[0] != f"{first}\n".encode():
            return 0
        whole = len(lines[0])
        for line in lines[1:]:
            batch = _batch(line)
            if batch is None:
                break
            self.done[batch[0]] = batch[1]
            whole += len(line)
        return whole


def _batch(line: bytes) -> tuple[int, list[str]] | None:
    """Number and texts of a line; none where it is torn or damaged."""
    try:
        number, texts = json.loads(line) if line.endswith(b"\n") else (None, None)
    except (ValueError, TypeError, RecursionError):
        return None
    if type(number) is int and isinstance(texts, list) and all(isinstance(text, str) for text in texts):
        return number, texts
    return None
