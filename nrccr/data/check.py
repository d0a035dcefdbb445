"""Look a whole collection over before hours of training, and tell everything that is wrong at once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from nrccr.data.bigfile import BigFile
from nrccr.data.captions import Captions, describe_mismatch, pair, parse_captions, shortened
from nrccr.data.collections import SPLITS, Collection, Split
from nrccr.errors import UserError


@dataclass(frozen=True)
class SplitCounts:
    """One line of the table.

    Attributes:
        split: train, val or test.
        items: videos with a caption in all files of the split.
        captions: captions in all files of the split.
        unmatched: lines without a partner, all files of the split together.
        without_features: items that have no features.
        frames: fewest, mean and most frames of an item; None where no item has features.
    """

    split: Split
    items: int
    captions: int
    unmatched: int
    without_features: int
    frames: tuple[int, float, int] | None


@dataclass
class Report:
    """What was found.

    Attributes:
        rows: one for each split with at least one readable caption.
        problems: one line each; training should not start with any.
        notes: one line each; worth knowing.
    """

    rows: list[SplitCounts] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_collection(collection: Collection, *, mismatch_tolerance: float) -> Report:
    """Validate captions and features of a collection.

    Args:
        collection: what `locate` found.
        mismatch_tolerance: largest share of a caption file's lines that may lack a partner, 0..1.

    Returns:
        counts, and every problem rather than the first: missing files, bad lines, unmatched lines above the tolerance,
        items without features, items in two splits, a wrong width, frames with a NaN or an infinity.
    """
    report = Report()
    features = _open(collection, report)
    items: dict[Split, dict[str, None]] = {}
    for split in SPLITS:
        files = _read_split(collection, split, report)
        if files:
            items[split] = _check_split(split, files, features, mismatch_tolerance, report)
    _check_overlap(items, report)
    if features is not None:
        used = {item for found in items.values() for item in found}
        idle = [video for video in features.video_ids if video not in used]
        if idle:
            report.notes.append(f"{features.folder}: {len(idle)} videos have no caption ({shortened(idle)})")
        bad = features.find_nan(progress=True)
        if bad:
            report.problems.append(
                f"{features.folder / 'feature.bin'}: {len(bad)} frames hold a NaN or an infinity ({shortened(bad)}); "
                "extract them again"
            )
    return report


def _open(collection: Collection, report: Report) -> BigFile | None:
    folder, usual = collection.features, collection.layout
    try:
        features = BigFile(folder)
    except UserError as error:
        report.problems.append(str(error))
        return None
    report.notes.append(f"{folder}: {features.count} frames, width {features.width}, {len(features.video_ids)} videos")
    if folder.name == usual.feature and features.width != usual.width:
        report.notes.append(
            f"{folder / 'shape.txt'}: the published {usual.feature} is {usual.width} wide, this {features.width}; "
            "it trains, but published checkpoints do not fit"
        )
    return features


def _read_split(collection: Collection, split: Split, report: Report) -> list[Captions]:
    files: list[Captions] = []
    for role in collection.roles(split):
        try:
            captions, problems = parse_captions(collection.file(split, role))
        except UserError as error:
            report.problems.append(str(error))
            continue
        report.problems += problems
        if captions.ids:
            files.append(captions)
        if role == "source":
            bare = [caption for caption, text in zip(captions.ids, captions.texts, strict=True) if not _has_word(text)]
            if bare:
                report.notes.append(
                    f"{captions.path}: {len(bare)} captions have no ASCII letter or digit: empty once cleaned "
                    f"({shortened(bare)})"
                )
    return files


def _has_word(text: str) -> bool:
    return re.search("[A-Za-z0-9]", text) is not None


def _check_split(
    split: Split, files: list[Captions], features: BigFile | None, tolerance: float, report: Report
) -> dict[str, None]:
    """Add the split's line and problems; gives its items, in order, whether matched or not."""
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
        report.problems.append(
            f"{files[0].path}: {len(absent)} of {len(items)} items have no features ({shortened(absent)}); "
            "extract them or remove their captions"
        )
    dropped = sum(map(len, unmatched.values()))
    frames = _frame_range(features, (item for item in items if features is not None and item in features))
    counts = SplitCounts(split, len(items), len(matched.captions[0]), dropped, len(absent), frames)
    report.rows.append(counts)
    return dict.fromkeys(item for file in files for item in file.items)


def _frame_range(features: BigFile | None, items: Iterable[str]) -> tuple[int, float, int] | None:
    if features is None:
        return None
    counts: npt.NDArray[np.int64] = features.frame_counts(items)
    return (int(counts.min()), float(counts.mean()), int(counts.max())) if len(counts) else None


def _check_overlap(items: dict[Split, dict[str, None]], report: Report) -> None:
    found = list(items)
    for index, first in enumerate(found):
        for second in found[index + 1 :]:
            shared = [item for item in items[first] if item in items[second]]
            if shared:
                report.problems.append(
                    f"splits {first} and {second} share {len(shared)} items ({shortened(shared)}); "
                    "remove them from one of the two"
                )
