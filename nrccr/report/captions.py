"""What the items of a test are about, in words: their captions in the source language."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nrccr.config.schema import Config
from nrccr.data.batch import ENGLISH
from nrccr.data.captions import read_captions
from nrccr.data.collections import Collection, locate
from nrccr.errors import UserError
from nrccr.report.finished import ReportRun, Searched


def english_captions(searched: Searched) -> dict[str, list[str]]:
    """English captions of each item of the gallery: those that people wrote, else translations of the test's queries.

    People wrote the run's English queries, or a file of the collection that the run does not read. Items without any
    are left out; those of a collection whose source is another language have captions in that one.
    """
    for other in searched.run.searched:
        if other.language == ENGLISH and other.queries.texts:
            return _by_item(zip(other.queries.ids, other.queries.texts, strict=True))
    written = _written(searched)
    if written:
        return written
    return _by_item(zip(searched.queries.ids, searched.queries.translated, strict=False))


def collection_of(run: ReportRun) -> Collection | None:
    """The collection of a run's data, where it is one with a folder of films or pictures; else none."""
    config: Config = run.retriever.config
    data = config.data
    try:
        return locate(run.root, data.collection, target=None, feature=data.feature, pictures=config.image.path)
    except UserError:  # one that is read by language
        return None


def _written(searched: Searched) -> dict[str, list[str]]:
    collection = collection_of(searched.run)
    if collection is None or collection.layout.source != ENGLISH:
        return {}
    try:
        captions = read_captions(collection.human("test", ENGLISH))
    except UserError:  # not every collection has it, and a test does not need it
        return {}
    return _by_item(zip(captions.ids, captions.texts, strict=True))


def _by_item(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Texts by item, from caption ids `item#tag#number` and texts."""
    found: dict[str, list[str]] = {}
    for caption, text in pairs:
        found.setdefault(caption.rsplit("#", 2)[0], []).append(text)
    return found


def first_of(texts: Sequence[str], count: int) -> list[str]:
    """The first few different texts."""
    return list(dict.fromkeys(texts))[:count]
