"""What is looked at before a file is unpickled, and right after: nothing of it takes more than its size allows."""

from __future__ import annotations

import mmap
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nrccr.files import encodable
from nrccr.safeload.scan import DamagedError, Rules, Scan
from nrccr.safeload.standins import RECORD_PARTS
from nrccr.sizes import SizeError, require_shape, zip_sizes

# Of what torch's own unpickler allows, only what holds dense tensors and plain data.
_REBUILDS = ("tensor", "tensor_v2", "tensor_v3", "parameter")
TORCH_NAMES = frozenset(
    [
        *(f"collections.{name}" for name in ("OrderedDict", "Counter")),
        *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("set", "complex")),
        *(f"torch._utils._rebuild_{name}" for name in _REBUILDS),
        *("torch.nn.parameter.Parameter", "torch.Size", "torch.device", "_codecs.encode"),
        *(str(value) for value in vars(torch).values() if isinstance(value, torch.dtype)),
        *(f"{kind.__module__}.{kind.__name__}" for kind in torch._storage_classes if "cuda" not in kind.__module__),
    ]
)


def scan_checkpoint(path: Path, standins: Collection[str]) -> None:
    """Read what a checkpoint's pickles would do, and compare the sizes of its storages with the file.

    Args:
        path: a torch checkpoint, zip or older format.
        standins: what it may name besides torch's classes of dense tensors and plain data.

    Raises:
        DamagedError, SizeError, NamedError, zipfile.BadZipFile: it must not be unpickled.
    """
    names = TORCH_NAMES.union(standins)
    if not zipfile.is_zipfile(path):
        _scan_older(path, names)
        return
    sizes = zip_sizes(path, compressed=False)
    (pickled,) = (name for name in sizes if name.endswith("/data.pkl") and name.count("/") == 1)
    folder = pickled.partition("/")[0]

    def storage(kind: str, key: str, count: int) -> None:
        if not 0 <= count * _width(kind) <= sizes.get(f"{folder}/data/{key}", 0):
            raise DamagedError(f"storage {key[:20]!r} has {count} entries, more than its part of the file")

    with zipfile.ZipFile(path) as archive:
        data = archive.read(pickled)
    with encodable(str(path)) as name:
        again = torch._C.PyTorchFileReader(name).get_record("data.pkl")
    if again != data:
        raise DamagedError("an archive that reads in two ways")
    Scan(data, Rules(names, storage)).run()


def _scan_older(path: Path, names: frozenset[str]) -> None:
    """As `scan_checkpoint`, of the format before zip: five pickles, then the storages one after the other."""
    with _mapped(path) as data:
        storages: dict[str, int] = {}

        def storage(kind: str, key: str, count: int) -> None:
            storages[key] = max(storages.get(key, 0), count * _width(kind))
            if count < 0 or storages[key] > len(data):
                raise DamagedError(f"storage {key[:20]!r} has {count} entries, more than the file")

        at = 0
        for _ in range(5):  # magic number, version, sizes of the system's numbers, the content, the storages' keys
            scan = Scan(data, Rules(names, storage), at)
            scan.run()
            at = scan.at
        if sum(storages.values()) > len(data):
            raise DamagedError("the storages are larger than the file")


def _width(kind: str) -> int:
    """Bytes of an entry of a storage, by the name of its class."""
    name = kind.rpartition(".")[2]
    return 1 if name == "UntypedStorage" else int(torch.serialization.StorageType(name).dtype.itemsize)  # type: ignore[no-untyped-call]


def scan_records(path: Path) -> None:
    """Read what a pickle of records or arrays would do.

    Raises:
        DamagedError, NamedError: it must not be unpickled.
    """
    with _mapped(path) as data:
        Scan(data, Rules(RECORD_PARTS.keys())).run()


@contextmanager
def _mapped(path: Path) -> Iterator[bytes | mmap.mmap]:
    """A file's bytes, of which only those that are looked at are read."""
    if path.stat().st_size == 0:
        yield b""
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def require_modest(value: Any, size: int) -> None:
    """Refuse what a walk over a small file's content would not end: loops, and values that hold each other 2**60 times.

    Args:
        value: plain data, tensors and arrays. A tensor lies in its storage once, an empty one has moderate sizes.
        size: of the file, in bytes.

    Raises:
        SizeError: it is not what a file of this size holds.
    """
    counts: dict[int, int] = {}
    most = 8 * size + 10_000

    def count(inner: Any) -> int:
        if isinstance(inner, Tensor):
            require_shape(inner.shape, size)
            if inner.numel() * inner.element_size() > inner.untyped_storage().nbytes():
                raise SizeError(f"a tensor of shape {tuple(inner.shape)} repeats its entries")
            return 1
        if isinstance(inner, np.ndarray):  # lies in the file's bytes, but for the shape of an empty one
            require_shape(inner.shape, size)
        if not isinstance(inner, dict | list | tuple):
            return 1
        found = counts.get(id(inner))
        if found is None:
            counts[id(inner)] = -1
            parts = inner.values() if isinstance(inner, dict) else inner
            found = counts[id(inner)] = 1 + sum(count(part) for part in parts)
        if found < 0 or found > most:
            raise SizeError("values that hold themselves" if found < 0 else "values that hold each other over and over")
        return found

    count(value)
