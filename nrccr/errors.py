"""The exceptions that the command line turns into one line."""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from pathlib import Path

# What a terminal acts upon, what turns or hides text around it, and what cannot be encoded.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_LONG = re.compile(r"(\S{300})\S{100,}(\S{100})")  # names and paths are shorter
_POINTER = b"version https://git-lfs.github.com/spec/"
LONGEST = 2000  # characters of a message
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DEATH = re.compile(r"DataLoader worker \(pid")


def printable(text: str) -> str:
    """A text that a terminal shows and does not obey: control characters and the like as escapes."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def is_unicode(text: str) -> bool:
    """Whether no letter stands for a byte, as Python keeps those of file names and arguments that are no Unicode."""
    return not any("\udc80" <= letter <= "\udcff" for letter in text)


def _short(text: str) -> str:
    text = _LONG.sub(r"\1...\2", text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 500]}...{text[-500:]}"


class UserError(Exception):
    """Bad input: one line that names the file, line or id, what is wrong, and what to do; safe to print.

    The command line prints it without a traceback and exits with code 2.
    """

    def __init__(self, message: str) -> None:
        # torch's loader raises a worker's error anew, with the worker's whole traceback for a message.
        message = message.rpartition(f"{__name__}.UserError: ")[2].strip()
        super().__init__(_short(printable(message).replace("\n", "\\n")))  # a name may have a line's end in it


def require_content(path: Path) -> None:
    """Make sure that a file, or each file right in a folder, is itself and not a git-lfs pointer to it.

    Raises:
        UserError: it is a pointer, which a clone without git-lfs has in place of a large file.
    """
    for file in path.iterdir() if path.is_dir() else [path]:
        with suppress(OSError):
            if file.is_file():
                with file.open("rb") as opened:
                    begins = opened.read(len(_POINTER))
                if begins == _POINTER:
                    raise UserError(
                        f"{file}: a git-lfs pointer, not the file itself; run `git lfs pull` where it was cloned"
                    )


class PeerLostError(UserError):
    """Another process of the same run has gone; that one knows why."""


class Interrupted(Exception):  # noqa: N818 - no error
    """The user stopped a run; the state to resume from is saved."""


def first_line(error: BaseException) -> str:
    """The first line of a library's message, for one of ours."""
    return (str(error).strip() or type(error).__name__).split("\n")[0][:200]


def death_of_worker(error: BaseException) -> BaseException | None:
    """What torch raised when a process that reads data died, where that is the error or led to it."""
    seen: BaseException | None = error
    while seen is not None:
        # The other two: it was killed while it handed a batch over.
        if _DEATH.match(str(seen)) or isinstance(seen, ConnectionError | EOFError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def not_written(path: Path, error: BaseException, instead: str = "") -> UserError:
    """One line for a file that could not be written; it asks about the disk only where that is full.

    Args:
        path: the file.
        error: an OSError, or a library's error that stands for one.
        instead: what else to do.
    """
    number = _number_of(error)
    reason = os.strerror(number) if number else first_line(error)
    advice = "is the disk full, or a quota or size limit reached?" if number in FULL else instead
    return UserError(f"{path}: cannot be written ({reason}){'; ' if advice else ''}{advice}")


def _number_of(error: BaseException) -> int | None:
    """The operating system's error number; torch and safetensors hide it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno:
            return seen.errno
        seen = seen.__cause__ or seen.__context__
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None
