"""The noise model: the rate that was asked for, every kind of error, and errors that the way back repeats."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from nrccr.data.generated.chinese import CHINESE
from nrccr.data.generated.english import ENGLISH
from nrccr.data.generated.german import GERMAN
from nrccr.data.generated.noise import KINDS, SENSES, Slip, Translator, changed
from nrccr.data.generated.words import Word, phrase

Count = Callable[[Sequence[str], Sequence[str]], int]
GRAMMARS = {"en": ENGLISH, "de": GERMAN, "zh": CHINESE}
CLEAN = phrase("a small/small three/digit moves/move to the left/left", 0)
SOURCE = phrase("eine kleine/small Drei/digit wandert/move nach links/left", 0)


def test_changed_is_the_longest_common_subsequence(lost: Count) -> None:
    choose = random.Random(0)
    for _ in range(500):
        clean, noisy = (choose.choices("abcdef,", k=choose.randint(0, 12)) for _ in range(2))
        expected = lost([w for w in clean if w != ","], [w for w in noisy if w != ","])
        assert changed([Word(w) for w in clean], [Word(w) for w in noisy]) == expected


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.37, 0.7])
def test_rate_over_many_sentences(rate: float, lost: Count) -> None:
    translator = Translator("en", ENGLISH, rate, random.Random(1))
    translations = [translator.translate(CLEAN, SOURCE) for _ in range(400)]
    words = 400 * len(CLEAN)
    found = sum(lost([w.text for w in t.clean], [w.text for w in t.noisy]) for t in translations)
    assert found / words == pytest.approx(rate, abs=0.005)
    if rate:
        counts = Counter(slip.kind for t in translations for slip in t.slips)
        assert set(counts) == set(KINDS)
        assert min(counts.values()) > 0.1 * sum(counts.values())
        assert len({tuple(w.text for w in t.noisy) for t in translations}) > 50


def strike(kind: str) -> list[str]:
    """A sentence with one error of a kind."""
    for seed in range(200):
        translation = Translator("en", ENGLISH, 1 / len(CLEAN) + 1e-9, random.Random(seed)).translate(CLEAN, SOURCE)
        if [slip.kind for slip in translation.slips] == [kind]:
            return [word.text for word in translation.noisy]
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(kind: str, lost: Count) -> None:
    clean, noisy = [word.text for word in CLEAN], strike(kind)
    new = Counter(noisy) - Counter(clean)
    assert lost(clean, noisy) == 1
    if kind == "dropped":
        assert len(noisy) == len(clean) - 1
    elif kind == "order":
        assert sorted(noisy) == sorted(clean)
    elif kind == "untranslated":
        assert set(new) <= {word.text for word in SOURCE if word.concept}
    elif kind == "wrong_sense":
        assert set(new) <= {SENSES[sense]["en"] for sense in ("small", "move", "left")}
    else:
        assert set(new) <= {*ENGLISH.digits, "right"}


@pytest.mark.parametrize("language", GRAMMARS)
def test_the_way_back_repeats_errors(language: str) -> None:
    def back(*slips: Slip) -> str:
        translator = Translator("en", ENGLISH, 0.0, random.Random(0))
        return " ".join(word.text for word in translator.repeat(CLEAN, slips))

    assert back() == "a small three moves to the left"
    assert back(Slip("number_or_direction", "0:digit", 8)) == "a small eight moves to the left"
    assert back(Slip("number_or_direction", "0:left")) == "a small three moves to the right"
    assert back(Slip("dropped", "0:small")) == "a three moves to the left"
    assert back(Slip("wrong_sense", "0:left")) == "a small three moves to the departed"
    assert back(Slip("untranslated", "0:digit"), Slip("dropped", "")) == back()
    assert all(sense[language] for sense in SENSES.values())
