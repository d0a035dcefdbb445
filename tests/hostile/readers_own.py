"""Parsers of users' own data and films, for the table of `tests/hostile/readers.py`: what each reads, a valid file."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import lru_cache, partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from nrccr.data.exporting import export_table
from nrccr.data.importing import Recipe, import_table
from nrccr.data.own import Own, read_own
from nrccr.data.tables import read_table
from nrccr.errors import UserError
from nrccr.features.films import FilmError, frames_of
from nrccr.features.pictures import pictures_of
from nrccr.features.store import Store
from nrccr.translation.journal import Journal

Entry = tuple[str, Callable[[Path], object], Callable[[], bytes], Callable[[], Mapping[str, bytes]]]

OWN = b"name: mine\nkind: videos\nsource: en\nescapes: true\nfeature: pixels\nsplits: drawn with seed 0\n"
ROWS = [("a", "en", "a man runs", "train"), ("b", "en", "a dog", "test"), ("a", "de", "ein Mann", "train")]
FINGERPRINT = {"model": "pixels"}


def _delimited(delimiter: str) -> bytes:
    lines = [delimiter.join(row) for row in [("item", "language", "text", "split"), *ROWS]]
    return ("\n".join(lines) + "\n").encode()


def _json_lines() -> bytes:
    columns = ("item", "language", "text", "split")
    return b"".join(json.dumps(dict(zip(columns, row, strict=True))).encode() + b"\n" for row in ROWS)


def _parquet() -> bytes:
    import pyarrow
    import pyarrow.parquet

    columns = dict(zip(("item", "language", "text", "split"), map(list, zip(*ROWS, strict=True)), strict=True))
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), out)
    return out.getvalue()


def _read_journal(path: Path) -> object:
    journal = Journal(path, "f")
    journal.close()
    return journal.done


def _read_parts(path: Path) -> object:
    parts = Store(path.parent.parent / "out", FINGERPRINT).parts()
    return {item: part.read() for item, part in parts.items() if not part.failed}


def _begin_store(path: Path) -> object:
    return Store(path.parent.parent / "out", FINGERPRINT).parts()


def _frames(path: Path) -> object:
    return [np.asarray(frame.to_ndarray(format="rgb24")).shape for frame in islice(frames_of(path, Fraction(5)), 50)]


def _animated() -> bytes:
    frames = [Image.new("RGB", (9, 7), (40 * index, 0, 0)) for index in range(4)]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], duration=100)
    return out.getvalue()


@lru_cache
def _film() -> bytes:
    from tests.features.media import film

    with tempfile.TemporaryDirectory() as folder:
        return film(Path(folder) / "a.mp4", frames=12).read_bytes()


def _import(path: Path) -> object:
    return import_table(path, path.parent / "out", Recipe(Own("mine"), translator="x"))


def _nothing() -> Mapping[str, bytes]:
    return {}


def _captions() -> Mapping[str, bytes]:
    return {
        "TextData/minetrain.caption.txt": b"a#enc#0 a\\nman\n",
        "TextData/minetest_de.caption.txt": b"b#zh#0 Hund\n",
    }


def _of_store(without: str) -> Mapping[str, bytes]:
    files = {
        "out.partial/fingerprint.json": json.dumps(FINGERPRINT).encode(),
        "out.partial/aa.bin": bytes(4 * 6),
        "out.partial/aa.jsonl": b'{"id": "a", "stamp": [1, 2], "start": 0, "shape": [2, 3]}\n',
    }
    return {name: content for name, content in files.items() if name != without}


def _store_part(name: str, read: Callable[[Path], object]) -> Entry:
    return name, read, lambda: _of_store("")[name], partial(_of_store, name)


REFUSALS = (UserError, FilmError)
_NEEDS = {"table-parquet": "pyarrow", "film": "av"}  # of extras that may not be installed
_ALL: dict[str, Entry] = {
    "own": ("collection.yaml", lambda path: read_own(path.parent), lambda: OWN, _nothing),
    "own-exported": (
        "collection.yaml",
        lambda path: export_table(path.parent, path.parent / "out.csv", overwrite=True),
        lambda: OWN,
        _captions,
    ),
    "table-csv": ("t.csv", read_table, partial(_delimited, ","), _nothing),
    "table-tsv": ("t.tsv", read_table, partial(_delimited, "\t"), _nothing),
    "table-jsonl": ("t.jsonl", read_table, _json_lines, _nothing),
    "table-parquet": ("t.parquet", read_table, _parquet, _nothing),
    "imported": ("t.csv", _import, partial(_delimited, ","), _nothing),
    "translation-journal": ("j", _read_journal, lambda: b'{"fingerprint": "f"}\n[0, ["a", "b"]]\n', _nothing),
    "extract-parts": _store_part("out.partial/aa.jsonl", _read_parts),
    "extract-fingerprint": _store_part("out.partial/fingerprint.json", _begin_store),
    "film": ("a.mp4", _frames, _film, _nothing),
    "animation": ("a.gif", lambda path: list(islice(pictures_of(path, Fraction(5)), 50)), _animated, _nothing),
}
READERS = {name: entry for name, entry in _ALL.items() if name not in _NEEDS or find_spec(_NEEDS[name])}
