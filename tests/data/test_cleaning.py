"""Which English is cleaned, and what cleaning makes of it."""

from __future__ import annotations

from itertools import product

import pytest

from nrccr.data.cleaning import Cleaning, clean_english, words_of


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("a man, running!", "A man running."),
        ("  Two  MEN   x-ray a CD-ROM (2nd)  ", "Two men x ray a cd rom 2nd."),
        ("it's a café", "It s a caf."),  # only ASCII letters stay
        ("3 dogs.", "3 dogs."),
        ("...", ""),
        ("人在跑", ""),
    ],
)
def test_clean_english(raw: str, cleaned: str) -> None:
    assert clean_english(raw) == cleaned


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's a man, running!", ["It's", "a", "man", "running"]),
        ("x-ray of snake_case 2nd", ["x", "ray", "of", "snake_case", "2nd"]),
        ("café 人 ...", ["café", "人"]),
        (" ?! ", []),
    ],
)
def test_words_of(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@pytest.mark.parametrize("wanted", list(product([True, False], repeat=3)))
def test_each_kind_of_text_has_a_switch_of_its_own(wanted: tuple[bool, bool, bool]) -> None:
    texts, cleaned = ["A dog, RUNNING!", "..."], ["A dog running.", ""]
    cleaning = Cleaning(*wanted)
    found = [cleaning.of_training(texts), cleaning.of_back(texts), cleaning.of_queries(texts)]
    assert found == [cleaned if own else texts for own in wanted]
    assert texts == ["A dog, RUNNING!", "..."]


def test_other_languages_are_taken_as_they_are() -> None:
    everything = Cleaning(training=True, back=True, queries=True)
    for language in ("zh", "de", "enc"):
        assert everything.of_training(["Ein Hund, 人!"], language) == ["Ein Hund, 人!"]
        assert everything.of_queries(["Ein Hund, 人!"], language) == ["Ein Hund, 人!"]
    assert everything.of_queries(["Ein Hund, 人!"], "en") == ["Ein hund."]
