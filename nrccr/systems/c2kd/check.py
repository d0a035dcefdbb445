"""`nrccr check` for C2KD: captions by language, the list of words, the teachers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from nrccr.config.schema import Config
from nrccr.data.batch import ENGLISH
from nrccr.data.captions import shortened
from nrccr.data.check import (
    Report,
    ReportRow,
    Source,
    attempt,
    check_numbers,
    check_overlap,
    frame_range,
    open_folder,
    open_vectors,
    read_file,
)
from nrccr.data.collections import SPLITS, SplitName
from nrccr.data.languages import TEACHERS, LanguageCollection
from nrccr.systems.c2kd.data import read_words
from nrccr.systems.c2kd.settings import C2KDSection


def check_languages(collection: LanguageCollection, config: Config) -> Report:
    """Validate a collection that is read by language (C2KD), and what else its training reads.

    Args:
        collection: from `locate_languages`.
        config: the languages, the list of words and the teachers.

    Returns:
        As check_collection. A split's unmatched captions are those that another of its languages has; they are notes.
    """
    settings, wanted = config.section(C2KDSection), config.data.languages
    trained = [ENGLISH] if settings.stage == "zero_shot" else wanted
    report = Report()
    features: Source | None = open_folder(collection.features, report) if collection.images is None else None
    widths: dict[SplitName, int] = {}
    items: dict[SplitName, dict[str, None]] = {}
    for split in SPLITS:
        if not collection.has(split):
            missing = "no validation split: the last epoch is kept" if split == "val" else f"no split {split}"
            (report.notes if split == "val" else report.problems).append(f"{collection.folder}: {missing}")
            continue
        if collection.images is not None:
            features = open_vectors(collection.images, split, widths, report)
        languages = collection.languages(split, trained if split == "train" else wanted)
        if split == "train" and ENGLISH not in languages:
            where = "data.languages" if wanted else collection.folder / "TextData"
            lost = ENGLISH if wanted else collection.layout.file_name(split, ENGLISH, collection.translator)
            report.problems.append(f"{where}: training needs English captions; add {lost}")
        items[split] = _check_split(collection, split, languages, features, report)
    check_overlap(items, report)
    check_numbers(features, report)
    if collection.find("train", TEACHERS) is not None:
        read_file(partial(collection.file, "train", TEACHERS), report)
    _check_settings(settings, report)
    report.notes += collection.notes(wanted, taught=bool(settings.teachers), english_only=trained == [ENGLISH])
    return report


def _check_settings(settings: C2KDSection, report: Report) -> None:
    """Add problems of the list of words and the teachers."""
    if settings.words is not None:
        attempt(partial(read_words, Path(settings.words)), report)
    report.problems += [
        f"c2kd.teachers: {name}: no such run folder or checkpoint; train it first or name another"
        for name in settings.teachers
        if not Path(name).exists()
    ]


def _check_split(
    collection: LanguageCollection, split: SplitName, languages: Sequence[str], features: Source | None, report: Report
) -> dict[str, None]:
    """Add the split's row, notes and problems; returns its items, in order."""
    found = {language: read_file(partial(collection.file, split, language), report) for language in languages}
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
    frames = frame_range(features, (item for item in items if features is not None and item in features))
    if items:
        report.rows.append(ReportRow(split, len(items), sum(map(len, files)), sum(lacking), len(absent), frames))
    return items
