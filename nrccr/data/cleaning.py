"""Which English is cleaned, and how: decided here alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nrccr.data.batch import ENGLISH

_WORDS = re.compile(r"[\w']+")
_NOT_ENGLISH = re.compile(r"[^A-Za-z0-9]+")


def clean_english(text: str) -> str:
    """The published cleaning of English: letters and digits only, lower case, one sentence with capital and full stop.

    A caption without any ASCII letter or digit becomes the empty sentence.
    """
    words = _NOT_ENGLISH.sub(" ", text).lower().strip()
    return f"{words.capitalize()}." if words else ""


def words_of(text: str) -> list[str]:
    """A caption's words as C2KD's published code finds them: runs of letters, digits, underscores and apostrophes."""
    return _WORDS.findall(text)


@dataclass(frozen=True)
class Cleaning:
    """Which English a system cleans; text in any other language stays as it is.

    Attributes:
        training: English captions of the training split.
        back: back-translations.
        queries: English queries and English translations of queries.
    """

    training: bool
    back: bool
    queries: bool

    def of_training(self, texts: Sequence[str], language: str = ENGLISH) -> list[str]:
        """Captions of the training split in a language."""
        return _cleaned(texts, self.training and language == ENGLISH)

    def of_back(self, texts: Sequence[str]) -> list[str]:
        """Back-translations."""
        return _cleaned(texts, self.back)

    def of_queries(self, texts: Sequence[str], language: str = ENGLISH) -> list[str]:
        """Queries in a language, or their translations into it."""
        return _cleaned(texts, self.queries and language == ENGLISH)


def _cleaned(texts: Sequence[str], clean: bool) -> list[str]:
    return [clean_english(text) for text in texts] if clean else list(texts)
