"""What a noisy translator should have written: the `.errors.jsonl` beside a generated caption file, and its words."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nrccr.data.captions import CaptionKey
from nrccr.data.collections import errors_of
from nrccr.data.generated.chinese import CHINESE
from nrccr.data.generated.english import ENGLISH
from nrccr.data.generated.german import GERMAN
from nrccr.data.generated.words import Word
from nrccr.data.pieces import Span
from nrccr.errors import UserError, first_line
from nrccr.files import moderate
from nrccr.sizes import regular_bytes

_GRAMMARS = {"en": ENGLISH, "de": GERMAN, "zh": CHINESE}
Fate = Literal["right", "moved", "wrong"]


@dataclass(frozen=True)
class Known:
    """A translation of which the right one is known, word by word, without punctuation.

    Attributes:
        clean: what a perfect translator writes.
        noisy: what was written.
    """

    clean: list[str]
    noisy: list[str]

    def fates(self) -> list[Fate]:
        """Of each written word: right and in its place, right but moved, or wrong.

        In its place is what belongs to a longest common subsequence of both sentences, as in noise.changed.
        """
        kept = _common(self.clean, self.noisy)
        left = Counter(self.clean) - Counter(self.noisy[at] for at in kept)
        fates: list[Fate] = []
        for at, word in enumerate(self.noisy):
            fates.append("right" if at in kept else "moved" if left[word] else "wrong")
            left[word] -= fates[-1] == "moved"
        return fates

    def lost(self) -> float:
        """Share of the clean words that the sentence does not have, 0..1; moved words are there."""
        return (Counter(self.clean) - Counter(self.noisy)).total() / max(1, len(self.clean))

    def fates_in(self, text: str, spans: Sequence[Span]) -> list[Fate | None]:
        """Of parts of the written sentence, as `fates`: of the first word that a part overlaps and that is not right.

        Args:
            text: the sentence, in upper or lower case, with punctuation.
            spans: where the parts begin and end.

        Returns:
            one a part; none for punctuation, and for all where the words are not in the text.
        """
        lower, end, places = text.lower(), 0, []
        for word in self.noisy:
            start = lower.find(word.lower(), end)
            if start < 0:
                return [None] * len(spans)
            end = start + len(word)
            places.append((start, end))
        fates: list[Fate | None] = []
        for start, stop in spans:
            over = [fate for fate, (a, b) in zip(self.fates(), places, strict=True) if a < stop and start < b]
            fates.append(next((fate for fate in over if fate != "right"), over[0] if over else None))
        return fates

    def corrected(self) -> Known:
        """The clean sentence as if it were the translation: its wrong words are those that the other one lacks."""
        return Known(self.noisy, self.clean)


def spelt(words: Sequence[str], language: str) -> str:
    """A sentence of these words as captions are written, but for its commas."""
    return _GRAMMARS[language].spell([Word(word) for word in words])


def read_known(captions: Path) -> dict[CaptionKey, Known]:
    """What is known of the translations of a caption file; nothing where no errors are written beside it.

    Raises:
        UserError: the file of errors cannot be read, or a line is damaged.
    """
    path = errors_of(captions)
    if not path.is_file():
        return {}
    try:
        lines = regular_bytes(path).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)}); make the collection again") from error
    found: dict[CaptionKey, Known] = {}
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line, parse_int=moderate)
            key = (values["item"], str(values["number"]))
            found[key] = Known(_words(values["clean"]), _words(values["noisy"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UserError(
                f"{path}:{number}: no errors of a translation (item, number, clean, noisy); make the collection again"
            ) from None
    return found


def _words(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise TypeError("words are no list of texts")
    return value


def _common(left: Sequence[str], right: Sequence[str]) -> set[int]:
    """The places in `right` of a longest common subsequence, those furthest to the front."""
    longest = np.zeros((len(left) + 1, len(right) + 1), dtype=np.int64)  # of what is left from (i, j) on
    for i in range(len(left) - 1, -1, -1):
        for j in range(len(right) - 1, -1, -1):
            same = left[i] == right[j]
            longest[i, j] = longest[i + 1, j + 1] + 1 if same else max(longest[i + 1, j], longest[i, j + 1])
    places, i, j = set(), 0, 0
    while i < len(left) and j < len(right):
        if left[i] == right[j]:
            places.add(j)
            i, j = i + 1, j + 1
        elif longest[i + 1, j] >= longest[i, j + 1]:
            i += 1
        else:
            j += 1
    return places
