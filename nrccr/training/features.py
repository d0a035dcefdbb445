"""Whether the feature files that a run reads are still those it began with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nrccr.errors import UserError

BLOCKS, BLOCK_BYTES = 64, 2**16


def describe_features(places: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Size, time of change and a hash of samples of each feature file.

    Args:
        places: feature folders, or files of vectors; a folder of raw images has no such file.

    Returns:
        for `run.json`, by the file's name and its folder's, which stay when the root is moved.
    """
    files = {place / "feature.bin" if place.is_dir() else place for place in places}
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(file for file in files if file.is_file()):
        stat = path.stat()
        own = {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sample": _sample(path, stat.st_size)}
        found[f"{path.parent.name}/{path.name}"] = own
    return found


def changed_features(was: dict[str, Any], now: dict[str, Any], run: Path) -> list[str]:
    """One line for each file that was written since, but has the same size and samples, as a copy has.

    Raises:
        UserError: another size or other samples.
    """
    notes = []
    for name in was.keys() & now.keys():
        if any(was[name].get(key) != now[name][key] for key in ("bytes", "sample")):
            raise UserError(f"{run}: the features {name} changed since; restore them, or give another --out")
        if was[name].get("mtime_ns") != now[name]["mtime_ns"]:
            notes.append(f"{name} was written since; its size and samples are the same, as those of a copy are")
    return notes


def _sample(path: Path, size: int) -> str:
    """SHA-256 of blocks at equal distances, the first and the last among them; of everything in a small file."""
    digest = hashlib.sha256()
    last = max(size - BLOCK_BYTES, 0)
    with path.open("rb") as file:
        for start in sorted({last * block // (BLOCKS - 1) for block in range(BLOCKS)}):
            file.seek(start)
            digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()
