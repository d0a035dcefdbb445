"""Validate a whole collection before hours of training, and report everything that is wrong at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from nrccr.config.choices import Pixels
from nrccr.data.batch import ENGLISH
from nrccr.data.bigfile import BigFile
from nrccr.data.captions import Captions, describe_mismatch, pair, parse_captions, shortened, written_otherwise
from nrccr.data.collections import SPELLINGS, SPLITS, Collection, SplitName
from nrccr.data.images import EncodedImages, PictureFiles, Vectors
from nrccr.data.vectors import open_vectors as vectors_of
from nrccr.errors import UserError

Source = BigFile | Vectors | EncodedImages | PictureFiles
Found = TypeVar("Found")
LARGE = 1e18  # its square is still a float32


@dataclass(frozen=True)
class FileGroup:
    """Caption files of a split that are matched with each other.

    Attributes:
        split: train, val or test.
        files: each gives a path, or raises UserError where there is no such file.
        english: the first holds English, which is cleaned.
        mixed: it holds captions in several languages.
    """

    split: SplitName
    files: Sequence[Callable[[], Path]]
    english: bool = True
    mixed: bool = False


@dataclass(frozen=True)
class ReportRow:
    """One row of the report.

    Attributes:
        split: train, val or test.
        items: videos or images with a caption in all files of the split.
        captions: captions in all files of the split.
        unmatched: lines without a partner, all files of the split together.
        without_features: items that have no features.
        frames: fewest, mean and most frames of an item; None where no item has features, and of images.
    """

    split: SplitName
    items: int
    captions: int
    unmatched: int
    without_features: int
    frames: tuple[int, float, int] | None


@dataclass
class Report:
    """Counts, problems and notes of a collection.

    Attributes:
        rows: one for each group of files with at least one readable caption.
        problems: one line each; training should not start with any.
        notes: one line each; worth knowing.
    """

    rows: list[ReportRow] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Checked:
    """A validated collection.

    Attributes:
        name: of the collection.
        folder: where it is.
        report: counts, problems and notes.
    """

    name: str
    folder: Path
    report: Report


def matched_files(collection: Collection, *, back: bool = True) -> list[FileGroup]:
    """The files of each split that are matched with each other: sources, targets, with `back` back-translations."""
    english = collection.layout.source == ENGLISH

    def files(split: SplitName) -> list[Callable[[], Path]]:
        roles = [role for role in collection.roles(split) if back or role != "back"]
        return [partial(collection.file, split, role) for role in roles]

    return [FileGroup(split, files(split), english=english) for split in SPLITS]


def check_collection(
    collection: Collection, groups: Sequence[FileGroup], *, mismatch_tolerance: float, pictures: Pixels | None = None
) -> Report:
    """Validate captions and features of a collection.

    Args:
        collection: from `locate`.
        groups: its caption files.
        mismatch_tolerance: largest share of a caption file's lines that may lack a partner, 0..1.
        pictures: on a collection of images, check raw images that are read so, not vectors.

    Returns:
        counts, and every problem rather than the first: missing files, bad lines, unmatched lines above the tolerance,
        items without features, items in two splits, a wrong width, frames with a NaN or an infinity.
    """
    report = Report()
    features = _open(collection, report) if collection.layout.images is None else None
    raw = _open_pictures(collection, pictures, report) if pictures else None
    widths: dict[SplitName, int] = {}
    items: dict[SplitName, dict[str, None]] = {}
    for split in dict.fromkeys(group.split for group in groups):
        source: Source | None = features or raw
        if collection.layout.images is not None and not pictures:
            source = open_vectors(collection, split, widths, report)
        for group in groups:
            files = _read_group(group, report) if group.split == split else []
            if files:
                found = _check_group(group, files, source, mismatch_tolerance, report)
                items.setdefault(split, {}).update(found)
    check_overlap(items, report)
    if len(set(widths.values())) > 1:
        listed = ", ".join(f"{split} {width}" for split, width in widths.items())
        report.problems.append(
            f"{collection.features}: the splits' vectors differ in width ({listed}); extract them again"
        )
    if features is not None:
        used = {item for found in items.values() for item in found}
        idle = [video for video in features.video_ids if video not in used]
        if idle:
            report.notes.append(f"{features.folder}: {len(idle)} videos have no caption ({shortened(idle)})")
        check_numbers(features, report)
    return report


def open_folder(folder: Path, report: Report) -> BigFile | None:
    """Frame features of videos, or none; adds a note or a problem to the report."""
    features = attempt(partial(BigFile, folder), report)
    if features is None:
        return None
    report.notes.append(f"{folder}: {features.count} frames, width {features.width}, {len(features.video_ids)} videos")
    return features


def check_numbers(features: Source | None, report: Report) -> None:
    """Add frames that hold a NaN, an infinity or too large numbers to the problems, and those of zeros to the notes."""
    if not isinstance(features, BigFile):
        return
    bad: list[int] = []
    large: list[int] = []
    empty: list[int] = []
    for rows, frames in features.blocks(progress=True):
        most = np.abs(frames).max(axis=1)  # (rows,)
        bad += rows[~np.isfinite(most)].tolist()
        large += rows[np.isfinite(most) & (most > LARGE)].tolist()
        empty += rows[most == 0].tolist()
    place = features.folder / "feature.bin"
    for found, what in ((bad, "a NaN or an infinity"), (large, f"numbers above {LARGE:g}, too large to compute with")):
        if found:
            names = shortened(features.names(found))
            report.problems.append(f"{place}: {len(found)} frames hold {what} ({names}); extract them again")
    if empty:
        names = shortened(features.names(empty))
        report.notes.append(f"{place}: {len(empty)} frames hold zeros alone ({names}); did their extraction fail?")


def _open(collection: Collection, report: Report) -> BigFile | None:
    folder, usual = collection.features, collection.layout
    features = open_folder(folder, report)
    if features is not None and folder.name == usual.feature:
        report.notes += _unusual_width(collection, folder / "shape.txt", features.width)
    return features


def _unusual_width(collection: Collection, path: Path, width: int) -> list[str]:
    usual = collection.layout
    if width == usual.width:
        return []
    return [
        f"{path}: the published {usual.feature} is {usual.width} wide, this {width}; "
        "it trains, but published checkpoints do not fit"
    ]


def open_vectors(
    collection: Collection, split: SplitName, widths: dict[SplitName, int], report: Report
) -> Vectors | EncodedImages | None:
    """Vectors of a split's images, or none; adds to `widths` and the report."""
    vectors = attempt(lambda: vectors_of(collection, split), report)
    if vectors is None:
        return None
    widths[split] = vectors.width
    report.notes.append(f"{vectors.path}: {vectors.count} images, width {vectors.width}")
    if collection.features.name in SPELLINGS and len(widths) == 1:
        report.notes += _unusual_width(collection, vectors.path, vectors.width)
    ids = [*vectors.image_ids]
    problem = vectors.problem(ids)
    if problem:
        report.problems.append(problem)
    most = np.array([np.abs(vectors.read([image])).max() for image in ids])  # (images,)
    large = [image for image, value in zip(ids, most, strict=True) if LARGE < value < np.inf]
    if large:
        report.problems.append(
            f"{vectors.path}: {len(large)} vectors hold numbers above {LARGE:g}, too large to compute with "
            f"({shortened(large)}); extract them again"
        )
    empty = [image for image, value in zip(ids, most, strict=True) if value == 0]
    if empty:
        report.notes.append(
            f"{vectors.path}: {len(empty)} vectors hold zeros alone ({shortened(empty)}); did their extraction fail?"
        )
    return vectors


def _open_pictures(collection: Collection, pixels: Pixels, report: Report) -> PictureFiles | None:
    assert collection.pictures is not None
    return attempt(partial(PictureFiles, collection.pictures, pixels), report)


def read_file(path: Callable[[], Path], report: Report, *, mixed: bool = False) -> Captions | None:
    """A file's good lines, if it can be read; adds problems to the report."""
    captions, problems = attempt(lambda: parse_captions(path(), mixed=mixed), report) or (None, [])
    report.problems += problems
    return captions


def attempt(action: Callable[[], Found], report: Report) -> Found | None:
    """The result of an action; its error is added as a problem."""
    try:
        return action()
    except UserError as error:
        report.problems.append(str(error))
        return None


def _read_group(group: FileGroup, report: Report) -> list[Captions]:
    files: list[Captions] = []
    for number, path in enumerate(group.files):
        captions = read_file(path, report, mixed=group.mixed)
        if not captions:
            continue
        files.append(captions)
        if number == 0 and group.english:
            bare = [caption for caption, text in zip(captions.ids, captions.texts, strict=True) if not _has_word(text)]
            if bare:
                report.notes.append(
                    f"{captions.path}: {len(bare)} captions have no ASCII letter or digit: empty once cleaned "
                    f"({shortened(bare)})"
                )
    return files


def _has_word(text: str) -> bool:
    return re.search("[A-Za-z0-9]", text) is not None


def _check_group(
    group: FileGroup, files: list[Captions], features: Source | None, tolerance: float, report: Report
) -> dict[str, None]:
    """Add the group's row and problems; returns its items, in order, whether matched or not."""
    matched = pair(files)
    problem = describe_mismatch(files, matched, tolerance)
    unmatched = {path: lost for path, lost in matched.unmatched.items() if lost}
    if problem:
        report.problems.append(problem)
    else:
        report.notes += [f"{path}: {len(lost)} lines unmatched ({shortened(lost)})" for path, lost in unmatched.items()]
    items = dict.fromkeys(matched.captions[0].items)
    absent = [item for item in items if features is not None and item not in features]
    if absent:
        assert features is not None
        known = features.video_ids if isinstance(features, BigFile) else features.image_ids
        report.problems.append(
            f"{files[0].path}: {len(absent)} of {len(items)} items have no features ({shortened(absent)}); "
            f"extract them or remove their captions{written_otherwise(absent, known)}"
        )
    if isinstance(features, PictureFiles):
        problem = features.unreadable([item for item in items if item in features])
        report.problems += [problem] if problem else []
    dropped = sum(map(len, unmatched.values()))
    frames = frame_range(features, (item for item in items if features is not None and item in features))
    report.rows.append(ReportRow(group.split, len(items), len(matched.captions[0]), dropped, len(absent), frames))
    return dict.fromkeys(item for file in files for item in file.items)


def frame_range(features: Source | None, items: Iterable[str]) -> tuple[int, float, int] | None:
    """Fewest, mean and most frames of some items; none for images."""
    if not isinstance(features, BigFile):
        return None
    counts: npt.NDArray[np.int64] = features.frame_counts(items)
    return (int(counts.min()), float(counts.mean()), int(counts.max())) if len(counts) else None


def check_overlap(items: dict[SplitName, dict[str, None]], report: Report) -> None:
    """Add items that are in two splits to the problems."""
    found = list(items)
    for index, first in enumerate(found):
        for second in found[index + 1 :]:
            shared = [item for item in items[first] if item in items[second]]
            if shared:
                report.problems.append(
                    f"splits {first} and {second} share {len(shared)} items ({shortened(shared)}); "
                    "remove them from one of the two"
                )
