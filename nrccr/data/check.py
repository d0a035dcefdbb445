"""Look a whole collection over before hours of training, and tell everything that is wrong at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from nrccr.config.schema import Config
from nrccr.data.batch import ENGLISH
from nrccr.data.bigfile import BigFile
from nrccr.data.captions import Captions, describe_mismatch, pair, parse_captions, shortened
from nrccr.data.collections import SPELLINGS, SPLITS, Collection, Split
from nrccr.data.images import PictureFiles, Vectors
from nrccr.data.languages import TEACHERS, LanguageCollection
from nrccr.errors import UserError
from nrccr.systems.c2kd.data import read_words

Source = BigFile | Vectors | PictureFiles
Found = TypeVar("Found")


@dataclass(frozen=True)
class Group:
    """Caption files of a split that are matched with each other.

    Attributes:
        split: train, val or test.
        files: each gives a path, or raises UserError where there is no such file.
        english: the first holds English, which is cleaned.
        mixed: it holds captions in several languages.
    """

    split: Split
    files: Sequence[Callable[[], Path]]
    english: bool = True
    mixed: bool = False


@dataclass(frozen=True)
class SplitCounts:
    """One line of the table.

    Attributes:
        split: train, val or test.
        items: videos or images with a caption in all files of the split.
        captions: captions in all files of the split.
        unmatched: lines without a partner, all files of the split together.
        without_features: items that have no features.
        frames: fewest, mean and most frames of an item; None where no item has features, and of images.
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
        rows: one for each group of files with at least one readable caption.
        problems: one line each; training should not start with any.
        notes: one line each; worth knowing.
    """

    rows: list[SplitCounts] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def nrccr_groups(collection: Collection) -> list[Group]:
    """The files of each split that NRCCR matches."""
    return [
        Group(split, [partial(collection.file, split, role) for role in collection.roles(split)]) for split in SPLITS
    ]


def check_collection(
    collection: Collection, groups: Sequence[Group], *, mismatch_tolerance: float, pictures: bool = False
) -> Report:
    """Validate captions and features of a collection.

    Args:
        collection: what `locate` found.
        groups: its caption files.
        mismatch_tolerance: largest share of a caption file's lines that may lack a partner, 0..1.
        pictures: on a collection of images, look at raw images, not at vectors.

    Returns:
        counts, and every problem rather than the first: missing files, bad lines, unmatched lines above the tolerance,
        items without features, items in two splits, a wrong width, frames with a NaN or an infinity.
    """
    report = Report()
    features = _open(collection, report) if collection.layout.images is None else None
    raw = _open_pictures(collection, report) if pictures else None
    widths: dict[Split, int] = {}
    items: dict[Split, dict[str, None]] = {}
    for split in dict.fromkeys(group.split for group in groups):
        source: Source | None = features or raw
        if collection.layout.images is not None and not pictures:
            source = _open_vectors(collection, split, widths, report)
        for group in groups:
            files = _read_group(group, report) if group.split == split else []
            if files:
                found = _check_group(group, files, source, mismatch_tolerance, report)
                items.setdefault(split, {}).update(found)
    _check_overlap(items, report)
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
        _check_numbers(features, report)
    return report


def check_languages(collection: LanguageCollection, config: Config) -> Report:
    """Validate a collection that is read by language (C2KD), and what else its training reads.

    Args:
        collection: what `locate_languages` found.
        config: says which languages are wanted, the list of words and the teachers.

    Returns:
        As check_collection. A split's unmatched captions are those that another of its languages has; they are notes.
    """
    wanted = config.data.languages
    trained = [ENGLISH] if config.value("c2kd.stage") == "zero_shot" else wanted
    report = Report()
    features: Source | None = _open_folder(collection.features, report) if collection.images is None else None
    widths: dict[Split, int] = {}
    items: dict[Split, dict[str, None]] = {}
    for split in SPLITS:
        if not collection.has(split):
            missing = "no validation split: the last epoch is kept" if split == "val" else f"no split {split}"
            (report.notes if split == "val" else report.problems).append(f"{collection.folder}: {missing}")
            continue
        if collection.images is not None:
            features = _open_vectors(collection.images, split, widths, report)
        languages = collection.languages(split, trained if split == "train" else wanted)
        if split == "train" and ENGLISH not in languages:
            where = "data.languages" if wanted else collection.folder / "TextData"
            lost = ENGLISH if wanted else collection.layout.file_name(split, ENGLISH, collection.translator)
            report.problems.append(f"{where}: training needs English captions; add {lost}")
        items[split] = _check_spoken(collection, split, languages, features, report)
    _check_overlap(items, report)
    _check_numbers(features, report)
    if collection.find("train", TEACHERS) is not None:
        _read(partial(collection.file, "train", TEACHERS), report)
    _check_settings(config, report)
    taught = bool(config.value("c2kd.teachers"))
    report.notes += collection.notes(wanted, taught=taught, english_only=trained == [ENGLISH])
    return report


def _check_settings(config: Config, report: Report) -> None:
    """Add what is wrong with the list of words and the teachers."""
    words = config.value("c2kd.words")
    if words is not None:
        _attempt(partial(read_words, Path(words)), report)
    report.problems += [
        f"c2kd.teachers: {name}: no such run folder or checkpoint; train it first or name another"
        for name in config.value("c2kd.teachers")
        if not Path(name).exists()
    ]


def _check_spoken(
    collection: LanguageCollection, split: Split, languages: Sequence[str], features: Source | None, report: Report
) -> dict[str, None]:
    """Add the split's line, notes and problems; gives its items, in order."""
    found = {language: _read(partial(collection.file, split, language), report) for language in languages}
    files = [captions for captions in found.values() if captions is not None]
    keys = dict.fromkeys(key for captions in files for key in captions.keys)
    lacking = [len(keys) - len(captions) for captions in files]
    report.notes += [
        f"{captions.path}: lacks {lost} caption{'s' if lost > 1 else ''} that another language has"
        for captions, lost in zip(files, lacking, strict=True)
        if lost
    ]
    english = found.get(ENGLISH)
    if split == "train" and english:
        known = set(english.keys)
        report.problems += [
            f"{captions.path}: no caption has the item and number of one in {english.path.name}; compare ids"
            for captions in files
            if captions and known.isdisjoint(captions.keys)
        ]
    items = dict.fromkeys(item for item, _ in keys)
    absent = [item for item in items if features is not None and item not in features]
    if absent:
        report.problems.append(
            f"{collection.folder}: {len(absent)} of {len(items)} items of split {split} have no features "
            f"({shortened(absent)}); extract them or remove their captions"
        )
    frames = _frame_range(features, (item for item in items if features is not None and item in features))
    if items:
        report.rows.append(SplitCounts(split, len(items), sum(map(len, files)), sum(lacking), len(absent), frames))
    return items


def _open_folder(folder: Path, report: Report) -> BigFile | None:
    features = _attempt(partial(BigFile, folder), report)
    if features is None:
        return None
    report.notes.append(f"{folder}: {features.count} frames, width {features.width}, {len(features.video_ids)} videos")
    return features


def _check_numbers(features: Source | None, report: Report) -> None:
    bad = features.find_nan(progress=True) if isinstance(features, BigFile) else []
    if isinstance(features, BigFile) and bad:
        report.problems.append(
            f"{features.folder / 'feature.bin'}: {len(bad)} frames hold a NaN or an infinity ({shortened(bad)}); "
            "extract them again"
        )


def _open(collection: Collection, report: Report) -> BigFile | None:
    folder, usual = collection.features, collection.layout
    features = _open_folder(folder, report)
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


def _open_vectors(collection: Collection, split: Split, widths: dict[Split, int], report: Report) -> Vectors | None:
    vectors = _attempt(lambda: Vectors(*collection.vectors(split)), report)
    if vectors is None:
        return None
    widths[split] = vectors.width
    report.notes.append(f"{vectors.path}: {vectors.count} images, width {vectors.width}")
    if collection.features.name in SPELLINGS and len(widths) == 1:
        report.notes += _unusual_width(collection, vectors.path, vectors.width)
    problem = vectors.problem([*vectors.image_ids])
    if problem:
        report.problems.append(problem)
    return vectors


def _open_pictures(collection: Collection, report: Report) -> PictureFiles | None:
    assert collection.pictures is not None
    return _attempt(partial(PictureFiles, collection.pictures), report)


def _read(path: Callable[[], Path], report: Report, *, mixed: bool = False) -> Captions | None:
    """A file's good lines, if it can be read; the report gets what is wrong."""
    captions, problems = _attempt(lambda: parse_captions(path(), mixed=mixed), report) or (None, [])
    report.problems += problems
    return captions


def _attempt(action: Callable[[], Found], report: Report) -> Found | None:
    """What the action gives, or its error as a problem."""
    try:
        return action()
    except UserError as error:
        report.problems.append(str(error))
        return None


def _read_group(group: Group, report: Report) -> list[Captions]:
    files: list[Captions] = []
    for number, path in enumerate(group.files):
        captions = _read(path, report, mixed=group.mixed)
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
    group: Group, files: list[Captions], features: Source | None, tolerance: float, report: Report
) -> dict[str, None]:
    """Add the group's line and problems; gives its items, in order, whether matched or not."""
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
    if isinstance(features, PictureFiles):
        problem = features.unreadable([item for item in items if item in features])
        report.problems += [problem] if problem else []
    dropped = sum(map(len, unmatched.values()))
    frames = _frame_range(features, (item for item in items if features is not None and item in features))
    report.rows.append(SplitCounts(group.split, len(items), len(matched.captions[0]), dropped, len(absent), frames))
    return dict.fromkeys(item for file in files for item in file.items)


def _frame_range(features: Source | None, items: Iterable[str]) -> tuple[int, float, int] | None:
    if not isinstance(features, BigFile):
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
