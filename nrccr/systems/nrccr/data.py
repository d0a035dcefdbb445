"""What NRCCR reads: training pairs, and splits of queries with their translations.

A dataset's `batch(indices)` gathers a whole batch at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from nrccr.config.choices import FrameSampling, Pixels
from nrccr.config.schema import Config
from nrccr.data.batch import ENGLISH, PairBatch, Parts
from nrccr.data.bigfile import BigFile
from nrccr.data.captions import Matched, match, read_captions
from nrccr.data.cleaning import Cleaning
from nrccr.data.collections import Collection, SplitName, locate, require_source
from nrccr.data.images import Pictures
from nrccr.data.items import Images, Videos, Visuals
from nrccr.data.pixels import Preprocessor, load_preprocessor
from nrccr.data.queries import Counts, Queries, Sample, Split, items_of
from nrccr.data.sampling import PARTS, Indices, parts_of_share
from nrccr.data.tokens import CaptionTokenizer, TokenTable
from nrccr.data.vectors import open_vectors
from nrccr.errors import UserError
from nrccr.systems.nrccr.settings import cleans_queries, padding_free


@dataclass(frozen=True)
class Pairs:
    """Training pairs (v, s^S, s^T, s^B).

    Attributes:
        source, target, back: tokens of the three captions of each pair.
        visuals: the items, videos or images.
        item_of: (pairs,) each pair's item as a position in `visuals`.
        parts: parts of like length that a batch is cut into; 1 where padding counts.
        counts: of captions, items and more.
    """

    source: TokenTable
    target: TokenTable
    back: TokenTable
    visuals: Visuals
    item_of: Indices
    parts: int
    counts: Counts

    def __len__(self) -> int:
        return len(self.item_of)

    def __getitem__(self, indices: Indices) -> Parts[PairBatch]:
        """The pairs at `indices` (a batch of the loader's sampler), as `share`."""
        return self.share(indices, indices)

    def share(self, own: Indices, whole: Indices) -> Parts[PairBatch]:
        """Some pairs of a batch: in parts of like length, each padded for itself, or as wide as the whole batch."""
        lengths = np.sum([table.lengths[own] for table in (self.source, self.target, self.back)], axis=0)  # (n,)
        return Parts([self.batch(*part) for part in parts_of_share(own, whole, lengths, self.parts)])

    def at_epoch(self, epoch: int) -> Pairs:
        """The pairs themselves, the same in every epoch."""
        return self

    def fingerprint(self) -> str:
        """A hash of all captions' tokens and of which item each pair has."""
        digest = hashlib.sha256("\n".join(self.visuals.ids).encode())
        for table in (self.source, self.target, self.back):
            digest.update(table.content())
        digest.update(self.item_of.tobytes())
        digest.update(self.visuals.lengths.tobytes())
        return digest.hexdigest()

    def batch(self, indices: Sequence[int] | Indices, among: Sequence[int] | Indices = ()) -> PairBatch:
        """The pairs at `indices`, every language padded to its own longest, also of those `among` which they are."""
        items = self.item_of[np.asarray(indices)]
        return PairBatch(
            source=self.source.batch(indices, among),
            target=self.target.batch(indices, among),
            back=self.back.batch(indices, among),
            visual=self.visuals.batch(items, self.item_of[np.asarray(among, dtype=np.int64)]),
            items=torch.from_numpy(items),
        )


@dataclass(frozen=True)
class Reader:
    """Reads splits of a collection as configured.

    Attributes:
        features: frame features; none on a collection of images, which has vectors by split or raw images.
        preprocess: of raw images, if configured.
        pixels: how raw images are read.
    """

    collection: Collection
    tokenizer: CaptionTokenizer
    features: BigFile | None
    preprocess: Preprocessor | None
    workers: int
    cleaning: Cleaning
    max_frames: int
    sampling: FrameSampling
    pixels: Pixels
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
            cleaning=cleaning_of(config),
            max_frames=data.max_frames,
            sampling=config.switch("frames"),
            pixels=config.switch("pixels"),
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
            raise UserError(
                f"{self.collection.name}: the training split has no back-translation file; `nrccr translate` makes it"
            )
        captions = [read_captions(path) for path in (files.source, files.target, files.back)]
        matched = match(captions, self.mismatch_tolerance)
        source, target, back = matched.captions
        if len(source.ids) < 2:
            raise UserError(f"{files.source}: training needs at least two captions with both translations")
        sources, backs = self.cleaning.of_training(source.texts), self.cleaning.of_back(back.texts)
        tables = [self.tokenizer.encode(texts) for texts in (sources, target.texts, backs)]
        items, item_of = items_of(source)
        return Pairs(
            source=tables[0],
            target=tables[1],
            back=tables[2],
            visuals=self._visuals(items, "train"),
            item_of=item_of,
            parts=PARTS if self.padding_free else 1,
            counts=_count(sources, items, matched, tables),
        )

    def split(self, name: SplitName, sample: Sample | None = None) -> Split:
        """A split for evaluation: target-language queries with their English translations.

        In validation and test the target is human and the source its translation, in training the reverse. Items are in
        the order in which the first caption file, the source's, names them.

        Args:
            name: train, val or test.
            sample: only these captions, and their items as gallery.

        Raises:
            UserError: missing or malformed files, items without features, too many unmatched lines.
        """
        files = self.collection.split(name, back=False)
        matched = match([read_captions(files.source), read_captions(files.target)], self.mismatch_tolerance)
        if not matched.captions[0].ids:
            raise UserError(f"{files.source}: no caption matches one of {files.target.name}; compare their ids")
        source, target = matched.captions if sample is None else sample.take(name, matched.captions)
        cleaning = self.cleaning
        sources = (cleaning.of_training if name == "train" else cleaning.of_queries)(source.texts)
        tables = [self.tokenizer.encode(texts) for texts in (sources, target.texts)]
        items, item_of = items_of(source)
        return Split(
            name=name,
            collection=self.collection.name,
            queries={
                self.collection.target: Queries(tables[1], source.ids, item_of, tables[0], target.texts, source.texts)
            },
            gallery=self._visuals(items, name),
            counts=asdict(_count(sources, items, matched, tables)),
        )

    def _visuals(self, items: Sequence[str], split: SplitName) -> Visuals:
        if self.features is not None:
            return Videos(self.features, items, self.max_frames, self.sampling)
        if self.preprocess is not None and self.collection.pictures is not None:
            pictures = Pictures(self.collection.pictures, self.preprocess, self.pixels)
            return Images(pictures, items, pictures.folder, self.workers)
        vectors = open_vectors(self.collection, split)
        return Images(vectors, items, vectors.path)


def cleaning_of(config: Config) -> Cleaning:
    """The published cleaning: translations of queries only on videos, back-translations in no published model.

    Where the source is another language than English, nothing is cleaned.
    """
    if config.data.source != ENGLISH:
        return Cleaning(training=False, back=False, queries=False)
    everything = bool(config.switch("english_cleaning") == "all")
    return Cleaning(training=True, back=everything, queries=cleans_queries(config))


def locate_data(config: Config, root: Path) -> Collection:
    """The collection of a configuration.

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
    require_source(collection, data.source)
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
