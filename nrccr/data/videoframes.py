"""The files of a feature folder that are text: which frames make up which video."""

from __future__ import annotations

import ast
import json
import warnings
from pathlib import Path
from typing import Any

from nrccr.errors import UserError
from nrccr.sizes import regular_bytes

FILES = ("shape.txt", "id.txt", "feature.bin", "video2frames.txt")


def read_video_frames(path: Path) -> dict[str, list[str]]:
    """Read `video2frames.txt`, a Python dict literal, as data: nothing in it is ever executed.

    Returns:
        video -> its frame names, in file order.

    Raises:
        UserError: the file is missing or no such literal, or a video is duplicated or has no frames.
    """
    wanted = "it must be one dict literal, {'video': ['frame', ...], ...}"
    try:
        entries = _dict_entries(read_bytes(path).decode("utf-8-sig").strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        reason = (str(error) or type(error).__name__).split(": <")[0].splitlines()[0]
        raise UserError(f"{path}: not plain data ({reason}); {wanted}") from None
    videos: dict[str, list[str]] = {}
    for video, frames in entries:
        if not (isinstance(video, str) and isinstance(frames, list) and set(map(type, frames)) <= {str}):
            raise UserError(f"{path}: entry {short(video)} is not a video name with a list of frame names; {wanted}")
        if not frames:
            raise UserError(f"{path}: video {video!r} has no frames; remove it or extract its features")
        if video in videos:
            raise UserError(f"{path}: video {video!r} is duplicated; keep one of the two")
        videos[video] = frames
    if not videos:
        raise UserError(f"{path}: holds no video; {wanted}")
    return videos


class _Entries(list[tuple[Any, Any]]):
    """A dict's entries in written order, repeated keys kept; a type of its own, to tell it from a list."""


def _dict_entries(text: str) -> list[tuple[Any, Any]]:
    """Entries of a dict literal.

    Without backslashes and with one kind of quote a literal means the same as JSON once the quotes are swapped, which
    reads many times faster; whatever JSON refuses (comments, last commas, mixed quotes) is left to Python's literals.
    """
    if "\\" not in text and not ("'" in text and '"' in text):
        try:
            value = json.loads(text.replace("'", '"'), object_pairs_hook=_Entries)
            if isinstance(value, _Entries):
                return value
        except (ValueError, RecursionError):
            pass
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # doubtful escapes in names
        tree = ast.parse(text, mode="eval").body
    if not isinstance(tree, ast.Dict) or None in tree.keys:  # a key of None stands for `**other`
        raise ValueError("not a dict of literals")
    pairs = zip(tree.keys, tree.values, strict=True)
    return [(ast.literal_eval(key), ast.literal_eval(value)) for key, value in pairs if key]


def read_bytes(path: Path) -> bytes:
    """A file of a feature folder.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return regular_bytes(path)
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> UserError:
    """One line about a file of a feature folder that cannot be read."""
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path}: no such file; a feature folder needs {', '.join(FILES)}")
    return UserError(f"{path}: cannot be read ({error.strerror or error}); check the file and its permissions")


def short(value: object) -> str:
    """A value as Python writes it, shortened."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
