"""C2KD's published data -> our layout: frame features as a bigfile, captions as one file a split and language.

    OUT/multi_<collection>/FeatureData/<feature>/{shape.txt,id.txt,feature.bin,video2frames.txt}
    OUT/multi_<collection>/TextData/multi_<collection><split>_<language>.caption.txt, see nrccr.data.languages

Line `ITEM#LANGUAGE#K TEXT`: captions of one item with the same K are translations of each other. The language
`en_words` holds the English that the published teachers read: its words alone, but the whole caption for RUDDER.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nrccr.data.batch import ENGLISH
from nrccr.data.bigfile import Frames, write_bigfile
from nrccr.data.captions import caption_line, is_blank, shortened, write_captions
from nrccr.data.cleaning import words_of
from nrccr.data.collections import SPLITS, SplitName
from nrccr.data.languages import TEACHERS, converted_layout
from nrccr.errors import UserError, not_written
from nrccr.files import atomic_folder
from nrccr.safeload.unpickle import load_records

PublishedCollection = Literal["msrvtt", "vatex", "youcook2", "rudder"]
Texts = dict[str, list[str]]  # language -> captions by number; "" where there is none
Record = Mapping[str, Any]

# Language in the pickle -> ours.
LANGUAGES: Mapping[PublishedCollection, Mapping[str, str]] = {
    "msrvtt": {name: name for name in ("en", "de", "fr", "cs", "zh", "ru", "vi", "sw", "es")},
    "vatex": {"en": "en", "zh": "zh"},
    "youcook2": {name: name for name in ("en", "de", "fr", "zh", "ru", "vi", "es", "ja")} | {"cz": "cs"},
    "rudder": {name: name for name in ("en", "hi", "mr", "kn")},
}
FEATURES = {"2d": "clip", "2d_raw": "clip", "s3d": "s3d"}  # key in the pickle -> name of the folder


@dataclass
class Converted:
    """What a conversion wrote.

    Attributes:
        folder: the collection.
        items: split -> videos.
        captions: split -> language -> captions.
        missing: split -> language -> captions that others have and this language lacks, except filled ones.
        without_frames: ids that were left out because they have no features.
        renamed: duplicated ids with other features, by their new names.
    """

    folder: Path
    items: dict[str, int] = field(default_factory=dict)
    captions: dict[str, dict[str, int]] = field(default_factory=dict)
    missing: dict[str, dict[str, int]] = field(default_factory=dict)
    without_frames: list[str] = field(default_factory=list)
    renamed: list[str] = field(default_factory=list)

    @property
    def remarks(self) -> list[str]:
        """Remarks besides the counts, one line each."""
        lines = []
        if self.without_frames:
            left = shortened(self.without_frames)
            lines.append(f"{len(self.without_frames)} videos without frames were left out ({left})")
        if self.renamed:
            lines.append(
                f"{len(self.renamed)} videos have the id of another, with other features ({shortened(self.renamed)})"
            )
        return lines


def guess_split(path: Path) -> SplitName:
    """The split that a published file name means. What they call validation is what they test on.

    Raises:
        UserError: the name does not show it.
    """
    if "train" in path.name:
        return "train"
    if "test" in path.name or "val" in path.name:
        return "test"
    raise UserError(f"{path}: train or test? The file name has neither word, nor val; rename the file")


def pickles_by_split(pickles: Sequence[Path]) -> dict[SplitName, Path]:
    """Each file by its split, from its name.

    Raises:
        UserError: a name does not show it, or two files are of one split.
    """
    found: dict[SplitName, Path] = {}
    for path in pickles:
        split = guess_split(path)
        if split in found:
            raise UserError(f"{path}: {found[split].name} is of split {split} too; give one file a split")
        found[split] = path
    return found


def guess_collection(name: str | None, pickles: Sequence[Path]) -> PublishedCollection:
    """The collection of that name, or else the one that the files' names mean, then their folders' names.

    Raises:
        UserError: unknown, or the names do not show it.
    """
    known = ", ".join(LANGUAGES)
    if name is not None:
        chosen = next((own for own in LANGUAGES if own == name), None)
        if chosen is None:
            raise UserError(f"collection {name!r} is unknown; choose one of {known}")
        return chosen
    for parts in (-1, -3):  # youcook2/s3d/youcook_train_audio_multilingual.pkl
        words = [" ".join(path.resolve().parts[parts:]) for path in pickles]
        found = [own for own in LANGUAGES if all(own.removesuffix("2") in word for word in words)]
        if len(found) == 1:
            return found[0]
    raise UserError(f"{pickles[0]}: which collection is it? The names do not tell; give one of {known} as --name")


def convert(
    pickles: Sequence[Path], out: Path, name: str | None, *, feature: str | None = None, fill_missing: bool = False
) -> Converted:
    """Convert published files, whose names show their split and, unless `name` is given, their collection.

    Raises:
        UserError: as convert_c2kd; names that show neither split nor collection.
    """
    splits, collection = pickles_by_split(pickles), guess_collection(name, pickles)
    return convert_c2kd(splits, out, collection, feature=feature, fill_missing=fill_missing)


def convert_c2kd(
    pickles: Mapping[SplitName, Path],
    out: Path,
    collection: PublishedCollection,
    *,
    feature: str | None = None,
    fill_missing: bool = False,
) -> Converted:
    """Convert a published collection; its folder appears whole or not at all.

    Args:
        pickles: the published file of each split, one or more.
        out: the root, in which the folder `multi_<collection>` is made.
        collection: which one it is.
        feature: the feature's key in the pickle; by default the only one.
        fill_missing: fill a caption that a language lacks with the English one, or else the first there is, as the
            published loader does; by default it stays out of that language's file.

    Raises:
        UserError: the folder exists or cannot be written, a file is missing, damaged or refused, a video lacks its id,
            captions or features, none of a file has frames.
    """
    if collection not in LANGUAGES:
        raise UserError(f"collection {collection!r} is unknown; choose one of {', '.join(LANGUAGES)}")
    if not pickles:
        raise UserError("no data pickles given; name those of training and test")
    layout = converted_layout(collection)
    folder = out / layout.name
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; is the last argument the folder of collections, in which to write?")
    if folder.exists():
        raise UserError(f"{folder}: exists already; choose another folder or remove this one")
    reader = _Reader(collection, feature, fill_missing, Converted(folder))
    try:
        with atomic_folder(folder) as temporary:
            write_bigfile(
                temporary / "features", reader.videos([(split, pickles[split]) for split in SPLITS if split in pickles])
            )
            (temporary / "FeatureData").mkdir()
            (temporary / "features").rename(temporary / "FeatureData" / FEATURES.get(reader.feature, reader.feature))
            for (split, language), lines in reader.lines.items():
                write_captions(temporary / "TextData" / layout.file_name(split, language, ""), lines)
    except OSError as error:  # its message names the temporary folder
        raise not_written(folder, error, "give another folder") from error
    return reader.converted


class _Reader:
    """Reads the pickles once, one in memory at a time: yields the features, collects the captions."""

    def __init__(self, collection: PublishedCollection, feature: str | None, fill: bool, converted: Converted) -> None:
        self.collection = collection
        self.feature = feature or ""
        self.fill = fill
        self.converted = converted
        self.lines: dict[tuple[SplitName, str], list[str]] = {}
        self._width = 0
        self._digests: dict[str, bytes] = {}
        self._seen: set[str] = set()
        self._counts: dict[tuple[SplitName, str], int] = {}  # numbers given to captions, by split and item

    def videos(self, pickles: Sequence[tuple[SplitName, Path]]) -> Iterator[tuple[str, Frames]]:
        """Every video once, with its frames (F, D); captions go to `lines`."""
        for split, path in pickles:
            yield from self._videos(split, path)

    def _videos(self, split: SplitName, path: Path) -> Iterator[tuple[str, Frames]]:
        entries = [*enumerate(load_records(path))]
        if self.collection == "youcook2" and any("2d_full" in record for _, record in entries):
            entries = [(index, record) for index, record in entries if "2d_full" in record]  # as published
        self.feature = self.feature or _feature_key(path, *entries[0])
        texts = [self._texts(path, index, record, split) for index, record in entries]
        languages = list(dict.fromkeys(language for own in texts for language in own if any(own[language])))
        items = set()
        for (index, record), own in zip(entries, texts, strict=True):
            identity, frames = _identity(path, index, record), self._frames(path, index, record)
            if not len(frames):
                self.converted.without_frames.append(identity)
                continue
            item, new = self._name(identity, frames)
            self._write(split, item, own, languages)
            items.add(item)
            if new:
                yield item, frames
        if not items:
            raise UserError(f"{path}: none of its {len(entries)} videos has frames; give a file with their features")
        self.converted.items[split] = len(items)

    def _texts(self, path: Path, index: int, record: Record, split: SplitName) -> Texts:
        """A video's captions by language, and the teachers' English."""
        where = f"{path}: entry {index}"
        if self.collection == "rudder":
            captions = record.get("captions")
            if not isinstance(captions, dict):
                raise UserError(f"{where} has no dict `captions`; is this a pickle of {self.collection}?")
            given = {key: captions.get(key) for key in LANGUAGES["rudder"]}
        else:
            start = "eval_caption_" if self.collection != "youcook2" and split != "train" else "caption_"
            given = {key: record.get(start + key) for key in LANGUAGES[self.collection]}
            if self.collection != "youcook2" and given[ENGLISH] is None:
                raise UserError(f"{where} has no {start}{ENGLISH}; is this the {split} pickle of {self.collection}?")
        texts = {LANGUAGES[self.collection][key]: _captions(where, key, value) for key, value in given.items()}
        english = texts[ENGLISH]
        if self.collection == "youcook2":  # its teachers read another field than its students
            english = _captions(where, "caption", record.get("caption"))
        if not any(map(any, texts.values())):
            raise UserError(f"{where} has no captions; is this the {split} pickle of {self.collection}?")
        return texts | {TEACHERS: [self._for_teachers(text) for text in english]}

    def _for_teachers(self, text: str) -> str:
        return text if self.collection == "rudder" else " ".join(words_of(text))

    def _write(self, split: SplitName, item: str, texts: Texts, languages: Sequence[str]) -> None:
        start = self._counts.get((split, item), 0)
        count = max(map(len, texts.values()))
        self._counts[split, item] = start + count
        captions = self.converted.captions.setdefault(split, {})
        missing = self.converted.missing.setdefault(split, {})
        for number in range(count):
            own = {language: texts[language][number] for language in texts if number < len(texts[language])}
            spare = (own.get(ENGLISH) or next((text for text in own.values() if text), "")) if self.fill else ""
            for language in languages:
                text = own.get(language) or (self._for_teachers(spare) if language == TEACHERS else spare)
                if text:
                    line = caption_line(item, language, start + number, text)
                    self.lines.setdefault((split, language), []).append(line)
                counter = captions if text else missing
                counter[language] = counter.get(language, 0) + 1

    def _frames(self, path: Path, index: int, record: Record) -> Frames:
        frames = record.get(self.feature)
        where = f"{path}: entry {index}"
        if not isinstance(frames, np.ndarray):
            known = ", ".join(str(key) for key, value in record.items() if isinstance(value, np.ndarray)) or "none"
            raise UserError(f"{where} has no feature {self.feature!r} (it has {known}); give another as --feature")
        if frames.dtype.kind not in "fiu":  # float, signed, unsigned
            raise UserError(f"{where}: {self.feature!r} holds {frames.dtype}, not real numbers; name another")
        if frames.ndim != 2 or not frames.shape[1]:
            raise UserError(f"{where}: {self.feature!r} has shape {frames.shape}, not (frames, width); fix the file")
        if self._width not in (0, frames.shape[1]):
            raise UserError(
                f"{where}: {self.feature!r} is {frames.shape[1]} wide, those before {self._width}; make them agree"
            )
        self._width = frames.shape[1]
        with np.errstate(over="ignore", invalid="ignore"):
            narrow = frames.astype("<f4")
        if not np.isfinite(narrow).all():
            raise UserError(f"{where}: {self.feature!r} holds a NaN or an infinity in float32; extract it again")
        return narrow

    def _name(self, identity: str, frames: Frames) -> tuple[str, bool]:
        """The video's name here, and whether it is new: the same id with other features is another video."""
        digest = hashlib.sha256(frames.tobytes()).digest()
        name, turn = identity, 1
        while self._digests.setdefault(name, digest) != digest:
            turn += 1
            name = f"{identity}.{turn}"
        new = name not in self._seen
        self._seen.add(name)
        if new and turn > 1:
            self.converted.renamed.append(name)
        return name, new


def _identity(path: Path, index: int, record: Record) -> str:
    identity = record.get("id")
    if isinstance(identity, int) and not isinstance(identity, bool):
        identity = str(identity)
    if not isinstance(identity, str) or identity.split() != [identity] or not _encodes(identity, "latin-1"):
        raise UserError(f"{path}: entry {index} has the id {identity!r}; it must be Latin-1 text without white space")
    return identity


def _encodes(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _feature_key(path: Path, index: int, record: Record) -> str:
    found = [key for key in FEATURES if isinstance(record.get(key), np.ndarray)]
    if len(found) != 1:
        there = f"has the features {', '.join(found)}" if found else f"has no feature {' or '.join(FEATURES)}"
        raise UserError(f"{path}: entry {index} {there}; give the one to convert as --feature")
    return found[0]


def _captions(where: str, key: str, value: Any) -> list[str]:
    """No caption, one or a list of them, on one line each."""
    texts = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{where}: the captions in {key!r} are no text; fix the file")
    for text in texts:
        if not _encodes(text, "utf-8"):
            raise UserError(f"{where}: the caption {text[:80]!r} in {key!r} cannot be written as UTF-8; fix the file")
    # A text of characters without width is none: no reader of caption files takes it.
    return ["" if is_blank(text) else " ".join(text.split()) for text in texts]
