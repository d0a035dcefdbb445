"""One folder put in the place of another in one step, which Python does not offer."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_HERE = -100  # AT_FDCWD of Linux: relative paths count from the working directory
_SWAP = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS


def put_in_place(new: Path, path: Path, aside: Path) -> None:
    """Rename a folder to `path`; one that is there already is then at `new` or, where it cannot be swapped, `aside`."""
    if not path.exists():
        os.rename(new, path)
        return
    if exchange(new, path):
        return
    os.rename(path, aside)
    try:
        os.rename(new, path)
    except OSError:
        os.rename(aside, path)
        raise


def exchange(one: Path, other: Path) -> bool:
    """Swap two folders of one file system, so that a kill leaves the one or the other at each name.

    Returns:
        whether it was done; False where the system or the file system cannot.
    """
    names = os.fsencode(one), os.fsencode(other)
    try:
        library = ctypes.CDLL(None)
        if sys.platform == "linux":
            return bool(library.renameat2(_HERE, names[0], _HERE, names[1], ctypes.c_uint(_SWAP)) == 0)
        if sys.platform == "darwin":
            return bool(library.renamex_np(names[0], names[1], ctypes.c_uint(_SWAP)) == 0)
    except (OSError, AttributeError, TypeError):  # an old C library; TypeError: Windows has no library without a name
        pass
    return False
