"""Which files of the given files and folders are films and images, each with its id."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nrccr.data.bigfile import frame_stem
from nrccr.errors import UserError

FILMS = frozenset(".mp4 .m4v .mov .mkv .webm .avi .wmv .asf .flv .mpg .mpeg .ts .m2ts .3gp .ogv .gif .apng".split())
IMAGES = frozenset(".jpg .jpeg .png .webp .bmp .tif .tiff".split())


@dataclass(frozen=True)
class Source:
    """A file to be read.

    Attributes:
        id: the name of its item: the file's, without ending.
        path: where it is.
        image: whether its ending is that of an image; many of these are encoded together.
        refused: why it is not read, where that is known before it is opened.
    """

    id: str
    path: Path
    image: bool
    refused: str = ""

    def stamp(self) -> list[int]:
        """Size and time of change, which say whether it is still the same file; empty where it is gone."""
        try:
            found = self.path.stat()
        except OSError:
            return []
        return [found.st_size, found.st_mtime_ns]


def find_sources(given: Sequence[Path]) -> tuple[list[Source], int]:
    """All films and images, in order of their ids.

    A file that is named is read whatever its ending; of a folder, and of those in it, the files with the endings of
    films and images. Hidden files are left out, links to folders are not followed, and a link that leads out of its
    folder is refused.

    Returns:
        them, and how many files with other endings the folders hold.

    Raises:
        UserError: a path that does not exist, two files with one id, an id that a feature folder cannot hold, or none.
    """
    found: list[Source] = []
    others = 0
    for path in given:
        if path.is_dir():
            for file in _files(path):
                if file.suffix.lower() in FILMS | IMAGES:
                    found.append(_source(file, path))
                else:
                    others += 1
        elif path.exists() or path.is_symlink():
            found.append(_source(path, None))
        else:
            raise UserError(f"{path}: no such file or folder; give films, images, or folders of them")
    found.sort(key=lambda source: (source.id, str(source.path)))
    _require_ids(found)
    if not found:
        raise UserError(
            f"{', '.join(map(str, given))}: no film or image in it; endings are {' '.join(sorted(FILMS | IMAGES))}"
        )
    return found, others


def _files(folder: Path) -> Iterable[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def _source(path: Path, folder: Path | None) -> Source:
    target = path.resolve()
    refused = ""
    if folder is not None and path.is_symlink() and not target.is_relative_to(folder.resolve()):
        refused = "a link that leads out of its folder; name the file itself"
    elif not target.is_file():
        refused = "not a regular file"
    return Source(path.stem, path, path.suffix.lower() in IMAGES, refused)


def _require_ids(sources: list[Source]) -> None:
    for one, other in zip(sources, sources[1:], strict=False):
        if one.id == other.id:
            raise UserError(f"{one.path} and {other.path} have the same id, {one.id!r}; rename one of them")
    for source in sources:
        if frame_stem(source.id) is None:
            raise UserError(
                f"{source.path}: its name is its id, and {source.id!r} has white space or is no Unicode; rename it"
            )
