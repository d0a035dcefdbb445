"""What C2KD reads: videos with captions in many languages for training, and queries by language.

A caption is known by its item and number: captions of one item with the same number are translations of each other.
N videos in a batch, n of them with a caption in some language, L languages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from nrccr.config.choices import FrameSampling
from nrccr.data.batch import ENGLISH, Parts, VideoBatch
from nrccr.data.bigfile import BigFile
from nrccr.data.captions import Captions, read_captions
from nrccr.data.cleaning import words_of
from nrccr.data.collections import SplitName
from nrccr.data.images import EncodedImages, Vectors
from nrccr.data.items import Images, Videos, Visuals
from nrccr.data.languages import TEACHERS, LanguageCollection
from nrccr.data.queries import Queries, Sample, Split, numbered
from nrccr.data.sampling import Indices, caption_draws
from nrccr.data.tokens import Tokenizer, TokenTable
from nrccr.data.vectors import open_vectors
from nrccr.errors import UserError
from nrccr.sizes import regular_bytes
from nrccr.systems.c2kd.batch import MultilingualBatch


def read_words(path: Path) -> frozenset[str]:
    """The words of a list, one a line: those of a word2vec file.

    Raises:
        UserError: no such file, not UTF-8, or no words in it.
    """
    try:
        words = frozenset(regular_bytes(path).decode("utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a list of words in UTF-8 ({error}); check c2kd.words") from error
    if not words:
        raise UserError(f"{path}: holds no words; write one a line, or leave c2kd.words out")
    return words


@dataclass(frozen=True)
class LanguageCounts:
    """Counts of a split, by language.

    Attributes:
        items: videos or images.
        captions: by language.
        missing: by language, captions that another language has and this one lacks.
        cut: captions shortened to the longest allowed.
        empty: English captions without a known word.
    """

    items: int
    captions: dict[str, int]
    missing: dict[str, int]
    cut: int
    empty: int = 0


@dataclass(frozen=True)
class LanguagePairs:
    """The training set: an index is a video, of which an epoch sees one caption number in every language.

    Attributes:
        texts: language -> tokens of its captions, English first.
        places: language -> (slots,) the caption's position in `texts`, or -1; a slot is a caption number of a video.
        starts: (videos + 1,) where the slots of each video begin.
        visuals: the items.
        empty: (English captions,) whether a caption has no known word.
        counts: what was read.
        taught: each teacher's own tokens of the English captions, for teachers in the loop.
        seed: of the draws.
        epoch: from 0; see at_epoch.
    """

    texts: Mapping[str, TokenTable]
    places: Mapping[str, Indices]
    starts: Indices
    visuals: Visuals
    empty: npt.NDArray[np.bool_]
    counts: LanguageCounts
    taught: Sequence[TokenTable] = field(default=())
    seed: int = 0
    epoch: int = 0

    def __len__(self) -> int:
        return len(self.visuals)

    def at_epoch(self, epoch: int) -> LanguagePairs:
        """The data of an epoch, from 0: which caption of each video depends on (seed, epoch, video) alone."""
        return replace(self, epoch=epoch)

    def __getitem__(self, indices: Indices) -> Parts[MultilingualBatch]:
        """As `batch`, for the loop."""
        return self.share(indices, indices)

    def share(self, own: Indices, whole: Indices) -> Parts[MultilingualBatch]:
        """Some videos of a batch, as `batch`: padding never counts, so that the others of `whole` change nothing."""
        return Parts([self.batch(own)])

    def batch(self, indices: Sequence[int] | Indices) -> MultilingualBatch:
        """The videos at `indices`, with the caption that the epoch drew in every language that has it."""
        chosen = np.asarray(indices, dtype=np.int64)
        first, end = self.starts[chosen], self.starts[chosen + 1]  # (N,)
        slots = first + caption_draws(self.seed, self.epoch, chosen, end - first)  # (N,)
        captions = {language: place[slots] for language, place in self.places.items()}  # each (N,), -1: none
        rows = {language: np.flatnonzero(own >= 0) for language, own in captions.items()}  # each (n,)
        english = captions[ENGLISH][rows[ENGLISH]]
        visual = self.visuals.batch(chosen)
        empty = np.zeros(len(chosen), dtype=bool)
        empty[rows[ENGLISH]] = self.empty[english]
        if isinstance(visual, VideoBatch):
            empty |= ~visual.mask.any(dim=1).numpy()
        return MultilingualBatch.of(
            {language: table.batch(captions[language][rows[language]]) for language, table in self.texts.items()},
            {language: torch.from_numpy(own) for language, own in rows.items()},
            visual,
            padding=self.texts[ENGLISH].pad,
            empty=torch.from_numpy(empty) if empty.any() else None,
            english=torch.from_numpy(english),
            items=torch.from_numpy(chosen),
            taught=[table.batch(english) for table in self.taught],
        )

    def fingerprint(self) -> str:
        """A hash of all captions' tokens and of which video and number each has."""
        digest = hashlib.sha256("\n".join(self.visuals.ids).encode())
        for language, table in self.texts.items():
            digest.update(language.encode() + table.content() + self.places[language].tobytes())
        for table in self.taught:
            digest.update(table.content())
        for values in (self.starts, self.empty, self.visuals.lengths):
            digest.update(values.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class LanguageReader:
    """Reads splits of a collection by language.

    Attributes:
        collection: found on disk.
        max_frames: frames kept of a longer video.
        sampling: the first of them, or spread evenly.
        languages: which; empty: all whose files exist.
        words: English words that count, see `read_words`; none: all words count.
        features: of videos; opened once.
    """

    collection: LanguageCollection
    max_frames: int
    sampling: FrameSampling
    languages: Sequence[str] = ()
    words: frozenset[str] | None = None
    features: BigFile | None = None

    @classmethod
    def open(
        cls,
        collection: LanguageCollection,
        max_frames: int,
        sampling: FrameSampling,
        languages: Sequence[str] = (),
        words: Path | None = None,
    ) -> LanguageReader:
        """The reader of a collection.

        Raises:
            UserError: damaged features, or a list of words that cannot be read.
        """
        return cls(
            collection,
            max_frames,
            sampling,
            languages,
            None if words is None else read_words(words),
            BigFile(collection.features) if collection.images is None else None,
        )

    def width(self, split: SplitName) -> int:
        """Width of the features.

        Raises:
            UserError: no vectors of the split's images.
        """
        if self.features is not None:
            return self.features.width
        return self._vectors(split).width

    def pairs(
        self, tokenizer: Tokenizer, seed: int, *, english_only: bool = False, teachers: Sequence[Tokenizer] = ()
    ) -> LanguagePairs:
        """The training split.

        Args:
            tokenizer: the student's.
            seed: of the draws of captions.
            english_only: leave the other languages out (zero-shot).
            teachers: their tokenisers; each reads the English captions as `teacher_texts` gives them.

        Raises:
            UserError: missing or malformed files, items without features, no English, under two videos.
        """
        files = self._captions("train", [ENGLISH] if english_only else self.languages)
        if ENGLISH not in files:
            raise UserError("data.languages: training needs English captions; add en")
        english = files[ENGLISH]
        for captions in files.values():
            if not set(captions.keys) & set(english.keys):
                raise UserError(
                    f"{captions.path}: no caption has the item and number of one in {english.path.name}; compare ids"
                )
        slots = _slots(files.values())
        if len(slots) < 2:
            raise UserError(f"{english.path}: training needs at least two videos")
        starts = np.cumsum([0, *map(len, slots.values())], dtype=np.int64)
        position = {
            (item, number): int(start) + order
            for start, (item, numbers) in zip(starts, slots.items(), strict=False)
            for order, number in enumerate(numbers)
        }
        places = {language: np.full(int(starts[-1]), -1, dtype=np.int64) for language in files}
        for language, captions in files.items():
            places[language][[position[key] for key in captions.keys]] = np.arange(len(captions))
        texts = {language: tokenizer.encode(captions.texts) for language, captions in files.items()}
        taught = self.teacher_texts(english)
        empty = np.array([not self._has_known_word(text) for text in taught])
        return LanguagePairs(
            texts=texts,
            places=places,
            starts=starts,
            visuals=self._visuals(list(slots), "train"),
            empty=empty,
            counts=_count(files, len(slots), int(starts[-1]), texts, int(empty.sum())),
            taught=[teacher.encode(taught) for teacher in teachers],
            seed=seed,
        )

    def teacher_texts(self, english: Captions) -> list[str]:
        """The teachers' input for the training set's English captions.

        Published pickles hold it; elsewhere it is the caption reduced to its words, with spaces between.
        A caption without words is the empty one.

        Raises:
            UserError: a malformed file.
        """
        path = self.collection.find("train", TEACHERS)
        if path is None:
            return [" ".join(words_of(text)) for text in english.texts]
        captions = read_captions(path)
        texts = dict(zip(captions.keys, captions.texts, strict=True))
        return [texts.get(key, "") for key in english.keys]

    def split(self, name: SplitName, tokenizer: Tokenizer, sample: Sample | None = None) -> Split:
        """A split's queries by language; the gallery does not depend on the languages.

        Args:
            name: train, val or test.
            tokenizer: of the queries.
            sample: only so many queries of each language: captions, or where these are averaged items with all theirs.

        Raises:
            UserError: missing or malformed files, items without features.
        """
        every = self._captions(name, ())
        chosen = self.collection.languages(name, self.languages)
        for language in chosen:
            self.collection.file(name, language)  # raises if it is missing
        files = {language: every[language] for language in chosen}
        if sample is not None:
            averaged = self.collection.layout.averaged
            files = every = {
                language: sample.take_items(name, captions) if averaged else sample.take(name, [captions])[0]
                for language, captions in files.items()
            }
        slots = _slots(every.values())
        places = {item: index for index, item in enumerate(slots)}
        texts = {language: tokenizer.encode(captions.texts) for language, captions in files.items()}
        queries = {
            language: Queries(texts[language], captions.ids, numbered(captions.items, places)[1], texts=captions.texts)
            for language, captions in files.items()
        }
        return Split(
            name=name,
            collection=self.collection.name,
            queries=queries,
            gallery=self._visuals(list(slots), name),
            counts=asdict(_count(files, len(slots), sum(map(len, slots.values())), texts, 0)),
            averaged=self.collection.layout.averaged,
            by_language=True,
        )

    def _captions(self, split: SplitName, languages: Sequence[str]) -> dict[str, Captions]:
        chosen = self.collection.languages(split, languages)
        return {language: read_captions(self.collection.file(split, language)) for language in chosen}

    def _visuals(self, items: Sequence[str], split: SplitName) -> Visuals:
        if self.features is not None:
            return Videos(self.features, items, self.max_frames, self.sampling)
        vectors = self._vectors(split)
        return Images(vectors, items, vectors.path)

    def _vectors(self, split: SplitName) -> Vectors | EncodedImages:
        assert self.collection.images is not None
        return open_vectors(self.collection.images, split)

    def _has_known_word(self, text: str) -> bool:
        return any(self.words is None or word in self.words for word in words_of(text))


def _slots(files: Iterable[Captions]) -> dict[str, dict[str, None]]:
    """Each item's caption numbers in any language, both in the order in which the files name them."""
    slots: dict[str, dict[str, None]] = {}
    for captions in files:
        for item, number in captions.keys:
            slots.setdefault(item, {})[number] = None
    return slots


def _count(
    files: Mapping[str, Captions], items: int, slots: int, texts: Mapping[str, TokenTable], empty: int
) -> LanguageCounts:
    return LanguageCounts(
        items=items,
        captions={language: len(captions) for language, captions in files.items()},
        missing={language: slots - len(captions) for language, captions in files.items()},
        cut=sum(table.cut for table in texts.values()),
        empty=empty,
    )
