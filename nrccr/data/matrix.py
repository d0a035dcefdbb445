"""A matrix of float32 in a file, mapped: opening costs nothing, and what is read is copied once.

N rows, D columns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nrccr.errors import UserError
from nrccr.sizes import require_regular

FLOAT_BYTES = 4
Rows = npt.NDArray[np.int64]
Values = npt.NDArray[np.float32]


class Matrix:
    """A mapped matrix. A pickled instance carries no data: a worker maps the file anew.

    Args:
        path: of N x D numbers, row-major.
        shape: N and D.
        source: where the shape comes from, for messages.
        advice: what to do about a damaged file, for messages.

    Raises:
        UserError: there is no such file, it cannot be read, or has another length.
    """

    def __init__(self, path: Path, shape: tuple[int, int], *, source: str, advice: str) -> None:
        self.path = path
        self.shape = shape
        self.source = source
        self.advice = advice
        self._values = self._map()

    def take(self, rows: Rows, into: Values | None = None) -> Values:
        """Rows (..., D) of the matrix. Where the file was cut since it was mapped, the system would kill the process.

        Raises:
            UserError: it was.
        """
        found, expected = self._mapped.size(), self._bytes
        if found < expected:
            raise UserError(f"{self.path}: truncated while it is read, {found} bytes, not {expected}; {self.advice}")
        if into is None:
            return self._values[rows]
        return self._values.take(rows, axis=0, out=into, mode="clip")  # with "raise" numpy would fill a copy first

    @property
    def _bytes(self) -> int:
        return self.shape[0] * self.shape[1] * FLOAT_BYTES

    def _map(self) -> Values:
        try:
            require_regular(self.path)
            found = self.path.stat().st_size
            if found != self._bytes:
                raise UserError(
                    f"{self.path}: {'truncated' if found < self._bytes else 'too long'}, {found} bytes, not "
                    f"{self._bytes} ({self.shape[0]} x {self.shape[1]} float32{self.source}); {self.advice}"
                )
            mapped = np.memmap(self.path, dtype="<f4", mode="r", shape=self.shape)
        except FileNotFoundError:
            raise UserError(f"{self.path}: no such file; {self.advice}") from None
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be read ({error.strerror or error}); check the file and its permissions"
            ) from error
        self._mapped: Any = mapped.base  # Python's mmap, which knows the file's size of today
        return np.asarray(mapped)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the mapped matrix."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_values", "_mapped")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Map the matrix again."""
        self.__dict__.update(state)
        self._values = self._map()
