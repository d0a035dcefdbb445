"""German captions of generated videos."""

from __future__ import annotations

import random

from nrccr.data.generated.words import Grammar, Plan, Word, join, number_of, phrase, pick, spaced, swap

_DIGITS = ("Null", "Eins", "Zwei", "Drei", "Vier", "Fünf", "Sechs", "Sieben", "Acht", "Neun")
_OPPOSITES = (
    "links rechts",
    "linken rechten",
    "linkswärts rechtswärts",
    "oben unten",
    "oberen unteren",
    "aufwärts abwärts",
    "steigt sinkt",
)
_SIZES = {
    "small": ("kleine/small", "winzige/small"),
    "large": ("große/large", "riesige/large", "dicke/large"),
}
_PLACES = {
    "left": ("links/left", "am linken/left Rand", "auf der linken/left Seite"),
    "right": ("rechts/right", "am rechten/right Rand", "auf der rechten/right Seite"),
    "up": ("oben/up", "am oberen/up Rand", "oben/up im Bild"),
    "down": ("unten/down", "am unteren/down Rand", "unten/down im Bild"),
    "middle": ("in der Mitte/middle", "mitten/middle im Bild"),
}
# The finite verb, a bar, the rest; a rest that ends in a hyphen is a separable particle.
_ACTIONS = {
    "still": ("steht/still | still/still", "ruht/still |", "bleibt/still | stehen", "rührt/still | sich nicht"),
    "left": ("wandert/move | nach links/left", "gleitet/move | linkswärts/left", "bewegt/move | sich nach links/left"),
    "right": (
        "wandert/move | nach rechts/right",
        "gleitet/move | rechtswärts/right",
        "bewegt/move | sich nach rechts/right",
    ),
    "up": ("steigt/up |", "schwebt/move | nach oben/up", "wandert/move | aufwärts/up", "steigt/up | auf-"),
    "down": ("sinkt/down |", "fällt/move | nach unten/down", "gleitet/move | abwärts/down", "sinkt/down | herab-"),
    "grow": ("wächst/grow |", "wird | größer/grow", "wird | immer größer/grow"),
    "shrink": ("schrumpft/shrink |", "wird | kleiner/shrink", "wird | immer kleiner/shrink"),
    "appear": ("erscheint/appear |", "taucht/appear | auf-", "kommt | zum Vorschein/appear"),
    "vanish": ("verschwindet/vanish |", "verblasst/vanish |", "löst/vanish | sich auf-"),
}
_GROUNDS = {
    "dark": ("auf schwarzem/dark Grund/ground", "vor dunklem/dark Hintergrund/ground"),
    "bright": ("auf weißem/bright Grund/ground", "vor hellem/bright Hintergrund/ground"),
    "darkens": ("der Hintergrund/ground wird/turn schwarz/dark", "das Bild/ground wird/turn dunkel/dark"),
    "brightens": ("der Hintergrund/ground wird/turn weiß/bright", "das Bild/ground wird/turn hell/bright"),
}


def _german(plan: Plan, choose: random.Random) -> list[Word]:
    ground = pick(_GROUNDS, plan.ground, "all", choose)
    turns = plan.ground in ("darkens", "brightens")
    front = ground if ground and not turns and choose.random() < 0.5 else []
    words = _german_clauses(plan, front, choose)
    if not ground or front:
        return words
    return [*words, Word(","), Word("und"), *ground] if turns else [*words, *ground]


def _german_clauses(plan: Plan, front: list[Word], choose: random.Random) -> list[Word]:
    """`front` opens the sentence, so that the finite verb follows it."""
    if len(plan.actors) == 1:
        return _german_clause(plan, 0, front, choose)
    if plan.sequence:
        link = choose.choice(("dann/then", "danach/then", "anschließend/then"))
        opening = front or choose.choice(([], phrase("zuerst/then")))
        return join(
            "{0} , {1}", _german_clause(plan, 0, opening, choose), _german_clause(plan, 1, phrase(link), choose)
        )
    first, second = choose.choice(((0, 1), (1, 0)))
    if choose.random() < 0.4:
        main = _german_clause(plan, first, front, choose)
        return [*main, Word(","), *_german_side_clause(plan, second, choose)]
    if not front and choose.random() < 0.5:
        side = _german_side_clause(plan, first, choose)
        return join("{0} , {1}", side, _german_clause(plan, second, side, choose)[len(side) :])
    link = choose.choice(("{0} und {1}", "{0} , gleichzeitig/while {1}"))
    opening = [] if "und" in link else [Word("")]
    after = _german_clause(plan, second, opening, choose)[len(opening) :]
    return join(link, _german_clause(plan, first, front, choose), after)


def _german_clause(plan: Plan, number: int, front: list[Word], choose: random.Random) -> list[Word]:
    """A main clause: the finite verb stands second."""
    subject, verb, rest, place = _german_parts(plan, number, choose)
    rest = [Word(word.text.removesuffix("-"), word.concept) for word in rest]
    if rest and rest[0].text == "sich":
        verb = [*verb, rest.pop(0)]
    if front:
        return [*front, *verb, *subject, *place, *rest]
    if place and choose.random() < 0.4:
        return [*place, *verb, *subject, *rest]
    return [*subject, *verb, *place, *rest]


def _german_side_clause(plan: Plan, number: int, choose: random.Random) -> list[Word]:
    """A clause with `während`: the finite verb stands last, joined with its particle."""
    subject, verb, rest, place = _german_parts(plan, number, choose)
    if rest and rest[-1].text.endswith("-"):
        particle = rest.pop().text.removesuffix("-")
        verb = [Word(particle + verb[0].text, verb[0].concept)]
    return [*phrase("während/while"), *subject, *place, *rest, *verb]


def _german_parts(
    plan: Plan, number: int, choose: random.Random
) -> tuple[list[Word], list[Word], list[Word], list[Word]]:
    actor = plan.actors[number]
    size = pick(_SIZES, actor.size if plan.sized[number] else "", number, choose)
    noun = choose.choice(("{}", "{}", "handgeschriebene {}", "Ziffer/figure {}"))
    subject = [Word("eine"), *size, *phrase(noun.format(number_of(actor, _DIGITS, choose)), number)]
    verb, _, rest = choose.choice(_ACTIONS[actor.action]).partition("|")
    place = pick(_PLACES, actor.place if plan.placed[number] else "", number, choose)
    return subject, phrase(verb, number), phrase(rest, number), place


GERMAN = Grammar(_DIGITS, _german, spaced, swap(_OPPOSITES))
