"""The one door for foreign files: plain data and tensors come in, code never does.

Checkpoints pass torch's weights-only unpickler, which calls nothing but a short list of functions. What published files
hold beyond tensors (argparse.Namespace, numpy numbers, paths) is built by harmless stand-ins defined here, under the
names the file asks for; any other class or function is refused. There is no way to switch this off. Pickled records,
which are no checkpoints, pass Python's unpickler with a table of a few stand-ins for everything that it may call.
"""

from __future__ import annotations

import pickle
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.serialization import add_safe_globals, clear_safe_globals, get_safe_globals

from nrccr.errors import UserError, first_line
from nrccr.files import atomic_path

_NUMBER = re.compile(r"b1|[iu][1248]|f[248]|c8|c16")
_PLAIN = (type(None), bool, int, float, complex, str, bytes, bytearray, torch.dtype, torch.device, torch.Size)
_LOCK = threading.Lock()


class _Namespace:
    """Stands in for argparse.Namespace and C2KD's ConfigParser; becomes a dict once the file is read."""

    options: dict[str, Any]

    def __new__(cls) -> _Namespace:  # not __init__, which the unpickler skips
        made = super().__new__(cls)
        made.options = {}
        return made

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.options.update(state)


class _Dtype:
    """Stands in for numpy.dtype: only its name and byte order, nothing that can build an object."""

    def __init__(self, name: str, align: bool = False, copy: bool = True) -> None:
        self.name = name
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def real(self) -> np.dtype[Any]:
        if not _NUMBER.fullmatch(self.name) or self.order not in ("<", ">", "=", "|"):
            raise ValueError(f"numpy type {self.name!r} is not a number")
        return np.dtype(self.order + self.name)


def _scalar(dtype: _Dtype, raw: bytes) -> bool | int | float | complex:
    """Stands in for numpy's scalar(): one number out of its bytes, as Python's own type."""
    number: bool | int | float | complex = np.frombuffer(raw, dtype.real(), count=1)[0].item()
    return number


def _path(*parts: str) -> str:
    """Stands in for pathlib's classes: a path is text that nothing opens."""
    return "/".join(part.rstrip("/") if index < len(parts) - 1 else part for index, part in enumerate(parts))


# torch.serialization's pairs (what is called, the name the file gives): old and new module names of numpy and pathlib.
_ALLOWED: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_Namespace, "argparse.Namespace"),
    (_Namespace, "parse_config.ConfigParser"),
    (_path, "pathlib.PosixPath"),
    (_path, "pathlib._local.PosixPath"),
    (_path, "pathlib.WindowsPath"),
    (_path, "pathlib._local.WindowsPath"),
    (_Dtype, "numpy.dtype"),
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
]


@contextmanager
def _only_allowed() -> Iterator[None]:
    """Let the unpickler see exactly `_ALLOWED`: what other libraries marked as safe is set aside, then put back."""
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch remarks on pickle protocols; the outcome says all there is to say
        marked = get_safe_globals()
        clear_safe_globals()
        add_safe_globals(_ALLOWED)
        try:
            yield
        finally:
            clear_safe_globals()
            add_safe_globals(marked)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a torch checkpoint (zip or older format) as plain data and tensors on the CPU; nothing in it is executed.

    argparse.Namespace, C2KD's ConfigParser and OrderedDict come back as dict at any depth, paths as text, numpy numbers
    as Python's, parameters as tensors.

    Args:
        path: The checkpoint, such as a published `model_best.pth.tar`.

    Returns:
        The dict that the file holds (spec section 7 lists a published one's keys).

    Raises:
        UserError: The file is missing, damaged, not a checkpoint, not a dict, or holds any other class or function.
    """
    _require_file(path)
    try:
        with _only_allowed():
            content = torch.load(path, map_location="cpu", weights_only=True)
        plain = _plain(content, {})
    except _RefusedError as error:
        raise UserError(_refusal(path, str(error))) from error
    except Exception as error:  # a damaged pickle can fail in any way at all
        name = re.search(r"GLOBAL (\S+)", str(error))
        if name:
            raise UserError(_refusal(path, name[1])) from error
        raise UserError(
            f"{path}: cannot be read as a torch checkpoint of plain data and tensors ({type(error).__name__}); "
            "it is truncated, damaged or another kind of file: copy or download it again"
        ) from error
    if not isinstance(plain, dict):
        raise UserError(f"{path}: holds a {type(plain).__name__}, not the dict of a checkpoint; give another file")
    return plain


class _RefusedError(Exception):
    """Names a class or function that came through as a value."""


def _refusal(path: Path, name: str, instead: str = "a checkpoint of tensors and plain data") -> str:
    return f"{path}: holds {name[:100]!r}, a class or function that could run code, and is refused; use {instead}"


def _plain(value: Any, seen: dict[int, Any]) -> Any:
    """Copy containers into dict, list and tuple, keep tensors and numbers, refuse the rest.

    `seen` maps ids to results, so that a value shared a million times is converted once and a loop ends.
    """
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, _PLAIN):
        return value
    if id(value) in seen:
        return seen[id(value)]
    if isinstance(value, _Namespace):
        return _plain(value.options, seen)
    if isinstance(value, _Dtype):
        return str(value.real())
    if isinstance(value, _Matrix):
        return value.array
    if isinstance(value, dict):
        pairs: dict[Any, Any] = seen.setdefault(id(value), {})
        pairs.update((_plain(key, seen), _plain(inner, seen)) for key, inner in value.items())
        return pairs
    if isinstance(value, list):
        items: list[Any] = seen.setdefault(id(value), [])
        items.extend(_plain(inner, seen) for inner in value)
        return items
    if isinstance(value, set):
        return {_plain(inner, seen) for inner in value}
    if isinstance(value, tuple):
        return seen.setdefault(id(value), tuple(_plain(inner, seen) for inner in value))
    named = value if isinstance(value, type) or callable(value) else type(value)
    raise _RefusedError(f"{getattr(named, '__module__', '?')}.{getattr(named, '__qualname__', named)}")


class _Matrix:
    """Stands in for numpy.ndarray in records: made empty, then filled from (version, shape, type, by column, bytes)."""

    array: npt.NDArray[Any]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, by_column, raw = state
        self.array = _shaped(raw, dtype, shape, "F" if by_column else "C").array


def _shaped(raw: bytes, dtype: _Dtype, shape: tuple[int, ...], order: Literal["C", "F"]) -> _Matrix:
    """Stands in for numpy's _frombuffer(), which protocol 5 uses."""
    made = _Matrix()
    made.array = np.frombuffer(raw, dtype.real()).reshape(shape, order=order)
    return made


def _unshaped(kind: object, shape: object, typecode: object) -> _Matrix:
    """Stands in for numpy's _reconstruct(): whatever it is given, an array to be filled."""
    return _Matrix()


def _encoded(text: str, encoding: str) -> bytes:
    """Stands in for _codecs.encode(), by which protocols 0 to 2 write bytes."""
    if encoding != "latin1":
        raise ValueError(f"bytes written as {encoding!r}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Stands in for bytes(), by which they write none at all; it takes no size."""
    return b""


class _Call:
    """All that a pickle of records gets for a name: it can be called, and neither changed nor taken for a class."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: object) -> None:
        raise ValueError("a state for a function")


_RECORD_PARTS: dict[str, Callable[..., Any]] = {
    "numpy.ndarray": _unshaped,
    "numpy.dtype": _Dtype,
    "_codecs.encode": _encoded,
    "__builtin__.bytes": _no_bytes,
    "builtins.bytes": _no_bytes,
    **{
        f"numpy.{core}.{name}": function
        for core in ("core", "_core")
        for name, function in (
            ("multiarray._reconstruct", _unshaped),
            ("multiarray.scalar", _scalar),
            ("numeric._frombuffer", _shaped),
        )
    },
}


class _RecordUnpickler(pickle.Unpickler):
    """Finds nothing but the stand-ins: what a pickle can call is what `_RECORD_PARTS` holds."""

    def find_class(self, module_name: str, global_name: str) -> _Call:
        name = f"{module_name}.{global_name}"
        if name not in _RECORD_PARTS:
            raise _RefusedError(name)
        return _Call(_RECORD_PARTS[name])


def load_records(path: Path) -> list[dict[str, Any]]:
    """Read a pickled list of dicts, as C2KD publishes its data; nothing in it is executed.

    Args:
        path: the pickle, of any protocol. It is read into memory as a whole.

    Returns:
        The dicts: plain data, and read-only numpy arrays of numbers or booleans.

    Raises:
        UserError: the file is missing, damaged, not a list of dicts, or holds any other class or function.
    """
    _require_file(path)
    try:
        with path.open("rb") as file:
            plain = _plain(_RecordUnpickler(file).load(), {})
    except _RefusedError as error:
        raise UserError(_refusal(path, str(error), "a pickle of arrays and plain data")) from error
    except Exception as error:  # a damaged pickle can fail in any way at all
        raise UserError(
            f"{path}: cannot be read as a pickle of arrays and plain data ({type(error).__name__}: "
            f"{first_line(error)}); it is truncated, damaged or another kind of file: copy or download it again"
        ) from error
    if not isinstance(plain, list) or not plain or not all(isinstance(record, dict) for record in plain):
        raise UserError(f"{path}: holds no list of dicts, one a video; give a published data pickle")
    return plain


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file onto the CPU.

    Args:
        path: A file that `save_weights` wrote.

    Returns:
        Tensors by name, shapes and types as saved.

    Raises:
        UserError: The file is missing, truncated or not safetensors.
    """
    _require_file(path)
    try:
        state: dict[str, Tensor] = load_file(path, device="cpu")
    except Exception as error:  # safetensors raises its own type for damage, others for types torch does not know
        raise UserError(
            f"{path}: cannot be read as safetensors weights ({type(error).__name__}); "
            "it is truncated or damaged: copy it again or train again"
        ) from error
    return state


def save_weights(state: dict[str, Tensor], path: Path) -> None:
    """Write named tensors as safetensors, whole or not at all.

    Args:
        state: Tensors by name, any shapes; tensors that share memory are written once each.
        path: The file to write; folders above it are made.

    Raises:
        UserError: The disk is full or the folder cannot be written.
    """
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in state.items()}
    try:
        with atomic_path(path) as temporary:
            save_file(copies, temporary)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be written ({first_line(error)}); is the disk full?") from error


def _require_file(path: Path) -> None:
    if not path.exists():
        raise UserError(f"{path}: no such file; check the path")
    if not path.is_file():
        raise UserError(f"{path}: not a file; name the checkpoint file itself")
