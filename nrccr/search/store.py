"""An index on disk: a folder of generations, each written whole before the file CURRENT names it.

A generation holds `vectors.faiss` and `items.sqlite`: what the index is, and its items under the vectors' keys. A
reader that has opened one keeps it whole, whatever is written beside it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nrccr.errors import UserError, first_line, not_written
from nrccr.files import Lock, make_parents, remove_empty, write_text
from nrccr.safeload.unpickle import load_array
from nrccr.search.vectors import KINDS, Floats, Keys, Shape, Vectors, read_vectors

CURRENT, ITEMS, VECTORS, BANK = "CURRENT", "items.sqlite", "vectors.faiss", "bank.npy"
FORMAT = 1
# What a damaged file of items leads to.
DAMAGES = (sqlite3.Error, ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError)
KEYS = "SELECT count(*), min(key), max(key) FROM (SELECT key FROM items UNION SELECT key FROM gone)"
TRIES = 20  # to open a generation while others are written
SCHEMA = (
    "CREATE TABLE about (value TEXT NOT NULL)",
    "CREATE TABLE items (key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, frames INTEGER NOT NULL)",
    "CREATE TABLE gone (key INTEGER PRIMARY KEY)",
)


@dataclass(frozen=True)
class About:
    """What an index is.

    Attributes:
        run: the model's run folder or checkpoint.
        fingerprint: of the model.
        features: the feature folder.
        fps: frames a second in it.
        width: of a vector as the index keeps it.
        shape: how it keeps them.
        hubs: k and alpha of nnn, if a bias is folded in.
    """

    run: str
    fingerprint: str
    features: str
    fps: float
    width: int
    shape: Shape = field(default_factory=Shape)
    hubs: tuple[int, float] | None = None

    def text(self) -> str:
        """As JSON."""
        return json.dumps(self.__dict__ | {"format": FORMAT, "shape": self.shape.record()}, ensure_ascii=False)

    @classmethod
    def of(cls, text: str) -> About:
        """From JSON.

        Raises:
            ValueError, TypeError, KeyError: it is not what `text` writes.
        """
        values: dict[str, Any] = json.loads(text)
        if values.pop("format") != FORMAT:
            raise ValueError("another format")
        shape, hubs = Shape(**values.pop("shape")), values.pop("hubs")
        numbers = (shape.lists, shape.code_bytes, shape.links, shape.effort)
        if shape.kind not in KINDS or any(type(number) is not int for number in numbers):
            raise ValueError("a shape that is none")
        known = None if hubs is None else (int(hubs[0]), float(hubs[1]))
        made = cls(**values, shape=shape, hubs=known)
        texts = all(type(value) is str for value in (made.run, made.fingerprint, made.features))
        if not texts or type(made.width) is not int or made.width < 1 or not 0 < made.fps < 1e4:
            raise ValueError("values of other types")
        return made


@dataclass(frozen=True)
class Item:
    """A video or image of an index, and how many frames it has."""

    id: str
    frames: int


@dataclass(frozen=True)
class Draft:
    """What a generation is written from.

    Attributes:
        about: what it is.
        vectors: in memory.
        items: key -> item.
        gone: keys that a graph still holds.
        bank: the queries whose bias is folded in (M, D), if any.
    """

    about: About
    vectors: Vectors
    items: dict[int, Item]
    gone: Keys
    bank: Floats | None


class Generation:
    """One generation, open for reading by any number of threads.

    Raises:
        UserError: a damaged or foreign file.
        FileNotFoundError: it was removed since.
    """

    def __init__(self, folder: Path, *, mapped: bool = True) -> None:
        self.folder = folder
        self._path = path = folder / ITEMS
        if path.is_symlink() or not path.is_file():
            if not folder.exists():
                raise FileNotFoundError(path)
            raise UserError(f"{path}: missing, or no regular file; build the index again")
        address = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
        self._lock = threading.Lock()
        with self._reading():
            self._items = sqlite3.connect(address, uri=True, check_same_thread=False)
            self._items.execute("PRAGMA trusted_schema=OFF")
            self._items.execute("PRAGMA query_only=ON")
            if {row[0] for row in self._items.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL")} != {*SCHEMA}:
                raise ValueError("other tables")
            self.about = About.of(self._items.execute("SELECT value FROM about").fetchone()[0])
            self.count = int(self._items.execute("SELECT count(*) FROM items").fetchone()[0])
            self.gone: Keys = np.array([row[0] for row in self._items.execute("SELECT key FROM gone")], dtype=np.int64)
            kept = self.count + len(self.gone)
            if self.about.shape.kind == "hnsw" and self._items.execute(KEYS).fetchone() != (kept, 0, kept - 1):
                raise ValueError("keys that the graph's vectors do not have")
        self.vectors = read_vectors(folder / VECTORS, self.about.shape, self.about.width, kept, mapped=mapped)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Alone with the items; sqlite finds some damages only where it reads.

        Raises:
            UserError: a damage.
        """
        try:
            with self._lock:
                yield
        except DAMAGES as error:
            raise UserError(f"{self._path}: damaged ({first_line(error)}); build the index again") from error

    def item_of(self, key: int) -> Item | None:
        """The item under a key."""
        with self._reading():
            row = self._items.execute("SELECT id, frames FROM items WHERE key = ?", (key,)).fetchone()
            return None if row is None else Item(str(row[0]), int(row[1]))

    def find(self, name: str) -> Item | None:
        """The item of an id, which may be any text."""
        try:
            name.encode()
        except UnicodeEncodeError:  # sqlite keeps no half of a character, and no letter that stands for a byte
            return None
        with self._reading():
            row = self._items.execute("SELECT id, frames FROM items WHERE id = ?", (name,)).fetchone()
            return None if row is None else Item(str(row[0]), int(row[1]))

    def ids(self, count: int) -> list[str]:
        """The first ids, in the order in which they were added."""
        with self._reading():
            return [str(row[0]) for row in self._items.execute("SELECT id FROM items ORDER BY key LIMIT ?", (count,))]

    def search(self, query: Floats, count: int, effort: int | None = None) -> list[tuple[Item, float]]:
        """The best items of a query (D,), best first."""
        if len(query) + (self.about.hubs is not None) > self.about.width:
            raise UserError(f"{self._path}: vectors narrower than the model's; build the index again")
        row = np.zeros((1, self.about.width), dtype=np.float32)
        row[0, : len(query)] = query
        if self.about.hubs is not None:
            row[0, len(query)] = 1.0  # the bias
        count = min(count, self.count)
        if not count:
            return []
        scores, keys = self.vectors.search(row, count, self.gone, effort)
        found = [(self.item_of(int(key)), float(score)) for key, score in zip(keys[0], scores[0], strict=True)]
        return [(item, score) for item, score in found if item is not None]

    def draft(self) -> Draft:
        """What it was written from; of a generation that is not mapped."""
        with self._reading():
            rows = self._items.execute("SELECT key, id, frames FROM items ORDER BY key").fetchall()
            items = {int(key): Item(str(name), int(frames)) for key, name, frames in rows}
        bank = None
        if self.about.hubs is not None:
            bank = load_array(self.folder / BANK)
            if bank.ndim != 2 or bank.dtype != np.float32 or bank.shape[1] + 1 > self.about.width:
                raise UserError(
                    f"{self.folder / BANK}: not the bank that items.sqlite describes; build the index again"
                )
        return Draft(self.about, self.vectors, items, self.gone, bank)

    def close(self) -> None:
        """Close the file of items."""
        self._items.close()


def open_index(index: Path, *, mapped: bool = True) -> Generation:
    """The newest generation of an index.

    Raises:
        UserError: no index there, or a damaged one.
    """
    for _ in range(TRIES):
        try:
            return Generation(index / current(index), mapped=mapped)
        except FileNotFoundError:
            continue
    raise UserError(f"{index}: its generation is missing; build the index again")


def current(index: Path) -> str:
    """The name of the newest generation.

    Raises:
        UserError: no index there.
    """
    path = index / CURRENT
    if path.is_symlink() or not path.is_file() or path.stat().st_size > 100:
        raise UserError(f"{index}: no index there; make one with `nrccr index RUN --features DIR --out {index}`")
    name = path.read_text(encoding="utf-8", errors="replace").strip()
    if not name.startswith("generation-") or not name.removeprefix("generation-").isalnum():
        raise UserError(f"{path}: damaged; build the index again")
    return name


@contextmanager
def writing(index: Path) -> Iterator[None]:
    """Alone among the writers of an index.

    Raises:
        UserError: another is at it, or the folder holds something else.
    """
    if index.exists() and not index.is_dir():
        raise UserError(f"{index}: is a file; give a folder")
    made = [] if index.exists() else [index, *make_parents(index)]
    index.mkdir(exist_ok=True)
    strange = [path.name for path in index.iterdir() if path.name not in (CURRENT, "lock") and not _ours(path)]
    if strange:
        raise UserError(f"{index}: holds {min(strange)}, which is no part of an index; choose another folder")
    lock = Lock()
    if not lock.take(index / "lock"):
        raise UserError(f"{index}: another process is writing it; wait for it")
    try:
        yield
    finally:
        if made and not (index / CURRENT).exists():  # what was to be written was not
            (index / "lock").unlink(missing_ok=True)
            remove_empty(made)
        lock.release()


def write_generation(index: Path, draft: Draft) -> None:
    """Write a generation and make it the current one; the one before stays for those who are opening it.

    Raises:
        UserError: it cannot be written; the index is as it was.
    """
    before = current(index) if (index / CURRENT).is_file() else ""
    name = f"generation-{secrets.token_hex(8)}"
    folder = index / name
    folder.mkdir()
    try:
        draft.vectors.write(folder / VECTORS)
        if draft.bank is not None:
            np.save(folder / BANK, draft.bank)
        _write_items(folder / ITEMS, draft)
        for path in folder.iterdir():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        write_text(index / CURRENT, f"{name}\n")
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError | RuntimeError | sqlite3.Error):  # faiss has its own for a full disk, sqlite too
            raise not_written(index, error, "give another folder") from error
        raise
    for path in index.iterdir():
        if path.name not in (name, before) and path.name.startswith("generation-") and _ours(path):
            shutil.rmtree(path, ignore_errors=True)


def with_items(draft: Draft, items: Sequence[Item], vectors: Floats) -> Draft:
    """A draft with more items, and their vectors (n, width of the index).

    Raises:
        UserError: an item is there already.
    """
    known = {item.id for item in draft.items.values()}
    twice = next((item.id for item in items if item.id in known), None)
    if twice is not None:
        raise UserError(f"{twice} is in the index already; remove it first")
    start = max([*draft.items, *draft.gone.tolist(), -1]) + 1
    keys = np.arange(start, start + len(items), dtype=np.int64)
    draft.vectors.add(vectors, keys)
    return replace(draft, items=draft.items | dict(zip(keys.tolist(), items, strict=True)))


def without_items(draft: Draft, names: Sequence[str]) -> Draft:
    """A draft without some items.

    Raises:
        UserError: one is not there.
    """
    key_of = {item.id: key for key, item in draft.items.items()}
    missing = next((name for name in names if name not in key_of), None)
    if missing is not None:
        raise UserError(f"{missing} is not in the index; nothing was removed")
    keys = np.unique(np.array([key_of[name] for name in names], dtype=np.int64))
    draft.vectors.remove(keys)
    gone = np.union1d(draft.gone, keys) if draft.about.shape.kind == "hnsw" else draft.gone
    left = {key: item for key, item in draft.items.items() if item.id not in set(names)}
    return replace(draft, items=left, gone=gone)


def _write_items(path: Path, draft: Draft) -> None:
    with closing(sqlite3.connect(path)) as items, items:
        for line in SCHEMA:
            items.execute(line)
        items.execute("INSERT INTO about VALUES (?)", (draft.about.text(),))
        rows = ((key, item.id, item.frames) for key, item in draft.items.items())
        items.executemany("INSERT INTO items VALUES (?, ?, ?)", rows)
        items.executemany("INSERT INTO gone VALUES (?)", ((int(key),) for key in draft.gone))


def _ours(path: Path) -> bool:
    if path.name.startswith(f".{CURRENT}."):
        return True
    if path.is_symlink() or not path.is_dir() or not path.name.startswith("generation-"):
        return False
    return {part.name for part in path.iterdir()} <= {ITEMS, f"{ITEMS}-journal", VECTORS, BANK}
