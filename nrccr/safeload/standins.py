"""Harmless stand-ins for the classes and functions that foreign files name: they hold plain data and run nothing.

Used by `nrccr.safeload.unpickle`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

NUMBER = re.compile(r"b1|[iu][1248]|f[248]|c8|c16")


class Namespace:
    """Stands in for argparse.Namespace and C2KD's ConfigParser; becomes a dict once the file is read."""

    options: dict[str, Any]

    def __new__(cls) -> Namespace:  # not __init__, which the unpickler skips
        made = super().__new__(cls)
        made.options = {}
        return made

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.options.update(state)


class Dtype:
    """Stands in for numpy.dtype: only its name and byte order, nothing that can build an object."""

    def __init__(self, name: str, align: bool = False, copy: bool = True) -> None:
        self.name = name
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def real(self) -> np.dtype[Any]:
        if not NUMBER.fullmatch(self.name) or self.order not in ("<", ">", "=", "|"):
            raise ValueError(f"numpy type {self.name!r} is not a number")
        return np.dtype(self.order + self.name)


def scalar(dtype: Dtype, raw: bytes) -> bool | int | float | complex:
    """Stands in for numpy's scalar(): one number out of its bytes, as Python's own type."""
    number: bool | int | float | complex = np.frombuffer(raw, dtype.real(), count=1)[0].item()
    return number


def foreign_path(*parts: str) -> str:
    """Stands in for pathlib's classes: a path is text that nothing opens."""
    return "/".join(part.rstrip("/") if index < len(parts) - 1 else part for index, part in enumerate(parts))


class Ndarray:
    """Stands in for numpy.ndarray in records: made empty, then filled from (version, shape, type, by column, bytes)."""

    array: npt.NDArray[Any]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, by_column, raw = state
        self.array = shaped(raw, dtype, shape, "F" if by_column else "C").array


def shaped(raw: bytes | str, dtype: Dtype, shape: tuple[int, ...], order: Literal["C", "F"]) -> Ndarray:
    """Stands in for numpy's _frombuffer(), which protocol 5 uses."""
    made = Ndarray()
    data = raw.encode("latin1") if isinstance(raw, str) else raw  # Python 2 wrote its bytes as text
    made.array = np.frombuffer(data, dtype.real()).reshape(shape, order=order)
    return made


def unshaped(kind: object, shape: object, typecode: object) -> Ndarray:
    """Stands in for numpy's _reconstruct(): whatever its arguments, an empty array to fill."""
    return Ndarray()


def encoded(text: str, encoding: str) -> bytes:
    """Stands in for _codecs.encode(), by which protocols 0 to 2 write bytes."""
    if encoding != "latin1":
        raise ValueError(f"bytes written as {encoding!r}")
    return text.encode("latin1")


def no_bytes() -> bytes:
    """Stands in for bytes(), by which they write none at all; it takes no size."""
    return b""


class Call:
    """All that a pickle of records gets for a name: it can be called, and neither changed nor taken for a class."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: object) -> None:
        raise ValueError("a state for a function")


RECORD_PARTS: dict[str, Callable[..., Any]] = {
    "numpy.ndarray": unshaped,
    "numpy.dtype": Dtype,
    "_codecs.encode": encoded,
    "__builtin__.bytes": no_bytes,
    "builtins.bytes": no_bytes,
    **{
        f"numpy.{core}.{name}": function
        for core in ("core", "_core")
        for name, function in (
            ("multiarray._reconstruct", unshaped),
            ("multiarray.scalar", scalar),
            ("numeric._frombuffer", shaped),
        )
    },
}
