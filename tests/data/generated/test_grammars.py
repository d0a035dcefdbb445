"""The grammars: every caption says what its plan holds, in words of its own language."""

from __future__ import annotations

import random
import re

import pytest

from nrccr.data.generated.chinese import CHINESE
from nrccr.data.generated.english import ENGLISH
from nrccr.data.generated.german import GERMAN
from nrccr.data.generated.scenes import STEPS, handwriting, make_scenes, split_samples
from nrccr.data.generated.words import Grammar, Plan, make_plan

SCENES = make_scenes("train", 300, split_samples(handwriting()[1], 0)["train"], 0)
GRAMMARS = {"en": ENGLISH, "de": GERMAN, "zh": CHINESE}


def plans() -> list[Plan]:
    return [make_plan(scene, random.Random(scene.video)) for scene in SCENES]


@pytest.mark.parametrize("language", GRAMMARS)
def test_every_mentioned_fact_is_said(language: str) -> None:
    grammar = GRAMMARS[language]
    for number, plan in enumerate(plans()):
        words = grammar.render(plan, random.Random(number))
        concepts = {word.concept for word in words if word.concept}
        for clause, actor in enumerate(plan.actors):
            expected = {f"{clause}:digit", f"{clause}:{actor.action}"}
            expected |= {f"{clause}:{actor.size}"} if plan.sized[clause] else set()
            expected |= {f"{clause}:{actor.place}"} if plan.placed[clause] else set()
            assert expected <= concepts, grammar.spell(words)
            digit = next(word.text for word in words if word.concept == f"{clause}:digit")
            assert digit in (str(actor.digit), grammar.digits[actor.digit])
            if not plan.placed[clause]:
                assert not {f"{clause}:{place}" for place in STEPS if place != actor.action} & concepts
        assert ("all:ground" in concepts) is bool(plan.ground)


@pytest.mark.parametrize("language", GRAMMARS)
def test_there_are_many_ways_to_say_the_same(language: str) -> None:
    grammar = GRAMMARS[language]
    plan = next(plan for plan in plans() if len(plan.actors) == 2 and plan.ground)
    said = {grammar.spell(grammar.render(plan, random.Random(seed))) for seed in range(200)}
    assert len(said) > 100
    assert {grammar.spell(grammar.render(plan, random.Random(7))) for _ in range(3)} <= said


@pytest.mark.parametrize(
    ("language", "form"), [("en", r"[A-Z0-9][\w ,]*\."), ("de", r"[A-Z0-9][\wäöüß ,]*\."), ("zh", r"[0-9一-鿿，]+。")]
)
def test_spelling(language: str, form: str) -> None:
    grammar = GRAMMARS[language]
    for number, plan in enumerate(plans()):
        text = grammar.spell(grammar.render(plan, random.Random(number)))
        assert re.fullmatch(form, text), text
        assert "  " not in text and " ," not in text and "-" not in text


FINITE = """steht ruht bleibt rührt wandert gleitet bewegt steigt schwebt sinkt fällt wächst wird schrumpft erscheint
    taucht kommt verschwindet verblasst löst aufsteigt herabsinkt auftaucht auflöst""".split()


def test_german_verb_position() -> None:
    """The finite verb stands last after `während`, and once in every clause."""
    side = 0
    for number, plan in enumerate(plans()):
        words = GERMAN.render(plan, random.Random(number))
        texts = [word.text for word in words]
        verbs = sum(text in FINITE for text in texts)
        assert verbs == len(plan.actors) + (plan.ground in ("darkens", "brightens")), texts
        if "während" in texts:
            side += 1
            start = texts.index("während")
            end = texts.index(",", start) if "," in texts[start:] else len(texts)
            clause = [word.text for word in words[start:end] if not word.concept.startswith("all:")]
            while clause[-1] in ("auf", "vor"):  # a background may close the sentence
                clause.pop()
            assert clause[-1] in FINITE, texts
    assert side > 10


@pytest.mark.parametrize("grammar", GRAMMARS.values())
def test_opposites_go_both_ways(grammar: Grammar) -> None:
    seen = {word.text for number, plan in enumerate(plans()) for word in grammar.render(plan, random.Random(number))}
    turned = {text: grammar.opposite(text) for text in seen}
    directed = {text: other for text, other in turned.items() if other is not None}
    assert len(directed) >= 10
    assert all(other != text and grammar.opposite(other) == text for text, other in directed.items())
