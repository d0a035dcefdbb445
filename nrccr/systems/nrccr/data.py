"""What training and evaluation read: pairs, visual items, queries.

A dataset's `batch(indices)` gathers a whole batch at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from nrccr.config.choices import EnglishCleaning, Sampling
from nrccr.config.schema import Config
from nrccr.data.batch import PairBatch
from nrccr.data.bigfile import BigFile
from nrccr.data.captions import Captions, Matched, match, read_captions
from nrccr.data.collections import Collection, Split, locate
from nrccr.data.images import Pictures, Preprocessor, Vectors, load_preprocessor
from nrccr.data.items import Images, Videos, Visuals
from nrccr.data.sampling import Indices
from nrccr.data.tokens import CaptionTokenizer, TokenTable, clean_english
from nrccr.errors import UserError
from nrccr.systems.nrccr.settings import cleans_queries, padding_free

PARTS = 4  # enough to save most of the padding of a batch of 128


@dataclass(frozen=True)
class Counts:
    """What was counted while reading a split."""

    captions: int
    items: int
    unmatched: int
    empty_sources: int
    cut: int


@dataclass(frozen=True)
class Pairs:
    """Training pairs (v, s^S, s^T, s^B).

    Attributes:
        source, target, back: tokens of the three captions of each pair.
        videos: the items, videos or images.
        item_of: (pairs,) each pair's item as a position in `videos`.
        parts: parts of like length that a batch is cut into; 1 where padding counts.
        counts: what was read.
    """

    source: TokenTable
    target: TokenTable
    back: TokenTable
    videos: Visuals
    item_of: Indices
    parts: int
    counts: Counts

    def __len__(self) -> int:
        return len(self.item_of)

    def __getitem__(self, indices: Indices) -> list[PairBatch]:
        """The pairs at `indices` (a batch of the loader's sampler), in parts of like length, each padded for itself."""
        if self.parts == 1:
            return [self.batch(indices)]
        lengths = sum(table.lengths[indices] for table in (self.source, self.target, self.back))
        ordered = np.asarray(indices)[np.argsort(lengths, kind="stable")]
        return [self.batch(part) for part in np.array_split(ordered, min(self.parts, len(ordered)))]

    def at_epoch(self, epoch: int) -> Pairs:
        """The pairs themselves, the same in every epoch."""
        return self

    def fingerprint(self) -> str:
        """A hash of all captions' tokens and of which video each pair has."""
        digest = hashlib.sha256("\n".join(self.videos.ids).encode())
        for table in (self.source, self.target, self.back):
            digest.update(table.content())
        digest.update(self.item_of.tobytes())
        digest.update(self.videos.lengths.tobytes())
        return digest.hexdigest()

    def batch(self, indices: Sequence[int] | Indices) -> PairBatch:
        """The pairs at `indices`, every language padded to its own longest."""
        items = self.item_of[np.asarray(indices)]
        return PairBatch(
            source=self.source.batch(indices),
            target=self.target.batch(indices),
            back=self.back.batch(indices),
            visual=self.videos.batch(items),
            items=torch.from_numpy(items),
        )


@dataclass(frozen=True)
class Queries:
    """A validation or test split: target-language queries, their translations, the items they rank.

    Attributes:
        source: the queries' machine translations into the source language, tokens.
        target: the human queries, tokens.
        query_ids: (queries,) their ids in the first caption file (the translations), as the published code names them.
        item_of: (queries,) the relevant item's position in `videos`.
        videos: the items, in the order in which the first caption file (the translations) names them.
    """

    source: TokenTable
    target: TokenTable
    query_ids: list[str]
    item_of: Indices
    videos: Visuals
    counts: Counts


@dataclass(frozen=True)
class Reader:
    """Reads splits of a collection the way a configuration says.

    Attributes:
        features: frame features; none on a collection of images, which has vectors by split or raw images.
        preprocess: of raw images, where the configuration asks for those.
    """

    collection: Collection
    tokenizer: CaptionTokenizer
    features: BigFile | None
    preprocess: Preprocessor | None
    workers: int
    clean_queries: bool
    max_frames: int
    sampling: Sampling
    english_cleaning: EnglishCleaning
    mismatch_tolerance: float
    padding_free: bool

    @classmethod
    def open(
        cls, config: Config, root: Path, tokenizer: CaptionTokenizer, preprocess: Preprocessor | None = None
    ) -> Reader:
        """The reader that a configuration describes; `preprocess` may be given where `image.model` has none.

        Raises:
            UserError: no such collection under `root`, one of images for a video encoder or the reverse, damaged
                features.
        """
        data, kind = config.data, config.visual.kind
        collection = locate_data(config, root)
        if kind == "clip" and preprocess is None:
            preprocess = load_preprocessor(config.image.model, pretrained=config.image.pretrained)
        return cls(
            collection=collection,
            tokenizer=tokenizer,
            features=BigFile(collection.features) if kind == "video" else None,
            preprocess=preprocess if kind == "clip" else None,
            workers=data.workers,
            clean_queries=cleans_queries(config),
            max_frames=data.max_frames,
            sampling=config.switch("frames"),
            english_cleaning=config.switch("english_cleaning"),
            mismatch_tolerance=data.mismatch_tolerance,
            padding_free=padding_free(config),
        )

    def pairs(self) -> Pairs:
        """The training split.

        Raises:
            UserError: missing or malformed files, items without features, too many unmatched lines, under two pairs.
        """
        files = self.collection.split("train")
        if files.back is None:
            raise UserError(f"{self.collection.name}: the training split has no back-translation file")
        captions = [read_captions(path) for path in (files.source, files.target, files.back)]
        matched = match(captions, self.mismatch_tolerance)
        source, target, back = matched.captions
        if len(source.ids) < 2:
            raise UserError(f"{files.source}: training needs at least two captions with both translations")
        sources = [clean_english(text) for text in source.texts]
        backs = [clean_english(text) for text in back.texts] if self.english_cleaning == "all" else back.texts
        tables = [self.tokenizer.encode(texts) for texts in (sources, target.texts, backs)]
        items, item_of = items_of(source)
        return Pairs(
            source=tables[0],
            target=tables[1],
            back=tables[2],
            videos=self._videos(items, "train"),
            item_of=item_of,
            parts=PARTS if self.padding_free else 1,
            counts=_count(sources, items, matched, tables),
        )

    def queries(self, split: Literal["val", "test"]) -> Queries:
        """The validation or test split.

        Raises:
            UserError: missing or malformed files, items without features, too many unmatched lines.
        """
        return self._queries(split, *self._matched(split))

    def sample(self, split: Split, size: int, seed: int) -> Queries:
        """Some captions of a split, drawn without repetition, as queries; only their items are among the videos.

        Args:
            split: which; in training the sources are human and the targets are translations.
            size: how many captions.
            seed: of the draw.

        Raises:
            UserError: as `queries`, or fewer captions than `size`.
        """
        matched, source, target = self._matched(split)
        if size > len(source):
            raise UserError(f"{source.path}: split {split} has {len(source)} captions, not {size}; give a smaller size")
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(source), generator=generator)[:size].sort().values.tolist()
        return self._queries(split, matched, source.take(chosen), target.take(chosen))

    def _matched(self, split: Split) -> tuple[Matched, Captions, Captions]:
        """What was matched of a split, its sources and targets."""
        files = self.collection.split(split)
        matched = match([read_captions(files.source), read_captions(files.target)], self.mismatch_tolerance)
        source, target = matched.captions
        if not source.ids:
            raise UserError(f"{files.source}: no caption matches one of {files.target.name}; compare their ids")
        return matched, source, target

    def _queries(self, split: Split, matched: Matched, source: Captions, target: Captions) -> Queries:
        cleaned = split == "train" or self.clean_queries
        sources = [clean_english(text) for text in source.texts] if cleaned else source.texts
        tables = [self.tokenizer.encode(texts) for texts in (sources, target.texts)]
        items, item_of = items_of(source)
        return Queries(
            source=tables[0],
            target=tables[1],
            query_ids=source.ids,
            item_of=item_of,
            videos=self._videos(items, split),
            counts=_count(sources, items, matched, tables),
        )

    def _videos(self, items: Sequence[str], split: Split) -> Visuals:
        if self.features is not None:
            return Videos(self.features, items, self.max_frames, self.sampling)
        if self.preprocess is not None and self.collection.pictures is not None:
            pictures = Pictures(self.collection.pictures, self.preprocess)
            return Images(pictures, items, pictures.folder, self.workers)
        path, ids = self.collection.vectors(split)
        return Images(Vectors(path, ids), items, path)


def locate_data(config: Config, root: Path) -> Collection:
    """The collection that a configuration names.

    Raises:
        UserError: as `locate`; a collection of images for a video encoder or the reverse.
    """
    data, kind = config.data, config.visual.kind
    collection = locate(
        root,
        data.collection,
        target=data.target,
        translator=data.translator,
        feature=data.feature,
        round_trips=data.round_trips,
        task=data.task,
        pictures=config.image.path,
    )
    if (collection.layout.images is None) != (kind == "video"):
        holds, fitting = ("videos", "video") if collection.layout.images is None else ("images", "vectors or clip")
        raise UserError(f"visual.kind={kind}: collection {data.collection} holds {holds}; set visual.kind={fitting}")
    return collection


def _count(sources: Sequence[str], items: Sequence[str], matched: Matched, tables: Sequence[TokenTable]) -> Counts:
    return Counts(
        captions=len(sources),
        items=len(items),
        unmatched=sum(len(ids) for ids in matched.unmatched.values()),
        empty_sources=sum(not text for text in sources),
        cut=sum(table.cut for table in tables),
    )


def items_of(captions: Captions) -> tuple[list[str], Indices]:
    """Items in the order in which the file names them, and each caption's item as a position there."""
    places: dict[str, int] = {}
    item_of = np.array([places.setdefault(item, len(places)) for item in captions.items], dtype=np.int64)
    return list(places), item_of
