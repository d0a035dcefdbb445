"""A query in any language -> the items of an index.

D joint-space width.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from nrccr.config.keys import declared
from nrccr.data.captions import is_blank
from nrccr.errors import UserError
from nrccr.search.build import require_same_model
from nrccr.search.store import Generation, current, open_index
from nrccr.search.vectors import Floats
from nrccr.systems.loading import load_retriever
from nrccr.systems.retriever import Retriever

LONGEST_QUERY = 1000  # characters
MOST_RESULTS = 1000

Translate: TypeAlias = Callable[[str], str]


@dataclass(frozen=True)
class Query:
    """What items are compared with.

    Attributes:
        vector: (D,), mixed with the translation where there is one.
        translation: into the language of the model's training captions.
    """

    vector: Floats
    translation: str | None


@dataclass(frozen=True)
class Result:
    """An item that a query found; higher scores are better."""

    item: str
    score: float
    frames: int


@dataclass(frozen=True)
class Found:
    """The items of a query, best first, and the translation that it was mixed with, if any."""

    translation: str | None
    results: list[Result]


class Searcher:
    """A model and the newest generation of an index; several threads may ask it.

    Args:
        index: the index.
        run: the model, if not where the index says.
        device: where it computes.
        translate: a query -> its English, mixed with it as the papers do.

    Raises:
        UserError: no index, no model, or another model than the index was made with.
    """

    def __init__(
        self, index: Path, run: Path | None = None, device: str | None = None, translate: Translate | None = None
    ) -> None:
        self.index, self._translate = index, translate
        self._opened = open_index(index)
        self.retriever: Retriever = load_retriever(run or Path(self._opened.about.run), [], device)
        require_same_model(self._opened.about, self.retriever, index)
        self._encoding, self._opening, self._translating = threading.Lock(), threading.Lock(), threading.Lock()

    @classmethod
    def open(
        cls, index: Path, run: Path | None = None, device: str | None = None, translator: str | None = None
    ) -> Searcher:
        """A searcher with the translation model that `--translator` names, if any.

        Raises:
            UserError: as for the class; a model that cannot translate, or a system that mixes no queries.
        """
        searcher = cls(index, run, device)
        if translator is not None:
            searcher._translate = translation_by(translator, searcher.retriever)
        return searcher

    def generation(self) -> Generation:
        """The newest generation, whole; who has one keeps it while others are written."""
        with self._opening:
            if current(self.index) != self._opened.folder.name:
                found = open_index(self.index)
                require_same_model(found.about, self.retriever, self.index)
                self._opened = found
            return self._opened

    def encode(self, query: str, english: bool = False) -> Query:
        """A query, mixed with its translation where there is a translator; English has none.

        Raises:
            UserError: it is empty or too long.
        """
        if len(query) > LONGEST_QUERY:
            raise UserError(f"the query has {len(query)} characters; give at most {LONGEST_QUERY}")
        with self._encoding:
            target: Floats = self.retriever.encode_text([query], role="source" if english else "target")[0]
        if self._translate is None or english:
            return Query(target, None)
        with self._translating:
            made = self._translate(query)
        translation = query if is_blank(made) else made  # as `nrccr translate` does with an empty one
        with self._encoding:
            source = self.retriever.encode_text([translation], role="source")[0]
        return Query(mixed(source, target, self.retriever.config.evaluation.target_weight), translation)

    def encode_windows(self, windows: list[Floats]) -> Floats:
        """Clips of frames (F, feature width) -> (clips, D)."""
        with self._encoding:
            found: Floats = self.retriever.encode_video(windows)
            return found

    def search(self, query: str, top: int = 10, english: bool = False, effort: int | None = None) -> Found:
        """The best items, best first.

        Raises:
            UserError: a query that is empty or too long, an effort for an exact index.
        """
        generation = self.generation()
        if effort is not None and generation.about.shape.kind == "exact":
            raise UserError("--effort is for approximate indexes; this one is exact: leave it out")
        encoded = self.encode(query, english)
        found = generation.search(encoded.vector, min(top, MOST_RESULTS), effort)
        return Found(encoded.translation, [Result(item.id, score, item.frames) for item, score in found])


def mixed(source: Floats, target: Floats, target_weight: float) -> Floats:
    """w_T target + (1 - w_T) source, both (D,): its inner products are the mixed scores, which are linear in it."""
    return np.asarray(target_weight * target + (1.0 - target_weight) * source, dtype=np.float32)


def translation_by(model: str, retriever: Retriever) -> Translate:
    """Translations of a retriever's queries by a Marian, NLLB or M2M100 model, into its training captions' language.

    Raises:
        UserError: no such model, none of these languages, or a system that mixes no queries.
    """
    from nrccr.translation.translator import load_translator

    config = retriever.config
    if config.model not in config.readers(declared(type(config))["evaluation.target_weight"]):
        raise UserError(f"--translator {model}: {retriever.checkpoint} ranks by the query alone; leave it out")
    spoken, written = config.query_language, config.data.source
    translator = load_translator(model, spoken, written, retriever.device, option="--translator")
    return lambda query: translator.translate([query])[0]
