"""The items of a split, videos or images, in a fixed order.

N items in a batch, F frames, D feature width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from nrccr.config.choices import FrameSampling
from nrccr.data.batch import ImageBatch, VideoBatch, VisualBatch
from nrccr.data.bigfile import BigFile, select_frames
from nrccr.data.captions import shortened
from nrccr.data.images import ImageSource
from nrccr.data.sampling import Indices
from nrccr.errors import UserError

NONE: Indices = np.empty(0, dtype=np.int64)


class Videos:
    """Visual items in a fixed order, frames chosen once.

    Args:
        features: where their frames are.
        video_ids: which items, in order.
        max_frames: frames kept of a longer video.
        sampling: the first of them, or spread evenly.
        whole: keep all frames for `view` and for the mean of batches that leave some out.

    Raises:
        UserError: an item without features.
    """

    def __init__(
        self,
        features: BigFile,
        video_ids: Sequence[str],
        max_frames: int,
        sampling: FrameSampling,
        *,
        whole: bool = False,
    ) -> None:
        self.features = features
        self.width = features.width
        self.place = features.folder
        self.workers = 0  # nothing to decode
        self.ids = list(video_ids)
        self._max_frames, self._sampling = max_frames, sampling
        rows = [features.rows(video) for video in self.ids]
        self._rows = rows if whole else [self._select(part) for part in rows]
        self.frames = np.array([len(rows) for rows in self._rows])  # (items,) all frames of each, if `whole`
        self.lengths = np.minimum(self.frames, max_frames)  # (items,) frames of each in a batch
        bad = features.find_nan(np.concatenate(self._rows), progress=True)
        if bad:
            raise UserError(
                f"{features.folder / 'feature.bin'}: {len(bad)} frames hold a NaN or an infinity, first {bad[0]}; "
                "extract them again"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, indices: Indices) -> VideoBatch:
        """As `batch`, for torch's loader."""
        return self.batch(indices)

    def batch(self, indices: Sequence[int] | Indices, among: Indices = NONE) -> VideoBatch:
        """The items at `indices`, padded to the longest of them and of those `among` which they are.

        Frames (N, F, D), mask (N, F).
        """
        return self._read([self._rows[index] for index in indices], int(self.lengths[among].max(initial=0)))

    def view(self, indices: Sequence[int] | Indices, frames: Sequence[Indices], longest: int = 0) -> VideoBatch:
        """The items at `indices` with only some of their frames, given as positions; `longest` as in BigFile.read."""
        rows = [self._rows[index][kept] for index, kept in zip(indices, frames, strict=True)]
        return self._read(rows, min(longest, self._max_frames))

    def _select(self, rows: Indices) -> Indices:
        return select_frames(rows, self._max_frames, self._sampling)

    def _read(self, rows: list[Indices], longest: int) -> VideoBatch:
        chosen = [self._select(part) for part in rows]
        frames, mask = self.features.read(chosen, longest)
        mean = None
        if any(len(part) > len(kept) for part, kept in zip(rows, chosen, strict=True)):
            every, real = self.features.read(rows)  # zeros at padding
            mean = torch.from_numpy(every.sum(axis=1) / real.sum(axis=1, keepdims=True, dtype=np.float32))  # (N, D)
        lengths = np.array([len(part) for part in chosen], dtype=np.int64)  # (N,)
        return VideoBatch(torch.from_numpy(frames), torch.from_numpy(mask), mean, lengths)


class Images:
    """Images in a fixed order, as vectors or as pixels.

    Args:
        source: where they are read.
        image_ids: which, in order.
        place: where `source` is, for messages.
        workers: processes that decode raw images for encoding.

    Raises:
        UserError: an image that is not there, or a vector with a NaN or an infinity.
    """

    def __init__(self, source: ImageSource, image_ids: Sequence[str], place: Path, workers: int = 0) -> None:
        self.source = source
        self.width = source.width
        self.ids = list(image_ids)
        self.place = place
        self.workers = workers if source.width is None else 0
        self.lengths = np.ones(len(self.ids), dtype=np.int64)  # (items,) as if of one frame each
        absent = [image for image in self.ids if image not in source]
        if absent:
            raise UserError(
                f"{place}: {len(absent)} of {len(self.ids)} images with captions are not there ({shortened(absent)}); "
                "add them or remove their captions"
            )
        problem = source.problem(self.ids)
        if problem:
            raise UserError(problem)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, indices: Indices) -> ImageBatch:
        """As `batch`, for torch's loader."""
        return self.batch(indices)

    def batch(self, indices: Sequence[int] | Indices, among: Indices = NONE) -> ImageBatch:
        """The images at `indices`: vectors (N, D) or pixels (N, 3, H, W), the same `among` whichever they are."""
        return ImageBatch(torch.from_numpy(self.source.read([self.ids[index] for index in indices])))


Visuals = Videos | Images


def load_batches(visuals: Visuals, batches: list[Indices]) -> Iterator[VisualBatch]:
    """The batches of items, one after the other, prepared by `workers` processes if there are any."""
    if not visuals.workers:
        return map(visuals.batch, batches)
    # Its own generator: the loader would otherwise draw from the global one.
    loader: DataLoader[VisualBatch] = DataLoader(
        visuals,  # type: ignore[arg-type]
        batch_size=None,
        sampler=batches,
        num_workers=visuals.workers,
        generator=torch.Generator(),
    )
    return iter(loader)


def require_same_width(others: Visuals, training: Visuals) -> None:
    """Make sure that a split's features are as wide as those of training.

    Raises:
        UserError: they are not.
    """
    if others.width != training.width:
        raise UserError(
            f"{others.place}: features are {others.width} wide, those of training {training.width}; extract them again"
        )
