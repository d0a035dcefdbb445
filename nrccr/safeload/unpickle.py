"""The one door for foreign files: plain data and tensors come in, code never does.

Checkpoints pass torch's weights-only unpickler, which calls nothing but a short list of functions. What published files
hold beyond tensors (argparse.Namespace, numpy numbers, paths) is built by the harmless stand-ins of `standins`, under
the names in the file; any other class or function is refused. There is no way to switch this off. Pickled records
and arrays, which are no checkpoints, pass Python's unpickler with a table of a few stand-ins for all that it may call.
Before any of them unpickles, `scan` reads what the file would do, and `limits` compares declared sizes with the file.
"""

from __future__ import annotations

import pickle
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.serialization import add_safe_globals, clear_safe_globals, get_safe_globals

from nrccr.errors import UserError, first_line, not_written, require_content
from nrccr.files import atomic_path, encodable
from nrccr.safeload.before import require_modest, scan_checkpoint, scan_records
from nrccr.safeload.scan import DamagedError, NamedError
from nrccr.safeload.standins import (
    NUMBER,
    RECORD_PARTS,
    Call,
    Dtype,
    Namespace,
    Ndarray,
    foreign_path,
    no_bytes,
    scalar,
    unshaped,
)
from nrccr.sizes import SizeError, require_npy, require_npz, require_safetensors

_PLAIN = (type(None), bool, int, float, complex, str, bytes, bytearray, torch.dtype, torch.device, torch.Size)
_LOCK = threading.Lock()


# torch.serialization's pairs (what is called, the name the file gives): old and new module names of numpy and pathlib.
_ALLOWED: list[tuple[Callable[..., Any], str]] = [
    (Namespace, "argparse.Namespace"),
    (Namespace, "parse_config.ConfigParser"),
    (foreign_path, "pathlib.PosixPath"),
    (foreign_path, "pathlib._local.PosixPath"),
    (foreign_path, "pathlib.WindowsPath"),
    (foreign_path, "pathlib._local.WindowsPath"),
    (Dtype, "numpy.dtype"),
    (scalar, "numpy.core.multiarray.scalar"),
    (scalar, "numpy._core.multiarray.scalar"),
    (unshaped, "numpy.core.multiarray._reconstruct"),
    (unshaped, "numpy._core.multiarray._reconstruct"),
    (Ndarray, "numpy.ndarray"),  # never filled, it is refused
    (no_bytes, "__builtin__.bytes"),  # of an array without entries
    (no_bytes, "builtins.bytes"),
]


@contextmanager
def _only_allowed() -> Iterator[None]:
    """Let the unpickler see exactly `_ALLOWED`: what other libraries marked as safe is set aside, then put back."""
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of pickle protocols, which does not matter here
        marked = get_safe_globals()
        clear_safe_globals()
        add_safe_globals([*_ALLOWED])
        try:
            yield
        finally:
            clear_safe_globals()
            add_safe_globals(marked)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a torch checkpoint (zip or older format) as plain data and tensors on the CPU; nothing in it is executed.

    argparse.Namespace, C2KD's ConfigParser and OrderedDict come back as dict at any depth, paths as text, numpy numbers
    as Python's, numpy arrays of numbers as read-only arrays, parameters as tensors.

    Args:
        path: The checkpoint, such as a published `model_best.pth.tar`.

    Returns:
        The dict that the file holds (spec section 7 lists a published one's keys).

    Raises:
        UserError: The file is missing, damaged, not a checkpoint, not a dict, or holds any other class or function.
    """
    _require_file(path)
    try:
        scan_checkpoint(path, [name for _, name in _ALLOWED])
        with _only_allowed():
            content = torch.load(path, map_location="cpu", weights_only=True)
        plain = _plain(content, {})
        require_modest(plain, path.stat().st_size)
    except (_RefusedError, NamedError) as error:
        raise UserError(_refusal(path, str(error))) from error
    except Exception as error:  # a damaged pickle can fail in any way at all
        raise UserError(
            f"{path}: cannot be read as a torch checkpoint of plain data and tensors ({_reason(error)}); "
            "it is truncated, damaged or another kind of file: copy or download it again"
        ) from error
    if not isinstance(plain, dict):
        raise UserError(f"{path}: holds a {type(plain).__name__}, not the dict of a checkpoint; give another file")
    return plain


def _reason(error: Exception) -> str:
    """What is wrong: in words where they are ours."""
    return first_line(error) if isinstance(error, SizeError | DamagedError) else type(error).__name__


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
    if isinstance(value, Namespace):
        return _plain(value.options, seen)
    if isinstance(value, Dtype):
        return str(value.real())
    if isinstance(value, Ndarray):
        return value.array
    if isinstance(value, dict):
        pairs: dict[Any, Any] = seen.setdefault(id(value), {})
        pairs.update((_plain(key, seen), _plain(inner, seen)) for key, inner in value.items())
        return pairs
    if isinstance(value, list):
        items: list[Any] = seen.setdefault(id(value), [])
        items.extend(_plain(inner, seen) for inner in value)
        return items
    if isinstance(value, set | frozenset):
        return {_plain(inner, seen) for inner in value}
    if isinstance(value, tuple):
        return seen.setdefault(id(value), tuple(_plain(inner, seen) for inner in value))
    named = value if isinstance(value, type) or callable(value) else type(value)
    raise _RefusedError(f"{getattr(named, '__module__', '?')}.{getattr(named, '__qualname__', named)}")


class _RecordUnpickler(pickle.Unpickler):
    """Finds nothing but the stand-ins: what a pickle can call is what `RECORD_PARTS` holds."""

    def find_class(self, module_name: str, global_name: str) -> Call:
        name = f"{module_name}.{global_name}"
        if name not in RECORD_PARTS:
            raise _RefusedError(name)
        return Call(RECORD_PARTS[name])


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
        scan_records(path)
        with path.open("rb") as file:
            plain = _plain(_RecordUnpickler(file, encoding="latin1").load(), {})
        require_modest(plain, path.stat().st_size)
    except (_RefusedError, NamedError) as error:
        raise UserError(_refusal(path, str(error), "a pickle of arrays and plain data")) from error
    except Exception as error:  # a damaged pickle can fail in any way at all
        raise UserError(
            f"{path}: cannot be read as a pickle of arrays and plain data ({type(error).__name__}: "
            f"{first_line(error)}); it is truncated, damaged or another kind of file: copy or download it again"
        ) from error
    if not isinstance(plain, list) or not plain or not all(isinstance(record, dict) for record in plain):
        raise UserError(f"{path}: holds no list of dicts, one a video; give a published data pickle")
    return plain


def load_array(path: Path) -> npt.NDArray[Any]:
    """Read one array of numbers or booleans: `.npy`, `.npz` or a pickle (any other ending); nothing in it is executed.

    Args:
        path: the file. An `.npz` must hold a single array or one named `scores`.

    Returns:
        The array, shape and type as saved.

    Raises:
        UserError: the file is missing, damaged, or holds anything but such an array.
    """
    _require_file(path)
    try:
        if path.suffix in (".npy", ".npz"):
            found = _numpy_array(path)
        else:
            scan_records(path)
            with path.open("rb") as file:
                made = _RecordUnpickler(file, encoding="latin1").load()
            found = made.array.copy() if isinstance(made, Ndarray) else made
    except UserError:
        raise
    except (_RefusedError, NamedError) as error:
        raise UserError(_refusal(path, str(error), "a file with one numpy array")) from error
    except Exception as error:  # a damaged pickle can fail in any way at all
        raise UserError(
            f"{path}: cannot be read as a numpy array ({first_line(error)}); it is truncated, damaged or another kind "
            "of file: save the array again with numpy.save"
        ) from error
    if not isinstance(found, np.ndarray) or not NUMBER.fullmatch(found.dtype.str[1:]):
        kind = f"an array of {found.dtype}" if isinstance(found, np.ndarray) else f"a {type(found).__name__}"
        raise UserError(f"{path}: holds {kind}, not an array of numbers; save the array itself with numpy.save")
    return found.astype(found.dtype.newbyteorder("="), copy=False)  # torch takes no other order of bytes


def _numpy_array(path: Path) -> Any:
    (require_npz if zipfile.is_zipfile(path) else require_npy)(path)
    opened = np.load(path, allow_pickle=False)
    if isinstance(opened, np.ndarray):
        return opened
    with opened as arrays:
        names = arrays.files
        if len(names) != 1 and "scores" not in names:
            raise UserError(f"{path}: holds the arrays {', '.join(names)}; keep one, or name it scores")
        return arrays["scores" if "scores" in names else names[0]]


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
        require_safetensors(path)
        with encodable(str(path)) as readable:
            state: dict[str, Tensor] = load_file(readable, device="cpu")
    except Exception as error:  # safetensors raises its own type for damage, others for types torch does not know
        raise UserError(
            f"{path}: cannot be read as safetensors weights ({_reason(error)}); "
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
        with atomic_path(path) as temporary, encodable(str(temporary.parent)) as folder:
            save_file(copies, Path(folder) / temporary.name)
    except (OSError, SafetensorError) as error:
        raise not_written(path, error) from error


def _require_file(path: Path) -> None:
    if not path.exists():
        raise UserError(f"{path}: no such file; check the path")
    if not path.is_file():
        raise UserError(f"{path}: not a file; name the checkpoint file itself")
    require_content(path)
