"""Writing files whole or not at all, and never through a link that somebody left in the way."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nrccr.errors import UserError, first_line, not_written
from nrccr.exchange import put_in_place
from nrccr.sizes import regular_bytes

try:
    import fcntl
except ImportError:  # not on Windows: no locks, leftovers stay
    fcntl = None  # type: ignore[assignment]

MAX_DIGITS = 300  # of a whole number in JSON: a float holds it
_locks: set[int] = set()  # descriptors of `Lock`, which a forked worker must not keep alive


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` on success, remove it and new folders on failure.

    The name is random, and the file is new: a link cannot lie in wait there. It is made as the umask says. A run that
    is killed leaves it behind; the next write removes it. It is on disk before the rename: a reader sees old or new.

    Raises:
        OSError: as it came, with `path` for a file name.
    """
    made = make_parents(path)
    _remove_leftovers(path)
    temporary, descriptor = _new_file(path)
    try:
        with _named(path, temporary):
            yield temporary
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
            os.chmod(temporary, stat.S_IMODE(os.fstat(descriptor).st_mode))  # a library may have put its own there
            os.replace(temporary, path)
    finally:
        os.close(descriptor)
        temporary.unlink(missing_ok=True)
        remove_empty(made)


@contextmanager
def atomic_folder(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Give a temporary folder beside `path`; rename it to `path` on success, remove it and new parents on failure.

    A folder that is at `path` already changes places with the new one in one step, so that a kill leaves the one or the
    other; where the system cannot, it is moved aside first and deleted last, and the next write moves it back.
    Where `path` is a link, the folder that it leads to is written, and the link stays.

    Raises:
        OSError: as it came, with `path` for a file name if it named none or one in the temporary folder.
        FileExistsError: a folder is at `path` when this one is done, and `replace` is False.
    """
    path = path.resolve() if path.is_symlink() else path
    made = make_parents(path)
    _move_back(path)
    _remove_leftovers(path)
    temporary, old = _beside(path, "tmp"), _beside(path, "old")
    temporary.mkdir()
    descriptor = os.open(temporary, os.O_RDONLY) if fcntl else None
    try:
        if descriptor is not None:
            _hold(descriptor)
        with _named(path, temporary):
            yield temporary
            if path.exists() and not replace:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
            put_in_place(temporary, path, old)
    finally:
        if descriptor is not None:
            os.close(descriptor)
        for leftover in (temporary, old):
            shutil.rmtree(leftover, ignore_errors=True)
        remove_empty(made)


@contextmanager
def _named(path: Path, temporary: Path) -> Iterator[None]:
    """Errors of a write, which name nothing or what is temporary, name what is written."""
    try:
        yield
    except OSError as error:
        name = error.filename
        if name is None or f"{name}{os.sep}".startswith(f"{temporary}{os.sep}"):
            error.filename, error.filename2 = str(path), None
        raise


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text whole or not at all; what is no Unicode in names is written as `\\udc..`, as in JSON."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, advice: str) -> dict[str, Any]:
    """Read a JSON object, of which nothing is known but that it is one: the run may be a stranger's.

    Args:
        path: the file.
        advice: what to do where it cannot be read.

    Raises:
        UserError: it is missing, damaged, nested too deeply, or no object; a number that no `float` holds.
    """
    try:
        found = json.loads(regular_bytes(path).decode("utf-8"), parse_int=moderate)
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise UserError(f"{path}: cannot be read ({reason}); {advice}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: holds no JSON object; {advice}")
    return found


def moderate(digits: str) -> int:
    """A whole number of JSON that a `float` holds; `parse_int` of `json.loads`."""
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


@contextmanager
def encodable(path: str) -> Iterator[str]:
    """A path of a file or folder for libraries that take Unicode alone: where it is none, a link that leads there."""
    try:
        path.encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder) / "link"
            link.symlink_to(os.path.abspath(path))
            yield str(link)
    else:
        yield path


def digest_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_links(folder: Path, names: Iterable[str | Path]) -> None:
    """Make sure that what is written into a folder stays in it; the folder itself may be a link.

    Args:
        folder: somebody's run folder, perhaps a stranger's.
        names: of files and folders in it that are to be written.

    Raises:
        UserError: one of them, or a folder on the way, is a link.
    """
    for name in names:
        path = folder
        for part in Path(name).parts:
            path = path / part
            _refuse_link(path)


def open_to_append(path: Path) -> int:
    """A descriptor of a regular file, made if it is missing, that is read and appended to.

    Raises:
        UserError: it is a link, or no regular file.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    _refuse_link(path)
    try:
        descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o666)
    except OSError as error:
        raise not_written(path, error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"{path}: not a regular file; remove it")
    return descriptor


class Lock:
    """A lock that ends with its process, on files that have another use too; no lock where there are none."""

    def __init__(self) -> None:
        self._held: list[int] = []

    @property
    def held(self) -> bool:
        """Whether something is locked."""
        return bool(self._held)

    def take(self, path: Path) -> bool:
        """Lock a file, made if it is missing; returns whether nobody else has it locked.

        Raises:
            UserError: it is a link, or no regular file.
        """
        descriptor = open_to_append(path)
        if _is_free(descriptor):
            self._held.append(descriptor)
            _locks.add(descriptor)
            return True
        os.close(descriptor)
        return False

    def release(self) -> None:
        """Unlock all."""
        while self._held:
            descriptor = self._held.pop()
            _locks.discard(descriptor)
            os.close(descriptor)


def _close_locks() -> None:
    """In a forked worker: its copy would hold the lock for as long as it outlives a killed run."""
    while _locks:
        with suppress(OSError):
            os.close(_locks.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_locks)


def _is_free(descriptor: int) -> bool:
    """Lock an open file; False where another has it locked."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _hold(descriptor: int) -> None:
    """Lock a temporary file or folder, which says that its writer is alive."""
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)


def make_parents(path: Path) -> list[Path]:
    """Make the folders above a path; those that were missing, the innermost first."""
    missing = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    return missing


def remove_empty(folders: Iterable[Path]) -> None:
    """Delete what was made for a file that was not written in the end."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.{ending}")


def _new_file(path: Path) -> tuple[Path, int]:
    """A new, locked file beside `path`."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    while True:
        temporary = _beside(path, "tmp")
        try:
            descriptor = os.open(temporary, flags, 0o666)
        except OSError as error:
            error.filename = str(path)
            raise
        _hold(descriptor)
        if os.fstat(descriptor).st_nlink:  # else somebody took it for a leftover before it was locked
            return temporary, descriptor
        os.close(descriptor)


def _leftovers(path: Path, endings: str) -> list[str]:
    """What killed writes of `path` left beside it."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.([0-9a-f]{{16}}\.)?({endings})")
    with os.scandir(path.parent) as entries:
        return sorted(entry.path for entry in entries if pattern.fullmatch(entry.name))


def _move_back(path: Path) -> None:
    """Where a kill came between the two steps of a replacement, put the old folder back."""
    kept = _leftovers(path, "old")
    if kept and not path.exists():
        os.rename(kept[0], path)


def _remove_leftovers(path: Path) -> None:
    """Delete what killed writes of `path` left beside it; what is locked is being written."""
    if fcntl is None:
        return
    for leftover in _leftovers(path, "tmp|old"):
        with suppress(OSError):
            _remove_if_free(leftover)


def _remove_if_free(leftover: str) -> None:
    mode = os.lstat(leftover).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return
    descriptor = os.open(leftover, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISDIR(mode):
            shutil.rmtree(leftover)
        else:
            os.unlink(leftover)
    finally:
        os.close(descriptor)


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise UserError(f"{path}: a link, and nothing is written through links in a run folder; remove it")
