"""The translations that a run was trained on, with what is known of them, and their vectors.

P pairs of the training split, S of them chosen, D joint-space width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nrccr.config.schema import Config
from nrccr.data.batch import ENGLISH
from nrccr.data.captions import read_captions
from nrccr.data.collections import GENERATED, locate
from nrccr.data.generated.errors import Known, read_known
from nrccr.data.items import load_batches
from nrccr.data.queries import Queries, Split
from nrccr.data.sampling import Indices, ordered_batches
from nrccr.data.tokens import TokenTable
from nrccr.errors import UserError
from nrccr.evaluation.encode import Embeddings, encode_batches, require_finite
from nrccr.systems.base import splits_of
from nrccr.systems.retriever import Retriever

Key = tuple[str, str]  # item and number of a caption


@dataclass(frozen=True)
class Translations:
    """Captions of the training split and the same captions in the target language; lists of P run in parallel.

    Attributes:
        split: the training split; `split.visuals` is its gallery.
        source_language: of the captions.
        language: of their translations.
        source, target: tokens, as the model reads them.
        source_at, target_at: (P,) the captions' places in these tables.
        ids: of the pairs, the source's.
        item_of: (P,) each pair's item in the gallery.
        sources, targets: the captions as written.
        known: what the target should have been; none where that is not known.
    """

    split: Split
    source_language: str
    language: str
    source: TokenTable
    target: TokenTable
    source_at: Indices
    target_at: Indices
    ids: list[str]
    item_of: Indices
    sources: list[str]
    targets: list[str]
    known: list[Known | None]

    def __len__(self) -> int:
        return len(self.ids)

    def sample(self, size: int, seed: int) -> Indices:
        """Positions (S,) of pairs drawn without repetition, ascending; all where there are not more."""
        if size >= len(self):
            return np.arange(len(self))
        generator = torch.Generator().manual_seed(seed)
        return np.sort(torch.randperm(len(self), generator=generator)[:size].numpy())

    @torch.inference_mode()
    def embed(self, retriever: Retriever, chosen: Indices) -> Embeddings:
        """Vectors (S, D) of the chosen captions, their translations, and their items, each pair's own.

        Raises:
            UserError: a vector is not finite.
        """
        source = _embed_texts(retriever, self.source, self.source_at[chosen])
        target = _embed_texts(retriever, self.target, self.target_at[chosen])
        items, places = np.unique(self.item_of[chosen], return_inverse=True)
        visual = _embed_items(retriever, self.split, items)[torch.from_numpy(places).to(source.device)]
        for vectors in (source, target, visual):
            require_finite(vectors, [self.ids[at] for at in chosen.tolist()])
        return Embeddings(source, target, visual)


def read_translations(retriever: Retriever, root: Path) -> Translations | None:
    """The translations that a model was trained on; none where it was trained on captions without translations.

    Where captions are read language by language (C2KD), those in English and in the configured target language, or
    else the first other one, that have the same item and number.

    Raises:
        UserError: no such collection under the root, or damaged data.
    """
    config = retriever.config
    if config.data.scenario == "unparallel":
        return None
    split = next(iter(splits_of(retriever, root, "train")))
    if split.by_language:
        return _of_languages(config, root, split)
    queries = split.headline
    if queries.translations is None:
        return None
    every = np.arange(len(queries.ids))
    return Translations(
        split, _other(config, split.language), split.language, queries.translations, queries.tokens, every, every,
        queries.ids, queries.item_of, list(queries.translated), list(queries.texts),
        _known(config, root, queries, split.language),
    )  # fmt: skip


def _of_languages(config: Config, root: Path, split: Split) -> Translations | None:
    others = [language for language in split.queries if language != ENGLISH]
    if ENGLISH not in split.queries or not others:
        return None
    language = config.data.target if config.data.target in others else others[0]
    english, target = split.queries[ENGLISH], split.queries[language]
    place = {_key(caption): at for at, caption in enumerate(target.ids)}
    pairs = [(at, place[_key(caption)]) for at, caption in enumerate(english.ids) if _key(caption) in place]
    if not pairs:
        return None
    source_at, target_at = np.array(pairs, dtype=np.int64).T
    known = _known(config, root, target, language)
    return Translations(
        split, ENGLISH, language, english.tokens, target.tokens, source_at, target_at,
        [english.ids[at] for at in source_at], english.item_of[source_at],
        [english.texts[at] for at in source_at], [target.texts[at] for at in target_at],
        [known[at] for at in target_at],
    )  # fmt: skip


def _known(config: Config, root: Path, target: Queries, language: str) -> list[Known | None]:
    """What the target captions should have been; of a generated collection alone, and of its translations."""
    unknown: list[Known | None] = [None] * len(target.ids)
    data = config.data
    if data.collection not in GENERATED.names:
        return unknown
    other = None if language == ENGLISH else language
    try:
        path = locate(root, data.collection, target=other, translator=data.translator).translated("train", language)
    except UserError:  # it was trained on what people wrote, and nobody translated it
        return unknown
    known, captions = read_known(path), read_captions(path)
    texts = dict(zip(captions.keys, captions.texts, strict=True))
    return [
        known.get(_key(caption)) if texts.get(_key(caption)) == text else None
        for caption, text in zip(target.ids, target.texts, strict=True)
    ]


def _other(config: Config, language: str) -> str:
    """The language of the captions that were translated into this one; nothing where the configuration does not say."""
    other = config.data.source
    return other if other != language else ""


def _key(caption: str) -> Key:
    item, _, number = caption.rsplit("#", 2)
    return item, number


def _embed_texts(retriever: Retriever, table: TokenTable, rows: Indices) -> Tensor:
    network, size = retriever.network, retriever.config.evaluation.batch_size

    def embed(chosen: Indices) -> Tensor:
        vectors: Tensor = network.embed_text(table.batch(rows[chosen]).to(retriever.device))
        return vectors

    batches = ordered_batches(table.lengths[rows], size, by_length=network.independent)
    return encode_batches(batches, len(rows), embed, "captions")


def _embed_items(retriever: Retriever, split: Split, rows: Indices) -> Tensor:
    network, size = retriever.network, retriever.config.evaluation.batch_size
    visuals = split.visuals if split.as_vectors is None else split.as_vectors(split.visuals)
    batches = [*ordered_batches(visuals.lengths[rows], size, by_length=network.independent)]
    loaded = load_batches(visuals, [rows[batch] for batch in batches])

    def embed(chosen: Indices) -> Tensor:
        vectors: Tensor = network.embed_visual(next(loaded).to(retriever.device))
        return vectors

    return encode_batches(iter(batches), len(rows), embed, "items")
