"""What MLCMR reads: training captions in two languages with masked views, and queries in either.

Source is English, target the other language, whichever of them is translated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from nrccr.config.schema import Config
from nrccr.data.batch import ENGLISH, Parts, TextBatch, ViewBatch
from nrccr.data.bigfile import BigFile
from nrccr.data.captions import Captions, match, read_captions
from nrccr.data.check import FileGroup
from nrccr.data.cleaning import Cleaning
from nrccr.data.collections import Collection, SplitName, locate, require_source
from nrccr.data.items import Videos
from nrccr.data.queries import Counts, Queries, Sample, Split, items_of, numbered
from nrccr.data.sampling import PARTS, Indices, frames_kept, mask_tokens, masked_view, parts_of_share
from nrccr.data.tokens import CaptionTokenizer, TokenTable
from nrccr.errors import UserError
from nrccr.systems.mlcmr.settings import padding_free

CLEANING = Cleaning(training=True, back=True, queries=True)  # all English is cleaned


@dataclass(frozen=True)
class ViewPairs:
    """Training captions and their videos, each with a masked view that is drawn anew in every epoch.

    Attributes:
        source: tokens of the English captions; where the languages are not parallel those of all captions.
        target: the same captions in the other language, or none where the languages are not parallel.
        videos: the items.
        item_of: (pairs,) each pair's item as a position in `videos`.
        parts: parts of like length that a batch is cut into; 1 where padding counts.
        counts: of captions, items and more.
        seed: of the views.
        mask_id: the vocabulary's [MASK].
        epoch: whose views.
    """

    source: TokenTable
    target: TokenTable | None
    videos: Videos
    item_of: Indices
    parts: int
    counts: Counts
    seed: int
    mask_id: int
    epoch: int = 0

    def __len__(self) -> int:
        return len(self.item_of)

    @property
    def tables(self) -> list[TokenTable]:
        """The captions' tokens, of one language or both."""
        return [self.source] if self.target is None else [self.source, self.target]

    def at_epoch(self, epoch: int) -> ViewPairs:
        """The pairs with the views of an epoch."""
        return replace(self, epoch=epoch)

    def __getitem__(self, indices: Indices) -> Parts[ViewBatch]:
        """The pairs at `indices`, a batch of the loader's sampler."""
        return self.share(indices, indices)

    def share(self, own: Indices, whole: Indices) -> Parts[ViewBatch]:
        """Some pairs of a batch: in parts of like length, each padded for itself, or as wide as the whole batch."""
        lengths = np.sum([table.lengths[own] for table in self.tables], axis=0)  # (n,)
        return Parts([self.batch(*part) for part in parts_of_share(own, whole, lengths, self.parts)])

    def batch(self, indices: Sequence[int] | Indices, among: Sequence[int] | Indices = ()) -> ViewBatch:
        """The pairs at `indices`, padded as NRCCR's, masked captions as the captions."""
        chosen, others = np.asarray(indices), self.item_of[np.asarray(among, dtype=np.int64)]
        items = self.item_of[chosen]
        frames, longest = self.videos.frames[items], frames_kept(int(self.videos.frames[others].max(initial=0)))
        lengths = [[int(table.lengths[pair]) for table in self.tables] for pair in chosen]
        views = [
            masked_view(self.seed, self.epoch, int(pair), int(count), tokens)
            for pair, count, tokens in zip(chosen, frames, lengths, strict=True)
        ]
        texts = [table.batch(chosen, among) for table in self.tables]
        masked: list[TextBatch] = [
            mask_tokens(text, [view.tokens[place] for view in views], self.mask_id) for place, text in enumerate(texts)
        ]
        return ViewBatch(
            source=texts[0],
            target=texts[1] if self.target is not None else None,
            visual=self.videos.batch(items, others),
            masked_source=masked[0],
            masked_target=masked[1] if self.target is not None else None,
            masked_visual=self.videos.view(items, [view.frames for view in views], longest),
            items=torch.from_numpy(items),
        )

    def fingerprint(self) -> str:
        """A hash of all captions' tokens and of which video each pair has."""
        digest = hashlib.sha256("\n".join(self.videos.ids).encode())
        for table in self.tables:
            digest.update(table.content())
        digest.update(self.item_of.tobytes())
        digest.update(self.videos.frames.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class ViewReader:
    """Reads splits of a collection in English and the other language, for MLCMR."""

    config: Config
    collection: Collection
    features: BigFile
    tokenizer: CaptionTokenizer

    @classmethod
    def open(cls, config: Config, root: Path, tokenizer: CaptionTokenizer) -> ViewReader:
        """The reader that a configuration describes.

        Raises:
            UserError: no such collection under `root`, one of images, damaged features, an unfit tokeniser.
        """
        tokenizer.require_ends()
        collection = locate_both(config, root)
        return cls(config, collection, BigFile(collection.features), tokenizer)

    @property
    def other(self) -> str:
        """The other language, besides English."""
        return self.collection.target

    def training(self) -> tuple[ViewPairs, Split | None]:
        """The training pairs, and the captions of the videos held out of them, if any.

        Raises:
            UserError: missing or malformed files, items without features, too many unmatched lines, under two pairs.
        """
        captions, unmatched = self._training_captions()
        items = list(dict.fromkeys(captions[0].items))
        held = self._held_out(items)
        kept = [place for place, item in enumerate(captions[0].items) if item not in held]
        others = [place for place, item in enumerate(captions[0].items) if item in held]
        training = [part.take(kept) for part in captions]
        if len(training[0]) < 2:
            raise UserError(f"{captions[0].path}: training needs at least two captions")
        tables = [
            self.tokenizer.encode(_cleaned(part, language))
            for part, language in zip(training, self._fields, strict=True)
        ]
        names, item_of = items_of(training[0])
        pairs = ViewPairs(
            source=tables[0],
            target=tables[1] if len(tables) == 2 else None,
            videos=self._videos(names),
            item_of=item_of,
            parts=PARTS if padding_free(self.config) else 1,
            counts=Counts(len(training[0]), len(names), unmatched, 0, sum(table.cut for table in tables)),
            seed=self.config.seed,
            mask_id=self.tokenizer.mask_id,
        )
        return pairs, self._by_language([part.take(others) for part in captions], self._fields) if held else None

    @property
    def _fields(self) -> list[str | None]:
        """Languages of the training captions; none where both are mixed."""
        return [None] if self.config.data.scenario == "unparallel" else [ENGLISH, self.other]

    def validation(self) -> Split:
        """The validation split, English and the other language separately; the test split if so configured.

        Raises:
            UserError: missing or malformed files, items without features.
        """
        data = self.config.data
        split: SplitName = "test" if data.validate_on_test else "val"
        human = data.validation_english == "human"
        english = (self.collection.human if human else self.collection.translated)(split, ENGLISH)
        paths = (english, self.collection.human(split, self.other))
        return self._by_language([read_captions(path) for path in paths], [ENGLISH, self.other])

    @property
    def languages(self) -> list[str]:
        """Both query languages, the configured target first."""
        both = [ENGLISH, self.other]
        return sorted(both, key=lambda language: language != self.config.data.target)

    def split(self, name: SplitName, language: str, sample: Sample | None = None) -> Split:
        """A split's queries in a language, with their translations into the other one.

        In validation and test queries are human; in training both sides are what the scenario trains on.

        Raises:
            UserError: missing or malformed files, items without features, too many unmatched lines; training captions
                of an unparallel scenario, which have no translations.
        """
        other = self.other if language == ENGLISH else ENGLISH
        if name == "train":
            if self.config.data.scenario == "unparallel":
                raise UserError("data.scenario=unparallel: training captions have no translations; draw from val")
            english, foreign = self._training_captions()[0]
            files, lost = ([english, foreign] if other == ENGLISH else [foreign, english]), 0
        else:
            paths = (self.collection.translated(name, other), self.collection.human(name, language))
            matched = match([read_captions(path) for path in paths], self.config.data.mismatch_tolerance)
            files, lost = matched.captions, sum(len(ids) for ids in matched.unmatched.values())
        source, target = files if sample is None else sample.take(name, files)
        tables = [
            self.tokenizer.encode(CLEANING.of_queries(part.texts, each))
            for part, each in ((source, other), (target, language))
        ]
        items, item_of = items_of(source)
        return Split(
            name=name,
            collection=self.collection.name,
            queries={language: Queries(tables[1], source.ids, item_of, tables[0], target.texts, source.texts)},
            gallery=self._videos(items),
            counts=asdict(Counts(len(source), len(items), lost, 0, sum(table.cut for table in tables))),
            folder="" if language == self.languages[0] else language,
        )

    def _training_captions(self) -> tuple[list[Captions], int]:
        """English and the other language, matched, and how many lines had no partner; one file if not parallel."""
        if self.config.data.scenario == "unparallel":
            return [self._unparallel()], 0
        files = _training_files(self.config, self.collection).files
        matched = match([read_captions(path()) for path in files], self.config.data.mismatch_tolerance)
        return matched.captions, sum(len(ids) for ids in matched.unmatched.values())

    def _unparallel(self) -> Captions:
        """The collection's file of captions in both languages or, where it has none, alternate lines of both.

        Of each video's captions every other one is taken in English, the rest in the other language; the next video
        begins with the other language.
        """
        group = _training_files(self.config, self.collection)
        if group.mixed:
            return read_captions(group.files[0](), mixed=True)
        matched = match([read_captions(path()) for path in group.files], self.config.data.mismatch_tolerance)
        english, other = matched.captions
        order: dict[str, int] = {}
        seen: dict[str, int] = {}
        chosen: list[Captions] = []
        for item in english.items:
            order.setdefault(item, len(order))
            seen[item] = seen.get(item, -1) + 1
            chosen.append(english if (order[item] + seen[item]) % 2 == 0 else other)
        return Captions(
            english.path,
            ids=[part.ids[place] for place, part in enumerate(chosen)],
            items=english.items,
            numbers=english.numbers,
            texts=[part.texts[place] for place, part in enumerate(chosen)],
        )

    def _held_out(self, items: Sequence[str]) -> set[str]:
        """Training videos held out for validation, drawn by the seed alone."""
        count = self.config.data.held_out
        if count > len(items) - 2:
            raise UserError(f"data.held_out={count}: there are {len(items)} training videos; hold out fewer")
        drawn = torch.randperm(len(items), generator=torch.Generator().manual_seed(self.config.seed))[:count]
        return {items[place] for place in drawn.tolist()}

    def _by_language(self, files: Sequence[Captions], fields: Sequence[str | None]) -> Split:
        """Captions by language with the videos of all of them, for validation."""
        by_language: dict[str, Captions] = {}
        for file, field in zip(files, fields, strict=True):
            languages = file.languages if field is None else [field] * len(file)
            for language in dict.fromkeys(languages):
                by_language[language] = file.take([at for at, own in enumerate(languages) if own == language])
        places: dict[str, int] = {}
        queries = {
            language: Queries(
                self.tokenizer.encode(CLEANING.of_queries(captions.texts, language)),
                captions.ids,
                numbered(captions.items, places)[1],
            )
            for language, captions in by_language.items()
        }
        tables = [own.tokens for own in queries.values()]
        counts = Counts(sum(map(len, tables)), len(places), 0, 0, sum(table.cut for table in tables))
        return Split("val", self.collection.name, queries, self._videos(list(places)), asdict(counts), by_language=True)

    def _videos(self, items: Sequence[str]) -> Videos:
        data = self.config.data
        return Videos(self.features, items, data.max_frames, self.config.switch("frames"), whole=True)


def view_files(config: Config, collection: Collection) -> list[FileGroup]:
    """The caption files that MLCMR reads, those that are matched together."""
    data, human, translated, other = config.data, collection.human, collection.translated, collection.target
    english = human if data.validation_english == "human" else translated
    validation = (
        []
        if data.held_out or data.validate_on_test
        else [
            FileGroup("val", [partial(english, "val", ENGLISH)]),
            FileGroup("val", [partial(human, "val", other)], english=False),
        ]
    )
    tests = [
        FileGroup("test", [partial(translated, "test", ENGLISH), partial(human, "test", other)]),
        FileGroup("test", [partial(human, "test", ENGLISH), partial(translated, "test", other)]),
    ]
    return [_training_files(config, collection), *validation, *tests]


def _training_files(config: Config, collection: Collection) -> FileGroup:
    data, human, translated = config.data, collection.human, collection.translated
    half = collection.half() if data.scenario == "unparallel" else None
    if half is not None:
        return FileGroup("train", [partial(Path, half)], english=False, mixed=True)
    source = target = human
    if data.scenario == "translate":
        source, target = (translated, human) if data.target == ENGLISH else (human, translated)
    return FileGroup("train", [partial(source, "train", ENGLISH), partial(target, "train", collection.target)])


def _cleaned(captions: Captions, language: str | None) -> list[str]:
    """Training texts, English ones cleaned; without `language`, each caption's own, from its tag."""
    languages = captions.languages if language is None else [language] * len(captions)
    texts = zip(captions.texts, languages, strict=True)
    return [text for caption, word in texts for text in CLEANING.of_training([caption], word)]


def locate_both(config: Config, root: Path) -> Collection:
    """The collection of a configuration, its target the language besides English.

    Raises:
        UserError: as `locate`; a collection of images.
    """
    data = config.data
    collection = locate(
        root,
        data.collection,
        target=None if data.target == ENGLISH else data.target,
        translator=data.translator,
        feature=data.feature,
    )
    require_source(collection, ENGLISH)
    if collection.layout.images is not None:
        raise UserError(f"collection {data.collection} holds images, model={config.model} takes videos; choose another")
    return collection
