"""The words of a caption, put together from the pieces that a tokeniser cuts it into.

L pieces, W words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# Scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana, Chinese characters. Each piece is a word.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
Span = tuple[int, int]


@dataclass(frozen=True)
class Pieces:
    """A caption as its tokeniser cuts it.

    Attributes:
        text: as the tokeniser sees it.
        spans: (L,) where each piece begins and ends in `text`; without length for special tokens.
        units: (L,) the number of each piece's word before it was cut, as the tokeniser counts; none for special tokens.
    """

    text: str
    spans: Sequence[Span]
    units: Sequence[int | None]


@dataclass(frozen=True)
class Words:
    """The words of a caption.

    Attributes:
        texts: W words, as written.
        spans: (W,) where they begin and end in the caption as the tokeniser sees it.
        word_of: (L,) the word of each piece, -1 for special tokens.
    """

    texts: list[str]
    spans: list[Span]
    word_of: list[int]


def join_pieces(pieces: Pieces) -> Words:
    """Put pieces together to words.

    A piece begins a word where the tokeniser counts a new one (WordPiece), after white space (SentencePiece, byte
    BPE), and in a script without spaces wherever a character begins. A piece of white space belongs to the word after
    it, parts of one character belong together.
    """
    spans: list[Span] = []
    word_of: list[int] = []
    unit, end = None, 0  # of the piece before
    for (start, stop), own in zip(pieces.spans, pieces.units, strict=True):
        if own is None:
            word_of.append(-1)
            unit = None
            continue
        bare = _stripped(pieces.text, start, stop)
        if spans and spans[-1][0] == spans[-1][1]:  # white space so far
            spans[-1] = bare
        elif spans and own == unit and (start < end or (bare[0] == end and not _begins(pieces.text, end))):
            spans[-1] = (spans[-1][0], max(bare[1], spans[-1][1]))
        else:
            spans.append(bare)
        word_of.append(len(spans) - 1)
        unit, end = own, max(stop, end)
    if len(spans) > 1 and spans[-1][0] == spans[-1][1]:  # white space at the end
        spans.pop()
        word_of = [min(word, len(spans) - 1) for word in word_of]
    return Words([pieces.text[start:stop] for start, stop in spans], spans, word_of)


def _begins(text: str, at: int) -> bool:
    """Whether a word begins here although no white space is before: a script without spaces begins or ends."""
    return any(_UNSPACED.match(letter) for letter in text[max(0, at - 1) : at + 1])


def _stripped(text: str, start: int, stop: int) -> Span:
    """The span without white space around it."""
    inner = text[start:stop]
    begin = start + len(inner) - len(inner.lstrip())
    return begin, max(begin, start + len(inner.rstrip()))
