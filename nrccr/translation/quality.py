"""What went wrong in a translated file, line by line, as far as that shows without a reference."""

from __future__ import annotations

import re
import statistics
import unicodedata
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from nrccr.data.captions import number_lines, pair, parse_captions
from nrccr.translation.codes import scripts

FACTOR = 3.0  # how far a length may be from the file's usual share of the source's
SHORTEST = 4  # characters; lengths below it say nothing
_WORD = re.compile(r"\w")


@dataclass(frozen=True)
class Quality:
    """Lines of a translated file that look wrong.

    Attributes:
        path: the file.
        captions: how many it has that can be compared with the source.
        untranslated: lines that say the same as the source.
        empty: lines without text, or with the source's text in the place of an empty translation.
        repeated: lines where words come again and again, and do not in the source.
        length: lines whose length is far from the file's usual share of the source's.
        script: lines whose letters are for the most part of another script than the language's.
    """

    path: Path
    captions: int
    untranslated: list[int]
    empty: list[int]
    repeated: list[int]
    length: list[int]
    script: list[int]

    @property
    def kinds(self) -> dict[str, list[int]]:
        """Lines by what is wrong with them."""
        names = ("untranslated", "empty", "repeated", "length", "script")
        return {name: getattr(self, name) for name in names}


def inspect(source: Path, translation: Path, language: str, replaced: Collection[int] = ()) -> Quality:
    """Compare a translated file with what it was made of.

    Args:
        source: caption file.
        translation: its translation.
        language: of the translation.
        replaced: lines where the source's text stands for an empty translation.

    Raises:
        UserError: one of the files cannot be read, or a language without a row in the table.
    """
    own = scripts(language)
    matched = pair([parse_captions(source)[0], parse_captions(translation)[0]]).captions
    numbers, bare = number_lines(translation)
    lines = [numbers[caption] for caption in matched[1].ids]
    rows = [
        row for row in zip(lines, matched[0].texts, matched[1].texts, strict=True) if row[0] not in replaced
    ]  # (line, source, translation)

    def found(wrong: Callable[[str, str], bool]) -> list[int]:
        return sorted(line for line, before, after in rows if wrong(before, after))

    usual = statistics.median([_ratio(before, after) for _, before, after in rows] or [1.0])
    return Quality(
        translation,
        len(lines) + len(bare),
        found(lambda before, after: _plain(before) == _plain(after)),
        sorted({*replaced, *bare}),
        found(lambda before, after: loops(after) and not loops(before)),
        found(lambda before, after: _is_far(before, after, usual)),
        found(lambda _, after: _is_foreign(after, own)),
    )


def loops(text: str) -> bool:
    """Whether a word comes four times in a row, or two to eight words three times; of Chinese, characters."""
    words = _words(text)
    return any(_repeats(words, size, 4 if size == 1 else 3) for size in range(1, 9))


def _repeats(words: Sequence[str], size: int, times: int) -> bool:
    run = 0  # words that equal the one `size` before them
    for index in range(size, len(words)):
        run = run + 1 if words[index] == words[index - size] else 0
        if run >= size * (times - 1):
            return True
    return False


def _words(text: str) -> list[str]:
    """Words, and single characters where no spaces stand between words."""
    parts: list[str] = []
    for word in text.casefold().split():
        parts += list(word) if any(_script(letter) in ("CJK", "HIRAGANA", "THAI") for letter in word) else [word]
    return parts


def _plain(text: str) -> str:
    """Letters and digits alone, in lower case."""
    return "".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def _length(text: str) -> int:
    return max(1, len("".join(text.split())))


def _ratio(before: str, after: str) -> float:
    return _length(after) / _length(before)


def _is_far(before: str, after: str, usual: float) -> bool:
    if max(_length(after), usual * _length(before)) < SHORTEST:
        return False
    return not usual / FACTOR <= _ratio(before, after) <= usual * FACTOR


def _is_foreign(text: str, own: Sequence[str]) -> bool:
    letters = [letter for letter in text if letter.isalpha()]
    return bool(letters) and 2 * sum(_script(letter) not in own for letter in letters) > len(letters)


def _script(letter: str) -> str:
    return re.split("[ -]", unicodedata.name(letter, ""), maxsplit=1)[0]
