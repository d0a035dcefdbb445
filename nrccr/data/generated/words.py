"""What the grammars of the generated captions share: words with their meaning, plans of captions, phrases.

A phrase is written as words with their concept after a slash: `moves/move to the left/left`. Words of all languages
that share a concept mean the same; words without one only serve the grammar.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nrccr.data.generated.scenes import STEPS, Actor, Scene

Choices = Mapping[str, Sequence[str]]


class Word(NamedTuple):
    """One word of a caption.

    Attributes:
        text: as written.
        concept: what it means and of which clause, such as `0:left`, or "" for a word that only serves the grammar.
    """

    text: str
    concept: str = ""

    @property
    def meaning(self) -> str:
        """The concept without its clause."""
        return self.concept.partition(":")[2]


@dataclass(frozen=True)
class Plan:
    """What one caption mentions of a video.

    Attributes:
        actors: the digits that it mentions, in the order of the scene.
        sized, placed: whether each one's size and place are mentioned.
        sequence: the second follows the first.
        ground: the background, or "" if it is not mentioned.
    """

    actors: tuple[Actor, ...]
    sized: tuple[bool, ...]
    placed: tuple[bool, ...]
    sequence: bool
    ground: str


def make_plan(scene: Scene, choose: random.Random) -> Plan:
    """Choose what to mention: nearly always every digit and its action, at times size, place and background."""
    actors = scene.actors[:1] if choose.random() < 0.1 else scene.actors
    return Plan(
        actors=actors,
        sized=tuple(choose.random() < 0.6 and actor.action not in ("grow", "shrink") for actor in actors),
        placed=tuple(choose.random() < 0.7 and actor.action not in STEPS for actor in actors),
        sequence=scene.sequence,
        ground=scene.ground if choose.random() < 0.6 else "",
    )


@dataclass(frozen=True)
class Grammar:
    """One language.

    Attributes:
        digits: words for 0 to 9.
        render: the words of a caption that expresses a plan, punctuation included; one of many ways.
        spell: words -> the caption as people write it.
        opposite: the word for the other direction, or None for a word that has no direction.
    """

    digits: Sequence[str]
    render: Callable[[Plan, random.Random], list[Word]]
    spell: Callable[[Sequence[Word]], str]
    opposite: Callable[[str], str | None]


def phrase(text: str, clause: int | str = "all") -> list[Word]:
    """The words of a phrase, their concepts marked with their clause."""
    parts = [token.partition("/") for token in text.split()]
    return [Word(word, f"{clause}:{concept}" if concept else "") for word, _, concept in parts]


def pick(choices: Choices, key: str, clause: int | str, choose: random.Random) -> list[Word]:
    """One of the phrases for a key, or nothing for the key ""."""
    return phrase(choose.choice(choices[key]), clause) if key else []


def number_of(actor: Actor, digits: Sequence[str], choose: random.Random) -> str:
    """The digit as a phrase, now and then as a numeral."""
    return f"{actor.digit if choose.random() < 0.3 else digits[actor.digit]}/digit"


def join(form: str, *clauses: Sequence[Word]) -> list[Word]:
    """Put clauses into a form such as `{0} while/while {1}`."""
    words: list[Word] = []
    for token in form.split():
        words += clauses[int(token[1])] if token.startswith("{") else phrase(token)
    return words


def spaced(words: Sequence[Word]) -> str:
    """A sentence with spaces, a capital and a full stop."""
    text = " ".join(word.text for word in words).replace(" ,", ",")
    return text[:1].upper() + text[1:] + "."


def swap(pairs: Sequence[str]) -> Callable[[str], str | None]:
    """A function from each word of a pair to the other, from other words to None."""
    table = {own: other for pair in map(str.split, pairs) for own, other in (pair, pair[::-1])}
    return table.get
