"""What is known of a file before it is read: that it is regular, and that it has the sizes which it declares."""

from __future__ import annotations

import errno
import json
import math
import stat
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

MAX_DEPTH = 100  # of containers within containers
_UNPACKED = 64 * 2**20  # bytes that a compressed archive may hold in any case,
_RATIO = 20  # and how many times its size above that
_EMPTY = 2**20  # what the other dimensions of an array without entries may multiply to in any case
_MODEL_FILES = (".json", ".txt", ".model", ".bin", ".safetensors")
_HEADER = 100 * 2**20  # the safetensors library's own limit of a header


class SizeError(Exception):
    """A file declares what does not fit its size."""


def require_regular(path: Path) -> None:
    """Make sure that a file, or what a link leads to, is a regular one: a pipe never answers, a device never ends.

    Raises:
        OSError: it is not, or it is missing.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def regular_bytes(path: Path) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: it is none, missing, or cannot be read.
    """
    require_regular(path)
    return path.read_bytes()


def require_model_files(model: str) -> None:
    """Make sure that the files of a model's folder are regular, as transformers opens whatever has a known name.

    Args:
        model: a folder; anything else is a name of a hub, whose files transformers itself has written.

    Raises:
        OSError: one of them is not, or a link that leads nowhere; a path, which no hub has as a name, of no folder.
    """
    folder = Path(model)
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.suffix in _MODEL_FILES or not path.is_dir():
                require_regular(path)
    elif model.startswith(("/", ".", "~")) or model.count("/") > 1:
        raise FileNotFoundError("no such folder")


def require_shape(shape: Sequence[int], available: int) -> None:
    """Refuse dimensions that `available` bytes cannot explain: 0 rows of 30 million columns, too.

    Raises:
        SizeError: they are greater.
    """
    if any(size < 0 for size in shape):
        raise SizeError(f"a negative size in {tuple(shape)}")
    product = math.prod(size for size in shape if size)
    if product > (available if all(shape) else max(_EMPTY, available)):
        raise SizeError(f"shape {tuple(shape)} is larger than the file")


def zip_sizes(path: Path, *, compressed: bool) -> dict[str, int]:
    """The members of a zip archive and how many bytes each unpacks to.

    Raises:
        SizeError: members that overlap, are encrypted, or unpack to more than the archive's size allows.
        zipfile.BadZipFile: no zip archive, or a damaged one.
    """
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (NotImplementedError, OSError, ValueError, struct.error) as error:
        # Of another version, with places before its beginning, or with names that are no UTF-8 where it says they are.
        raise SizeError(f"no archive that can be read ({type(error).__name__})") from error
    if len({member.filename for member in members}) != len(members):
        raise SizeError("the archive holds a member twice")
    if sum(member.compress_size for member in members) > size:
        raise SizeError("the archive's members are larger than the archive")
    for member in members:
        stored = member.compress_type == zipfile.ZIP_STORED
        if member.flag_bits & 1 or not (stored or (compressed and member.compress_type == zipfile.ZIP_DEFLATED)):
            raise SizeError(f"member {member.filename[:80]!r} is encrypted or compressed")
        if stored and member.file_size != member.compress_size:
            raise SizeError(f"member {member.filename[:80]!r} has two sizes")
    if sum(member.file_size for member in members) > max(_UNPACKED, _RATIO * size):
        raise SizeError("the archive unpacks to far more than its size")
    return {member.filename: member.file_size for member in members}


def require_array(file: IO[bytes], size: int) -> None:
    """Compare an array in numpy's format with its file.

    Args:
        file: at its beginning.
        size: of the file or of the archive's member, in bytes.

    Raises:
        SizeError: a header that numpy cannot read, or an array that is larger than the file.
    """
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    except Exception as error:  # the header is a Python literal, which can be damaged in any way at all
        raise SizeError("no header of an array") from error
    left = size - file.tell()
    if not all(type(length) is int for length in shape):
        raise SizeError(f"shape {tuple(shape)} is none")
    require_shape(shape, left)
    if math.prod(shape) * dtype.itemsize > left:
        raise SizeError(f"{tuple(shape)} of {dtype} needs more bytes than the {left} that are there")


def require_npy(path: Path) -> None:
    """Make sure that a `.npy` file holds what its header says.

    Raises:
        OSError: it is no regular file.
        SizeError: it is damaged or cut short.
    """
    require_regular(path)
    with path.open("rb") as file:
        require_array(file, path.stat().st_size)


def require_npz(path: Path) -> None:
    """Make sure that an `.npz` archive unpacks to a moderate size, and its arrays to what they say.

    Raises:
        SizeError: it does not.
        zipfile.BadZipFile: no zip archive, or a damaged one.
    """
    sizes = zip_sizes(path, compressed=True)
    with zipfile.ZipFile(path) as archive:
        for name, size in sizes.items():
            try:
                with archive.open(name) as member:
                    require_array(member, size)
            except (OSError, RuntimeError, ValueError, struct.error) as error:  # places, names, methods, short headers
                raise SizeError(f"member {name[:80]!r} cannot be read") from error


def require_safetensors(path: Path) -> None:
    """Compare the header of a safetensors file with the file.

    Raises:
        SizeError: it is no header, or shapes that the file's size cannot explain.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _HEADER):
            raise SizeError("the header is longer than the file")
        try:
            header: Any = json.loads(file.read(length))
            shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
            for shape in shapes:
                require_shape([int(length) for length in shape], size)
        except SizeError:
            raise
        except Exception as error:  # damaged JSON: recursion, other types
            raise SizeError("no safetensors header") from error


def require_faiss(path: Path, mark: bytes, shape: tuple[int, int], row_bytes: int) -> None:
    """Compare the header of a faiss index with what it should be, and its size with what its vectors need.

    Args:
        path: the file.
        mark: its first four bytes.
        shape: vectors and their dimensions.
        row_bytes: that a vector takes at least.

    Raises:
        SizeError: no regular file, another kind, other sizes, or a file that is cut short.
    """
    if path.is_symlink() or not path.is_file():
        raise SizeError("no regular file")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
    if len(head) < 16 or head[:4] != mark:
        raise SizeError(f"it does not begin with {mark.decode()}")
    width, count = int.from_bytes(head[4:8], "little", signed=True), int.from_bytes(head[8:], "little", signed=True)
    if (count, width) != shape:
        raise SizeError(f"{count} vectors of {width}, not {shape[0]} of {shape[1]}")
    if count * row_bytes > size:
        raise SizeError(f"{size} bytes do not hold {count} vectors of {row_bytes} bytes")
