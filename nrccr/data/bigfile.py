"""Frame features on disk: one float32 matrix, its row names, and which rows make up which video.

A folder holds `shape.txt` ("N D"), `id.txt` (N names), `feature.bin` (N x D float32, row-major) and `video2frames.txt`
(a Python dict literal, video -> list of frame names). The matrix is memory-mapped: opening costs only the names.
"""

# N videos in a call, F frames of the longest one, D feature width

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, KeysView, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from nrccr.config.choices import FrameSampling
from nrccr.data.captions import written_otherwise
from nrccr.data.matrix import FLOAT_BYTES, Matrix
from nrccr.data.videoframes import read_bytes, read_video_frames, short
from nrccr.errors import UserError, require_content
from nrccr.files import atomic_folder

BLOCK_BYTES = 64 * 2**20

Rows = npt.NDArray[np.int64]
Frames = npt.NDArray[np.float32]
Scalar = TypeVar("Scalar", bound=np.generic)


class BigFile:
    """The frame features of a collection, read without loading the matrix.

    Opening checks everything but the numbers.

    Attributes:
        folder: where the four files lie.
        count: rows of the matrix.
        width: columns of the matrix, D.

    Raises:
        UserError: a file is missing or malformed, `feature.bin` or `id.txt` has another length than `shape.txt` says, a
            frame name is duplicated, `video2frames.txt` has a video without frames or a frame that `id.txt` lacks.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.is_dir():
            raise UserError(f"{folder}: no such feature folder{_siblings(folder)}; check the root and the feature")
        require_content(folder)
        self.count, self.width = _read_shape(folder / "shape.txt")
        shape = (self.count, self.width)
        self._features = Matrix(
            folder / "feature.bin", shape, source=" as in shape.txt", advice="copy or extract it again"
        )
        names = self._read_names()
        row_of = {name: row for row, name in enumerate(names)}
        if len(row_of) != len(names):
            duplicate = next(name for row, name in enumerate(names) if row_of[name] != row)
            raise UserError(f"{folder / 'id.txt'}: frame name {duplicate!r} is duplicated; each row needs its own")
        videos = read_video_frames(folder / "video2frames.txt")
        # One flat array with an offset per video: a million small lists would take ten times the memory.
        lengths = np.fromiter(map(len, videos.values()), dtype=np.int64, count=len(videos))
        self._offsets: Rows = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
        self._rows = self._find_rows(videos, row_of)
        self._position = {video: position for position, video in enumerate(videos)}

    @property
    def video_ids(self) -> KeysView[str]:
        """Every video of `video2frames.txt`, in file order."""
        return self._position.keys()

    def __contains__(self, video_id: str) -> bool:
        """Whether the video has features."""
        return video_id in self._position

    def rows(self, video_id: str) -> Rows:
        """Rows of a video's frames, in order, shape (frames,).

        Raises:
            UserError: the video has no features.
        """
        position = self._position.get(video_id)
        if position is None:
            alike = written_otherwise([video_id], self.video_ids)
            raise UserError(
                f"{self.folder}: video {video_id!r} has no features; extract them or remove its captions{alike}"
            )
        return self._rows[self._offsets[position] : self._offsets[position + 1]]

    def read(self, rows: Sequence[Rows], longest: int = 0) -> tuple[Frames, npt.NDArray[np.bool_]]:
        """Read the frames of several videos at once, padded with zeros to the longest.

        Args:
            rows: rows of each video, as `rows` and `select_frames` give them.
            longest: frames F to pad to at least.

        Returns:
            frames (N, F, D) float32 and mask (N, F), True where a frame is real.
        """
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))  # (N,)
        mask = np.arange(lengths.max(initial=longest)) < lengths[:, None]  # (N, F)
        places = np.zeros(mask.shape, dtype=np.int64)
        frames = np.empty((*mask.shape, self.width), dtype=np.float32)  # (N, F, D)
        if mask.size:
            places[mask] = np.concatenate(rows)
            self._features.take(places, frames)  # each frame copied once, from the map to where it belongs
            frames[~mask] = 0.0
        return frames, mask

    def find_nan(self, rows: Rows | None = None, *, progress: bool = False) -> list[str]:
        """Names of frames with a NaN or an infinity, in row order.

        Args:
            rows: the rows to check; by default every row that a video uses.
            progress: show a progress bar if standard error is a terminal.
        """
        bad = [block[~np.isfinite(frames).all(axis=1)] for block, frames in self.blocks(rows, progress=progress)]
        return self.names(chain.from_iterable(bad))

    def blocks(self, rows: Rows | None = None, *, progress: bool = False) -> Iterator[tuple[Rows, Frames]]:
        """Rows of a moderate number of frames, and those frames, as `find_nan` reads them."""
        wanted = np.unique(self._rows if rows is None else rows)
        step = max(1, BLOCK_BYTES // (FLOAT_BYTES * self.width))
        for start in tqdm(
            range(0, len(wanted), step), desc="features", disable=None if progress else True, leave=False
        ):
            yield wanted[start : start + step], self._features.take(wanted[start : start + step])

    def names(self, rows: Iterable[int]) -> list[str]:
        """The names of frames."""
        listed = [*rows]
        known = self._read_names() if listed else []
        return [known[row] for row in listed]

    def frame_counts(self, video_ids: Iterable[str]) -> Rows:
        """How many frames each of the videos has, shape (N,)."""
        positions = np.fromiter((self._position[video] for video in video_ids), dtype=np.int64)
        return self._offsets[positions + 1] - self._offsets[positions]

    def _read_names(self) -> list[str]:
        path = self.folder / "id.txt"
        # Split as bytes: in Latin-1 text Python would take 0x85 and 0xA0 for white space too.
        content = read_bytes(path)
        if content.startswith(b"\xef\xbb\xbf"):
            raise UserError(f"{path}: begins with a byte order mark; save it without one, in Latin-1")
        names = [name.decode("latin-1") for name in content.split()]
        if len(names) != self.count:
            raise UserError(f"{path}: {len(names)} names, not {self.count} as in shape.txt; copy or extract it again")
        return names

    def _find_rows(self, videos: dict[str, list[str]], row_of: dict[str, int]) -> Rows:
        frames = chain.from_iterable(videos.values())
        try:
            return np.fromiter(map(row_of.__getitem__, frames), dtype=np.int64, count=int(self._offsets[-1]))
        except KeyError:
            video, frame = next((v, f) for v, names in videos.items() for f in names if f not in row_of)
            if frame.encode("utf-8", "replace").decode("latin-1") in row_of:
                raise UserError(
                    f"{self.folder / 'id.txt'}: frame {frame!r} is written in UTF-8; save the file in Latin-1"
                ) from None
            raise UserError(
                f"{self.folder / 'video2frames.txt'}: frame {frame!r} of video {video!r} is not in id.txt; "
                "copy or extract the folder again"
            ) from None


def select_frames(frames: npt.NDArray[Scalar], max_frames: int, sampling: FrameSampling) -> npt.NDArray[Scalar]:
    """Keep at most `max_frames` of a video: the first ones, or those at the centres of as many equal segments.

    Args:
        frames: rows (frames,) or the frames themselves (frames, D).
        max_frames: how many to keep, at least one.
        sampling: which to keep of a longer video.
    """
    count = len(frames)
    if count <= max_frames:
        return frames
    if sampling == "first":
        return frames[:max_frames]
    return frames[(2 * np.arange(max_frames) + 1) * count // (2 * max_frames)]


def write_bigfile(
    folder: Path, videos: Iterable[tuple[str, npt.NDArray[Any]]], others: Mapping[str, bytes] | None = None
) -> None:
    """Write a feature folder from videos that come one at a time; it appears whole or not at all.

    Args:
        folder: the folder to make; its frames are named VIDEO_0, VIDEO_1, ..., as `frame_stem` says.
        videos: video name and its frames (n, D), n >= 1, D the same for all.
        others: further files by name.

    Raises:
        UserError: the folder exists, there is no video, or a video has a duplicated name or one with white space, no
            frames, another width, or a NaN or infinity in float32.
    """
    if folder.exists():
        raise UserError(f"{folder}: exists already; choose another folder or remove this one")
    with atomic_folder(folder, replace=False) as temporary:
        _write_files(temporary, folder, videos, others or {})


def _write_files(
    temporary: Path, folder: Path, videos: Iterable[tuple[str, npt.NDArray[Any]]], others: Mapping[str, bytes]
) -> None:
    counts: dict[str, int] = {}
    width = 0
    with (temporary / "feature.bin").open("wb") as features:
        for video, values in videos:
            matrix = _checked(folder, video, values, width)
            if video in counts:
                raise UserError(f"{folder}: video {video!r} is duplicated; give each video once")
            counts[video], width = matrix.shape
            features.write(matrix.tobytes())
        _sync(features)
    if not counts:
        raise UserError(f"{folder}: no video to write; give at least one")
    frames = {video: [f"{frame_stem(video)}_{index}" for index in range(count)] for video, count in counts.items()}
    texts = {
        "shape.txt": f"{sum(counts.values())} {width}\n".encode(),
        "id.txt": " ".join(chain.from_iterable(frames.values())).encode("latin-1"),
        "video2frames.txt": (repr(frames) + "\n").encode(),
    }
    for name, text in (texts | dict(others)).items():
        with (temporary / name).open("wb") as file:
            file.write(text)
            _sync(file)


def frame_stem(video: str) -> str | None:
    """What the names of a video's frames begin with, in Latin-1 as `id.txt` is; none where no caption can name it.

    The video's own name or, where that is not Latin-1, its UTF-8 in hexadecimal digits after `u+`, as is one that
    begins so itself: two videos have two. `video2frames.txt` is UTF-8 and holds the name as it is.
    """
    try:
        name = video.encode("latin-1")
        if name.split() != [name]:
            return None
        if not video.startswith("u+"):
            return video
    except UnicodeEncodeError:
        if video.split() != [video] or not _is_unicode(video):
            return None
    return f"u+{video.encode().hex()}"


def _is_unicode(text: str) -> bool:
    """Whether it can be written as UTF-8: the name of a file on disk may hold any bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _checked(folder: Path, video: str, values: npt.NDArray[Any], width: int) -> Frames:
    if frame_stem(video) is None:
        raise UserError(f"{folder}: video name {video!r} is empty, has white space or is no Unicode; rename it")
    with np.errstate(over="ignore"):
        matrix = np.asarray(values, dtype="<f4")
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise UserError(f"{folder}: video {video!r} has shape {matrix.shape}, not (frames, width); give a frame")
    if width not in (0, matrix.shape[1]):
        raise UserError(f"{folder}: video {video!r} has width {matrix.shape[1]}, those before {width}; make them agree")
    if not np.isfinite(matrix).all():
        raise UserError(f"{folder}: video {video!r} holds a NaN or an infinity; extract it again")
    return matrix


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _read_shape(path: Path) -> tuple[int, int]:
    text = read_bytes(path).decode("latin-1").strip()
    found = re.fullmatch(r"([0-9]{1,18})\s+([0-9]{1,18})", text)  # int() would take 1_000, too
    count, width = map(int, found.groups()) if found else (0, 0)
    if count < 1 or width < 1:
        raise UserError(f"{path}: must hold two positive integers, rows and columns, not {short(text)}; fix it")
    return count, width


def _siblings(folder: Path) -> str:
    found = sorted(path.name for path in folder.parent.iterdir() if path.is_dir()) if folder.parent.is_dir() else []
    return f" (beside it: {', '.join(found)})" if found else ""
