"""A noise model of machine translation: named kinds of errors at an exact rate.

A translation starts from a clean sentence of the grammar and gets errors until the share of words that differ from the
clean ones, summed over all sentences so far, is the requested rate.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from nrccr.data.generated.words import Grammar, Word

KINDS = ("wrong_sense", "dropped", "untranslated", "order", "number_or_direction")

HIGHEST_RATE = 0.7  # beyond it sentences run out of words to change

# The confusion list: a concept (or a linking word) -> what a translator may take it for, in each language.
SENSES = {
    "left": {"en": "departed", "de": "verlassen", "zh": "离开"},
    "right": {"en": "correct", "de": "richtig", "zh": "正确"},
    "up": {"en": "finished", "de": "beendet", "zh": "完毕"},
    "down": {"en": "feathers", "de": "Daunen", "zh": "羽绒"},
    "middle": {"en": "means", "de": "Mittel", "zh": "手段"},
    "small": {"en": "minor", "de": "geringfügig", "zh": "次要"},
    "large": {"en": "generous", "de": "großzügig", "zh": "慷慨"},
    "still": {"en": "yet", "de": "dennoch", "zh": "仍然"},
    "move": {"en": "relocates", "de": "übersiedelt", "zh": "搬家"},
    "grow": {"en": "cultivates", "de": "züchtet", "zh": "种植"},
    "shrink": {"en": "recoils", "de": "zurückschreckt", "zh": "退缩"},
    "appear": {"en": "seems", "de": "scheint", "zh": "似乎"},
    "vanish": {"en": "perishes", "de": "stirbt", "zh": "灭亡"},
    "dark": {"en": "obscure", "de": "unklar", "zh": "晦涩"},
    "bright": {"en": "clever", "de": "klug", "zh": "聪明"},
    "ground": {"en": "reason", "de": "Ursache", "zh": "缘由"},
    "turn": {"en": "rotates", "de": "dreht", "zh": "旋转"},
    "figure": {"en": "finger", "de": "Finger", "zh": "手指"},
    "while": {"en": "although", "de": "obwohl", "zh": "虽然"},
    "then": {"en": "than", "de": "als", "zh": "比"},
}


@dataclass(frozen=True)
class Slip:
    """One error.

    Attributes:
        kind: one of KINDS.
        concept: of the word that it changed, "" if that had none.
        digit: the wrong digit, if it was a number.
    """

    kind: str
    concept: str
    digit: int | None = None


@dataclass(frozen=True)
class Translation:
    """A sentence as the noisy translator gives it, and what it should have been."""

    clean: list[Word]
    noisy: list[Word]
    slips: list[Slip]


class Translator:
    """Makes errors at a steady rate in sentences of one language.

    Args:
        language: of the sentences it writes, `en`, `de` or `zh`.
        grammar: the same language's.
        rate: share of their words that change, 0 to HIGHEST_RATE.
        choose: its random numbers.
    """

    def __init__(self, language: str, grammar: Grammar, rate: float, choose: random.Random) -> None:
        self.language = language
        self.grammar = grammar
        self.rate = rate
        self.choose = choose
        self._owed = 0.0  # words still to be changed

    def translate(self, clean: Sequence[Word], source: Sequence[Word]) -> Translation:
        """The sentence with errors.

        Args:
            clean: what a perfect translator writes.
            source: what it translates; untranslated words come from there.
        """
        noisy, slips = list(clean), []
        untouched = [word for word in clean if word.text != ","]
        self._owed += self.rate * len(untouched)
        self.choose.shuffle(untouched)
        while untouched and changed(clean, noisy) + 1 <= self._owed:
            slips.append(self._slip(noisy, untouched, source))
        self._owed -= changed(clean, noisy)
        return Translation(list(clean), noisy, slips)

    def repeat(self, clean: Sequence[Word], slips: Sequence[Slip]) -> list[Word]:
        """The sentence with the same errors as another language's had: what a perfect translator makes of that one."""
        words = list(clean)
        for slip in slips:
            place = next((i for i, word in enumerate(words) if slip.concept and word.concept == slip.concept), None)
            if place is None:
                continue
            if slip.kind == "dropped":
                del words[place]
            elif slip.kind == "order":
                words.insert(self.choose.randrange(len(words)), words.pop(place))
            elif slip.kind == "wrong_sense":
                words[place] = self._mistaken(words[place])
            elif slip.kind == "number_or_direction":
                words[place] = self._misread(words[place], slip.digit) or words[place]
        return words

    def _slip(self, noisy: list[Word], untouched: list[Word], source: Sequence[Word]) -> Slip:
        """Make one error of a random kind in one of the untouched words that it can happen to; take that word out."""
        for kind in self.choose.sample(KINDS, k=len(KINDS)):
            for number, word in enumerate(untouched):
                place = next(i for i, own in enumerate(noisy) if own is word)
                slip = self._strike(kind, noisy, place, source)
                if slip is not None:
                    del untouched[number]
                    return slip
        raise AssertionError("any word can be dropped")

    def _strike(self, kind: str, noisy: list[Word], place: int, source: Sequence[Word]) -> Slip | None:
        """Make one error of a kind in the word at a place; None if it cannot happen to that word."""
        word, digit = noisy[place], None
        if kind == "dropped":
            del noisy[place]
        elif kind == "order":
            targets = [i for i, own in enumerate(noisy) if own.text != word.text]
            if not targets:
                return None
            noisy.insert(self.choose.choice(targets), noisy.pop(place))
        elif kind == "wrong_sense":
            if word.meaning not in SENSES:
                return None
            noisy[place] = self._mistaken(word)
        elif kind == "untranslated":
            originals = [own for own in source if own.concept == word.concept != "" and own.text != word.text]
            if not originals:
                return None
            noisy[place] = Word(self.choose.choice(originals).text, word.concept)
        else:
            digit = self._other_digit(word) if word.meaning == "digit" else None
            misread = self._misread(word, digit)
            if misread is None:
                return None
            noisy[place] = misread
        return Slip(kind, word.concept, digit)

    def _other_digit(self, word: Word) -> int:
        return self.choose.choice([d for d in range(10) if word.text not in (str(d), self.grammar.digits[d])])

    def _mistaken(self, word: Word) -> Word:
        return Word(SENSES[word.meaning][self.language], word.concept)

    def _misread(self, word: Word, digit: int | None) -> Word | None:
        """The word with another digit or direction; None if it has neither."""
        if digit is not None:
            return Word(str(digit) if word.text.isdigit() else self.grammar.digits[digit], word.concept)
        turned = self.grammar.opposite(word.text) if word.concept else None
        return None if turned is None else Word(turned, word.concept)


def changed(clean: Sequence[Word], noisy: Sequence[Word]) -> int:
    """Words of the clean sentence lost, replaced or moved in the noisy one: those outside the longest common sequence.

    Punctuation is no word. Bit-parallel longest common subsequence (Hyyrö 2004).
    """
    left = [word.text for word in clean if word.text != ","]
    places: dict[str, int] = {}
    for i, text in enumerate(left):
        places[text] = places.get(text, 0) | 1 << i
    full = (1 << len(left)) - 1
    row = full
    for word in noisy:
        match = row & places.get(word.text, 0)
        row = ((row + match) | (row - match)) & full
    return row.bit_count()
