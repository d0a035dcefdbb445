"""English captions of generated videos."""

from __future__ import annotations

import random

from nrccr.data.generated.words import Grammar, Plan, Word, join, number_of, phrase, pick, spaced, swap

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_OPPOSITES = (
    "left right",
    "leftwards rightwards",
    "up down",
    "upwards downwards",
    "top bottom",
    "upper lower",
    "rises sinks",
)
_SIZES = {
    "small": ("small/small", "little/small", "tiny/small"),
    "large": ("large/large", "big/large", "huge/large"),
}
_PLACES = {
    "left": ("on the left/left", "at the left/left edge", "on the left/left side"),
    "right": ("on the right/right", "at the right/right edge", "on the right/right side"),
    "up": ("at the top/up", "in the upper/up part", "near the top/up"),
    "down": ("at the bottom/down", "in the lower/down part", "near the bottom/down"),
    "middle": ("in the middle/middle", "in the centre/middle"),
}
_ACTIONS = {
    "still": ("stands/still still/still", "stays/still there", "rests/still", "does not move/still"),
    "left": ("moves/move to the left/left", "glides/move leftwards/left", "slides/move left/left"),
    "right": ("moves/move to the right/right", "glides/move rightwards/right", "slides/move right/right"),
    "up": ("moves/move up/up", "rises/up", "climbs/move upwards/up", "glides/move to the top/up"),
    "down": ("moves/move down/down", "sinks/down", "drops/move downwards/down", "glides/move to the bottom/down"),
    "grow": ("grows/grow", "gets bigger/grow", "becomes larger/grow and larger/grow"),
    "shrink": ("shrinks/shrink", "gets smaller/shrink", "becomes smaller/shrink and smaller/shrink"),
    "appear": ("appears/appear", "shows/appear up", "comes into view/appear"),
    "vanish": ("disappears/vanish", "vanishes/vanish", "fades/vanish away"),
}
_GROUNDS = {
    "dark": (
        "on a black/dark background/ground",
        "on dark/dark ground/ground",
        "against a black/dark background/ground",
    ),
    "bright": ("on a white/bright background/ground", "on bright/bright ground/ground"),
    "darkens": ("the background/ground turns/turn black/dark", "the picture/ground goes/turn dark/dark"),
    "brightens": ("the background/ground turns/turn white/bright", "the picture/ground becomes/turn bright/bright"),
}


def _english(plan: Plan, choose: random.Random) -> list[Word]:
    clauses = [_english_clause(plan, number, choose) for number in range(len(plan.actors))]
    if len(clauses) == 1:
        words = clauses[0]
    elif plan.sequence:
        first, second = clauses
        form = choose.choice(("{0} , then/then {1}", "first/then {0} , then/then {1}", "after/then {0} , {1}"))
        words = join(form, first, second)
    else:
        form = choose.choice(("{0} while/while {1}", "while/while {0} , {1}", "{0} and {1}"))
        words = join(form, *(clauses if choose.random() < 0.5 else clauses[::-1]))
    ground = pick(_GROUNDS, plan.ground, "all", choose)
    if not ground:
        return words
    if plan.ground in ("darkens", "brightens"):
        return [*words, Word(","), Word("and"), *ground]
    return [*ground, Word(","), *words] if choose.random() < 0.4 else [*words, *ground]


def _english_clause(plan: Plan, number: int, choose: random.Random) -> list[Word]:
    actor = plan.actors[number]
    size = pick(_SIZES, actor.size if plan.sized[number] else "", number, choose)
    noun = choose.choice(("{}", "{}", "handwritten {}", "number/figure {}", "digit/figure {}"))
    article = Word("an" if size == [] and noun == "{}" and actor.digit == 8 else "a")
    subject = [article, *size, *phrase(noun.format(number_of(actor, _DIGITS, choose)), number)]
    place = pick(_PLACES, actor.place if plan.placed[number] else "", number, choose)
    action = pick(_ACTIONS, actor.action, number, choose)
    if place and choose.random() < 0.3:
        return [*place, *subject, *action]
    return [*subject, *place, *action] if choose.random() < 0.3 else [*subject, *action, *place]


ENGLISH = Grammar(_DIGITS, _english, spaced, swap(_OPPOSITES))
