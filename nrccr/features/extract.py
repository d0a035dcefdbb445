"""Films and images -> a feature folder: decoded by threads, encoded in batches, kept file by file."""

# N frames of a batch, D width of a vector

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from nrccr.errors import UserError, first_line
from nrccr.extras import need
from nrccr.features.films import FilmError, frames_of
from nrccr.features.pictures import is_picture, pictures_of
from nrccr.features.prefetch import prefetch
from nrccr.features.prepare import BYTES, Preparation, Prepared
from nrccr.features.sources import Source
from nrccr.features.store import Part, Store, Vectors
from nrccr.models.vision import Encoder

SKIPPED = "skipped.txt"
Unit = tuple[Source, ...]  # what is encoded and kept together: a film, or a batch of images
Piece = list[tuple[int, Prepared | str]]  # of a unit's file, by its position: frames, or why it cannot be read


@dataclass(frozen=True)
class Pace:
    """How files are read and encoded.

    Attributes:
        fps: moments a second of a film.
        batch_size: frames encoded together.
        workers: threads that decode.
        shard: which part, from 1, of how many.
    """

    fps: Fraction
    batch_size: int
    workers: int
    shard: tuple[int, int] = (1, 1)


class Extractor:
    """Encodes files and keeps their vectors.

    Args:
        encoder: on `device`.
        preparation: its pre-processing.
        pace: how to read.
        device: where to compute.
    """

    def __init__(self, encoder: Encoder, preparation: Preparation, pace: Pace, device: torch.device) -> None:
        self.encoder = encoder
        self.preparation = preparation
        self.pace = pace
        self.device = device

    def run(self, sources: Sequence[Source], store: Store) -> None:
        """Encode this shard's files that have no vectors yet; one that cannot be read is kept with its reason.

        The vectors of a file do not depend on which others were there already: batches never reach beyond a unit.

        Raises:
            UserError: PyAV is missing.
        """
        if any(not source.image for source in sources):
            need("av", "extract")
        parts = store.parts()
        number, shards = self.pace.shard
        units = [unit for unit in self.units(sources)[number - 1 :: shards] if not _finished(unit, parts)]
        total = sum(map(len, units))
        with tqdm(total=total, desc="files", unit="file", disable=None, leave=False) as progress:
            for unit, pieces in prefetch(units, self.read, self.pace.workers):
                stamps = [source.stamp() for source in unit]
                results = self.encode(len(unit), pieces)
                store.add([(s.id, stamp, found) for s, stamp, found in zip(unit, stamps, results, strict=True)])
                progress.update(len(unit))

    def units(self, sources: Sequence[Source]) -> list[Unit]:
        """Films by themselves, images in batches; the same for every shard."""
        films = [(source,) for source in sources if not source.image]
        images = [source for source in sources if source.image]
        size = self.pace.batch_size
        return [*films, *(tuple(images[start : start + size]) for start in range(0, len(images), size))]

    def read(self, unit: Unit) -> Iterator[Piece]:
        """The frames of a unit's files in batches, decoded and prepared; runs in a thread."""
        clip = self.encoder.clip_frames
        size = max(1, self.pace.batch_size // clip)
        batch: Piece = []
        for position, source in enumerate(unit):
            try:
                for item in _clips(self._frames(source), clip):
                    batch.append((position, item))
                    if len(batch) == size:
                        yield batch
                        batch = []
            except Exception as error:  # decoders fail in any way at all
                batch.append((position, _why(error, source.path)))
        if batch:
            yield batch

    def encode(self, count: int, pieces: Iterable[Piece]) -> list[Vectors | str]:
        """The vectors (frames, D) of each of a unit's `count` files, or why it has none."""
        rows: list[list[Vectors]] = [[] for _ in range(count)]
        failed: dict[int, str] = {}
        for piece in pieces:
            failed |= {position: item for position, item in piece if isinstance(item, str)}
            good = [(position, item) for position, item in piece if not isinstance(item, str)]
            for position, vector in zip((p for p, _ in good), self._vectors([item for _, item in good]), strict=True):
                rows[position].append(vector)
        results: list[Vectors | str] = []
        for position, own in enumerate(rows):
            matrix = np.stack(own) if own else np.empty((0, 0), np.float32)
            reason = failed.get(position) or ("" if own else "no frame in it")
            if not reason and not np.isfinite(matrix).all():
                reason = "the model gives a NaN or an infinity for it"
            results.append(reason or matrix)
        return results

    def _frames(self, source: Source) -> Iterator[Prepared]:
        if source.refused:
            raise FilmError(source.refused)
        if is_picture(source.path):
            return map(self.preparation.image, pictures_of(source.path, self.pace.fps))
        return map(self.preparation.frame, frames_of(source.path, self.pace.fps))

    def _vectors(self, items: list[Prepared]) -> Vectors:
        if not items:
            return np.empty((0, 0), np.float32)
        # Images whose pre-processing keeps their shapes cannot be stacked.
        alike = len({tuple(array.shape for array in item.values()) for item in items}) == 1
        parts = [items] if alike else [[item] for item in items]
        with torch.inference_mode():
            found = [self.encoder(self.preparation.batch(part, self.device)) for part in parts]  # (N, D)
        vectors: Vectors = torch.cat(found).float().cpu().numpy()
        return vectors


def finish(sources: Sequence[Source], store: Store) -> list[tuple[Source, str]]:
    """Make the feature folder.

    Returns:
        the files that it lacks, with the reasons.

    Raises:
        UserError: files that no process has looked at yet, or no file with vectors.
    """
    parts = store.parts()
    missing = unfinished(sources, parts)
    if missing:
        raise UserError(
            f"{store.partial}: {len(missing)} files are not extracted yet, first {missing[0].path}; run their shard"
        )
    skipped = [(source, parts[source.id].failed) for source in sources if parts[source.id].failed]
    good = [source.id for source in sources if not parts[source.id].failed]
    if not good:
        store.remove()
        raise UserError(
            f"none of {len(sources)} files can be read; first {skipped[0][0].path}: {skipped[0][1]}; give others"
        )
    told = "".join(f"{source.path.name}\t{reason}\n" for source, reason in skipped)
    store.finish(good, {SKIPPED: told.encode("utf-8", "backslashreplace")} if skipped else None)
    return skipped


def unfinished(sources: Sequence[Source], parts: dict[str, Part]) -> list[Source]:
    """The files without vectors and without a reason, or that have changed since."""
    return [source for source in sources if source.id not in parts or parts[source.id].stamp != source.stamp()]


def _finished(unit: Unit, parts: dict[str, Part]) -> bool:
    """Whether all files of a unit have vectors; those that could not be read are tried again."""
    return not unfinished(unit, parts) and not any(parts[source.id].failed for source in unit)


def _clips(frames: Iterator[Prepared], length: int) -> Iterator[Prepared]:
    """Frames as they are, or stacked to clips; the last clip is filled up with its last frame."""
    if length == 1:
        yield from frames
        return
    clip: list[Any] = []
    for frame in frames:
        clip.append(frame[BYTES])
        if len(clip) == length:
            yield {BYTES: np.stack(clip)}  # (T, H, W, 3)
            clip = []
    if clip:
        yield {BYTES: np.stack([*clip, *[clip[-1]] * (length - len(clip))])}


def _why(error: Exception, path: Path) -> str:
    """A reason in one line, without the path."""
    if isinstance(error, OSError):
        return error.strerror or first_line(error)
    text = first_line(error) if isinstance(error, (FilmError, UserError)) else f"damaged ({first_line(error)})"
    return text.removeprefix(f"{path}: ").removesuffix("; copy it again")
