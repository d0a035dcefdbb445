"""What Quartet reads: captions of the source language with translations into several, and queries in each of these.

N captions of the source language in a batch, K target languages, n captions of a language.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from nrccr.config.schema import Config
from nrccr.data.batch import ENGLISH, Parts, VisualBatch
from nrccr.data.bigfile import BigFile
from nrccr.data.captions import Captions, match, read_captions
from nrccr.data.check import FileGroup
from nrccr.data.cleaning import Cleaning
from nrccr.data.collections import Collection, SplitName, locate, require_source
from nrccr.data.items import Images, Videos, Visuals
from nrccr.data.queries import Counts, Queries, Sample, Split, items_of, numbered
from nrccr.data.sampling import PARTS, Indices, MaskedView, kept_frames, mask_tokens, masked_view, parts_of_like_length
from nrccr.data.tokens import CaptionTokenizer, TokenTable
from nrccr.data.vectors import open_vectors
from nrccr.errors import UserError
from nrccr.systems.quartet.batch import LanguageBatch, QuartetBatch
from nrccr.systems.quartet.settings import QuartetSection, targets

BACK: Literal["back"] = "back"  # the back-translations' place beside languages


def cleaning_of(config: Config) -> Cleaning:
    """All English is cleaned; where the source is another language, nothing is."""
    english = config.data.source == ENGLISH
    return Cleaning(training=english, back=english, queries=english)


@dataclass(frozen=True)
class LanguagePairs:
    """The training set: an index is a caption of the source language, with its translations.

    Attributes:
        texts: language -> tokens of its captions, the source language first, `BACK` last.
        places: language -> (pairs,) the translation's position in `texts`, or -1.
        visuals: the items.
        item_of: (pairs,) each pair's item as a position in `visuals`.
        counts: of captions, items and more.
        ids: of the captions of the source language.
        translations: language -> its captions, as they were read.
        seed: of views and dropped frames.
        mask_id: the vocabulary's [MASK]; none without views.
        dropped: share of a video's frames that are left out.
        epoch: from 0.
    """

    texts: Mapping[str, TokenTable]
    places: Mapping[str, Indices]
    visuals: Visuals
    item_of: Indices
    counts: Counts
    ids: Sequence[str]
    translations: Mapping[str, Sequence[str]]
    seed: int
    mask_id: int | None
    dropped: float
    epoch: int = 0

    def __len__(self) -> int:
        return len(self.item_of)

    def at_epoch(self, epoch: int) -> LanguagePairs:
        """The pairs with the views of an epoch."""
        return replace(self, epoch=epoch)

    def __getitem__(self, indices: Indices) -> Parts[QuartetBatch]:
        """The pairs at `indices`, a batch of the loader's sampler."""
        return self.share(indices, indices)

    def share(self, own: Indices, whole: Indices) -> Parts[QuartetBatch]:
        """Some pairs of a batch in parts of like length; padding never counts, so the others change nothing."""
        lengths = np.zeros(len(own), dtype=np.int64)
        for language, table in self.texts.items():
            place = self.places[language][own]
            lengths += np.where(place >= 0, table.lengths[place], 0)
        return Parts([self.batch(own[part]) for part in parts_of_like_length(lengths, PARTS)])

    def batch(self, indices: Sequence[int] | Indices) -> QuartetBatch:
        """The pairs at `indices`, every language padded to its own longest."""
        chosen = np.asarray(indices)
        items = self.item_of[chosen]
        places = {language: own[chosen] for language, own in self.places.items()}  # each (N,)
        masks = [None] * len(chosen) if self.mask_id is None else self._views(chosen, items, places)
        texts = {}
        for order, (language, table) in enumerate(self.texts.items()):
            rows = np.flatnonzero(places[language] >= 0)  # (n,)
            text = table.batch(places[language][rows])
            hidden = [view.tokens[order] for row in rows if (view := masks[row]) is not None]
            masked = None if self.mask_id is None or language == BACK else mask_tokens(text, hidden, self.mask_id)
            texts[language] = LanguageBatch(text, torch.from_numpy(rows), masked)
        return QuartetBatch(
            texts=texts,
            visual=self._visual(chosen, items),
            masked_visual=self._masked_visual(items, masks),
            items=torch.from_numpy(items),
            pairs=torch.from_numpy(chosen.astype(np.int64)),
            epoch=torch.tensor(self.epoch + 1),
        )

    def fingerprint(self) -> str:
        """A hash of all captions' tokens, of which caption and item each pair has, and of the frames."""
        digest = hashlib.sha256("\n".join(self.visuals.ids).encode())
        for language, table in self.texts.items():
            digest.update(language.encode() + table.content() + self.places[language].tobytes())
        digest.update(self.item_of.tobytes())
        digest.update(self.visuals.lengths.tobytes())
        return digest.hexdigest()

    def _views(self, pairs: Indices, items: Indices, places: Mapping[str, Indices]) -> list[MaskedView | None]:
        """What each pair's masked view hides; a caption that is not there has no words."""
        frames = self.visuals.frames[items] if isinstance(self.visuals, Videos) else np.ones(len(items), np.int64)
        lengths = [
            np.where(places[language] >= 0, table.lengths[places[language]], 2)  # (N,)
            for language, table in self.texts.items()
        ]
        return [
            masked_view(self.seed, self.epoch, int(pair), int(count), [int(own[at]) for own in lengths])
            for at, (pair, count) in enumerate(zip(pairs, frames, strict=True))
        ]

    def _visual(self, pairs: Indices, items: Indices) -> VisualBatch:
        if not isinstance(self.visuals, Videos) or not self.dropped:
            return self.visuals.batch(items)
        kept = [
            kept_frames(self.seed, self.epoch, int(pair), int(self.visuals.frames[item]), self.dropped)
            for pair, item in zip(pairs, items, strict=True)
        ]
        return self.visuals.view(items, kept)

    def _masked_visual(self, items: Indices, views: Sequence[MaskedView | None]) -> VisualBatch | None:
        if not isinstance(self.visuals, Videos) or self.mask_id is None:
            return None
        return self.visuals.view(items, [view.frames for view in views if view is not None])


@dataclass(frozen=True)
class QuartetReader:
    """Reads splits of a collection in the source language and each target language.

    Attributes:
        config: the run's configuration.
        collections: by target language.
        tokenizer: of all languages.
        features: frame features; none for images.
    """

    config: Config
    collections: Mapping[str, Collection]
    tokenizer: CaptionTokenizer
    features: BigFile | None

    @classmethod
    def open(cls, config: Config, root: Path, tokenizer: CaptionTokenizer) -> QuartetReader:
        """The reader that a configuration describes.

        Raises:
            UserError: no such collection under `root`, one of images for videos or the reverse, damaged features, with
                views or words a tokeniser with other than two special tokens a caption.
        """
        own = config.section(QuartetSection)
        if own.views or own.words:
            tokenizer.require_ends()
        collections = locate_all(config, root)
        found = next(iter(collections.values()))
        return cls(config, collections, tokenizer, BigFile(found.features) if config.visual.kind == "video" else None)

    @property
    def collection(self) -> Collection:
        """With the first target language."""
        return next(iter(self.collections.values()))

    def pairs(self) -> LanguagePairs:
        """The training split: every caption of the source language, with the translations that it has.

        Raises:
            UserError: missing or malformed files, items without features, too many unmatched lines, under two captions.
        """
        own, data, cleaning = self.config.section(QuartetSection), self.config.data, cleaning_of(self.config)
        source = read_captions(self.collection.file("train", "source"))
        if len(source) < 2:
            raise UserError(f"{source.path}: training needs at least two captions; add some")
        files = {data.source: cleaning.of_training(source.texts)}
        places = {data.source: np.arange(len(source))}
        position = {key: index for index, key in enumerate(source.keys)}
        lost = 0
        for language, collection in self.collections.items():
            matched = match([source, read_captions(collection.file("train", "target"))], data.mismatch_tolerance)
            files[language], places[language] = matched.captions[1].texts, _places(matched.captions[1], position)
            lost += sum(len(ids) for ids in matched.unmatched.values())
        if self.config.loss.cycle:
            matched = match([source, read_captions(self.collection.file("train", BACK))], data.mismatch_tolerance)
            files[BACK] = cleaning.of_back(matched.captions[1].texts)
            places[BACK] = _places(matched.captions[1], position)
        tables = {language: self.tokenizer.encode(texts) for language, texts in files.items()}
        items, item_of = items_of(source)
        empty = sum(not text for text in files[data.source])
        return LanguagePairs(
            texts=tables,
            places=places,
            visuals=self._visuals(items, "train"),
            item_of=item_of,
            counts=Counts(len(source), len(items), lost, empty, sum(table.cut for table in tables.values())),
            ids=source.ids,
            translations={language: files[language] for language in self.collections},
            seed=self.config.seed,
            mask_id=self.tokenizer.mask_id if own.views and own.ranking == "contrast" else None,
            dropped=own.dropped_frames,
        )

    def validation(self) -> Split:
        """Human captions of every target language, with the items of all of them.

        Raises:
            UserError: missing or malformed files, items without features.
        """
        cleaning = cleaning_of(self.config)
        places: dict[str, int] = {}
        queries = {}
        for language, collection in self.collections.items():
            captions = read_captions(collection.file("val", "target"))
            tokens = self.tokenizer.encode(cleaning.of_queries(captions.texts, language))
            item_of = numbered(captions.items, places)[1]
            queries[language] = Queries(tokens, captions.ids, item_of, texts=captions.texts)
        tables = [own.tokens for own in queries.values()]
        counts = Counts(sum(map(len, tables)), len(places), 0, 0, sum(table.cut for table in tables))
        visuals = self._visuals(list(places), "val")
        return Split("val", self.collection.name, queries, visuals, asdict(counts), by_language=True)

    def split(self, name: SplitName, language: str, sample: Sample | None = None) -> Split:
        """A split's queries in a target language, with their translations into the source language.

        Raises:
            UserError: missing or malformed files, items without features, too many unmatched lines.
        """
        collection, cleaning = self.collections[language], cleaning_of(self.config)
        paths = (collection.file(name, "source"), collection.file(name, "target"))
        matched = match([read_captions(path) for path in paths], self.config.data.mismatch_tolerance)
        source, target = matched.captions if sample is None else sample.take(name, matched.captions)
        tables = [
            self.tokenizer.encode(cleaning.of_queries(source.texts, self.config.data.source)),
            self.tokenizer.encode(cleaning.of_queries(target.texts, language)),
        ]
        items, item_of = items_of(source)
        lost = sum(len(ids) for ids in matched.unmatched.values())
        return Split(
            name=name,
            collection=collection.name,
            queries={language: Queries(tables[1], source.ids, item_of, tables[0], target.texts, source.texts)},
            gallery=self._visuals(items, name),
            counts=asdict(Counts(len(source), len(items), lost, 0, sum(table.cut for table in tables))),
            folder="" if language == next(iter(self.collections)) else language,
        )

    def _visuals(self, items: Sequence[str], split: SplitName) -> Visuals:
        data = self.config.data
        if self.features is not None:
            # Whole in every split: the mean is of all frames, in training and in a test.
            return Videos(self.features, items, data.max_frames, self.config.switch("frames"), whole=True)
        vectors = open_vectors(self.collection, split)
        return Images(vectors, items, vectors.path)


def _places(captions: Captions, position: Mapping[tuple[str, str], int]) -> Indices:
    """Where each caption of the source language has its translation, or -1."""
    found = np.full(len(position), -1, dtype=np.int64)
    found[[position[key] for key in captions.keys]] = np.arange(len(captions))
    return found


def caption_files(config: Config, collections: Mapping[str, Collection]) -> list[FileGroup]:
    """The caption files that Quartet reads, those that are matched together."""
    groups = []
    first, *_ = collections.values()
    if config.loss.cycle:
        groups.append(FileGroup("train", [partial(first.file, "train", "source"), partial(first.file, "train", BACK)]))
    splits: tuple[SplitName, ...] = ("train", "val", "test")
    for collection in collections.values():
        groups += [
            FileGroup(split, [partial(collection.file, split, "source"), partial(collection.file, split, "target")])
            for split in splits
        ]
    return groups


def locate_all(config: Config, root: Path) -> dict[str, Collection]:
    """The collection of a configuration, by target language.

    Raises:
        UserError: as `locate`; a collection of images for videos or the reverse.
    """
    data, kind = config.data, config.visual.kind
    found = {
        language: locate(
            root,
            data.collection,
            target=language,
            translator=data.translator,
            feature=data.feature,
            task=data.task,
        )
        for language in targets(config)
    }
    collection = next(iter(found.values()))
    require_source(collection, data.source)
    if (collection.layout.images is None) != (kind == "video"):
        holds, fitting = ("videos", "video") if collection.layout.images is None else ("images", "vectors")
        raise UserError(f"visual.kind={kind}: collection {data.collection} holds {holds}; set visual.kind={fitting}")
    return found
