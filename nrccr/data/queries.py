"""A split for evaluation: queries by language, the gallery that they search, and which items are relevant.

Q queries, N items of the gallery.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from nrccr.data.captions import Captions
from nrccr.data.items import Visuals
from nrccr.data.sampling import Indices
from nrccr.data.tokens import TokenTable
from nrccr.errors import UserError


@dataclass(frozen=True)
class Counts:
    """Counts of a split.

    Attributes:
        captions, items: how many.
        unmatched: caption lines without a partner.
        empty_sources: English captions that cleaning leaves empty.
        cut: captions shortened to the longest allowed.
    """

    captions: int
    items: int
    unmatched: int
    empty_sources: int
    cut: int


@dataclass(frozen=True)
class Queries:
    """The queries of one language.

    Attributes:
        tokens: the queries themselves (the role "target").
        ids: Q ids; where queries have translations those of the translations, as the published code names them.
        item_of: (Q,) each query's relevant item, a position in the gallery.
        translations: the queries in English (the role "source"), where scores are mixed with those of translations.
        texts: the queries as people wrote them, before cleaning; empty where nobody shows them.
        translated: the translations likewise.
    """

    tokens: TokenTable
    ids: list[str]
    item_of: Indices
    translations: TokenTable | None = None
    texts: Sequence[str] = ()
    translated: Sequence[str] = ()


@dataclass(frozen=True)
class TextGallery:
    """A gallery of captions.

    Attributes:
        tokens: of each caption.
        ids: their ids.
    """

    tokens: TokenTable
    ids: list[str]

    def __len__(self) -> int:
        return len(self.ids)


Gallery = Visuals | TextGallery


@dataclass(frozen=True)
class Split:
    """Queries and the gallery that all of them search.

    Attributes:
        name: train, val or test.
        collection: our name for its collection.
        queries: by language.
        gallery: items in a fixed order.
        counts: of captions, items and more.
        averaged: whether the captions of an item are one query, the mean of their vectors.
        by_language: whether results are reported by language, with their mean; else there is one language.
        folder: its folder within the test folder; empty for the test folder itself.
        as_vectors: turns a gallery of raw images into vectors when it is encoded; none where it is encoded as it is.
    """

    name: str
    collection: str
    queries: Mapping[str, Queries]
    gallery: Gallery
    counts: Mapping[str, Any] = field(default_factory=dict)
    averaged: bool = False
    by_language: bool = False
    folder: str = ""
    as_vectors: Callable[[Visuals], Visuals] | None = None

    @property
    def language(self) -> str:
        """The first, or only, language."""
        return next(iter(self.queries))

    @property
    def headline(self) -> Queries:
        """The queries of the first, or only, language."""
        return self.queries[self.language]

    @property
    def visuals(self) -> Visuals:
        """The gallery's videos or images.

        Raises:
            TypeError: it holds captions.
        """
        if isinstance(self.gallery, TextGallery):
            raise TypeError(f"split {self.name}: the gallery holds captions")
        return self.gallery


@dataclass(frozen=True)
class Sample:
    """A random sample of a split's captions.

    Attributes:
        size: how many queries.
        seed: of the draw.
        at_most: take all where there are fewer.
    """

    size: int
    seed: int
    at_most: bool = False

    def take(self, split: str, captions: Sequence[Captions]) -> list[Captions]:
        """Captions drawn without repetition, in file order; the files are matched line by line.

        Raises:
            UserError: fewer captions than `size`, unless that is the most.
        """
        chosen = self._draw(len(captions[0]), "captions", f"{captions[0].path}: split {split}")
        return [part.take(chosen) for part in captions]

    def take_items(self, split: str, captions: Captions) -> Captions:
        """All captions of items that are drawn without repetition, in file order.

        Raises:
            UserError: fewer items than `size`, unless that is the most.
        """
        names, item_of = items_of(captions)
        chosen = self._draw(len(names), "items", f"{captions.path}: split {split}")
        return captions.take(np.flatnonzero(np.isin(item_of, chosen)).tolist())

    def _draw(self, count: int, what: str, place: str) -> list[int]:
        """Ascending positions among `count`."""
        if self.size > count and not self.at_most:
            raise UserError(f"{place} has {count} {what}, not {self.size}; give a smaller size")
        generator = torch.Generator().manual_seed(self.seed)
        return list(torch.randperm(count, generator=generator)[: self.size].sort().values.tolist())


def items_of(captions: Captions) -> tuple[list[str], Indices]:
    """Items in the order in which the file names them, and each caption's item as a position there."""
    return numbered(captions.items, {})


def numbered(items: Sequence[str], places: dict[str, int]) -> tuple[list[str], Indices]:
    """The one numbering of items: by first appearance.

    Args:
        items: of each caption.
        places: items that have a number already; new ones are added.

    Returns:
        all items by number, and each caption's item (captions,).
    """
    item_of = np.array([places.setdefault(item, len(places)) for item in items], dtype=np.int64)
    return list(places), item_of


def among_texts(split: Split) -> Split:
    """The queries of a split against their own translations (the paper's table 5).

    One translation is relevant to each query: its own, even where others of the item mean the same.

    Raises:
        UserError: queries without translations.
    """
    queries = split.headline
    if split.by_language or queries.translations is None:
        raise UserError("--task text-to-text: these queries have no translations to be ranked; leave it out")
    own = Queries(queries.tokens, queries.ids, np.arange(len(queries.ids)), texts=queries.texts)
    return replace(
        split, queries={split.language: own}, gallery=TextGallery(queries.translations, queries.ids), as_vectors=None
    )
