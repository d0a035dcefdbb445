"""Weight of the languages and normalisation: parameters validated, tried, and chosen by their quality."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import get_args

from nrccr.config.choices import Method
from nrccr.data.queries import Split
from nrccr.errors import UserError
from nrccr.evaluation.choice import Choice
from nrccr.evaluation.directions import Bank, Directions
from nrccr.evaluation.encode import EncodedQueries, Encoder, encode_split
from nrccr.evaluation.normalise import METHODS, TRANSDUCTIVE, USES_BETA, USES_K, Settings
from nrccr.evaluation.ranked import Scored
from nrccr.evaluation.rule import Rule

BETAS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
ACTIVATED = (1, 3, 10)
NEIGHBOURS = (1, 5, 10, 30, 100)
ROUNDS = (1, 5, 20)
ALPHAS = (0.25, 0.5, 0.75, 1.0)
WEIGHTS = tuple(step / 20 for step in range(21))  # w_T


def candidates(method: Method) -> Iterator[Settings]:
    """Every combination of the parameters that the method uses."""
    usual = Settings(method)
    ks = {"sinkhorn": ROUNDS, "csls": NEIGHBOURS, "nnn": NEIGHBOURS}.get(method, ACTIVATED)
    for beta, k, alpha in product(
        BETAS if method in USES_BETA else (usual.beta,),
        ks if method in USES_K else (usual.k,),
        ALPHAS if method == "nnn" else (usual.alpha,),
    ):
        yield Settings(method, beta, k, alpha)


def choose(method: Method, quality: Callable[[Settings], float]) -> tuple[Settings, float]:
    """The candidate of the highest quality, the first of equals, and that quality."""
    tried = [(settings, quality(settings)) for settings in candidates(method)]
    return max(tried, key=lambda entry: entry[1])


def quality(network: Encoder, split: Split, rule: Rule, bank: Bank | None) -> Callable[[Settings], float]:
    """A function from settings to the SumR of a split's headline at the rule's weight; the split is encoded once."""
    with rule.encoding():
        _, encoded = next(encode_split(network, split, rule.batch_size, rule.device))
    total = sum_of_recalls(encoded, rule, bank)
    return lambda settings: total(rule.target_weight, settings)


def sum_of_recalls(encoded: EncodedQueries, rule: Rule, bank: Bank | None) -> Callable[[float, Settings | None], float]:
    """A function from w_T and settings, none for scores as `rule.kind` has them, to SumR."""
    directions = Directions(encoded.embeddings, rule.kind, rule.memory_mb, bank)

    def total(target_weight: float, settings: Settings | None) -> float:
        both = directions.plain(target_weight) if settings is None else directions.normalised(target_weight, settings)
        scored = Scored.of(both, encoded.item_of, rule.memory_mb)
        return float(scored.ranked(memory_mb=rule.memory_mb).metrics()["SumR"])

    return total


def choose_both(encoded: EncodedQueries, rule: Rule, bank: Bank | None, split: str) -> Choice:
    """The weight of the highest SumR without normalisation, and at that weight the best normalisation.

    Of equals the plainest is taken: the weight nearest to the rule's own (of two the larger), no normalisation, and
    else the first of `METHODS`. Transductive methods are not tried.

    Args:
        encoded: queries of a split that is not tested, in one language.
        rule: how scores are made; its weight is the configured one.
        bank: for the methods; without it, the weight alone is chosen.
        split: its name.
    """
    total, configured = sum_of_recalls(encoded, rule, bank), rule.target_weight
    mixes = encoded.embeddings.source is not None  # else no weight changes anything
    every_weight = {configured, *(WEIGHTS if mixes else ())}
    # Rounded: of floating-point numbers 0.45 lies nearer to 0.5 than 0.55 does.
    tried = sorted(every_weight, key=lambda weight: (round(abs(weight - configured), 9), -weight))
    weights = [(weight, total(weight, None)) for weight in tried]
    target_weight, plain = max(weights, key=lambda entry: entry[1])
    every = [settings for method in METHODS if method not in TRANSDUCTIVE for settings in candidates(method)]
    methods: list[tuple[Settings | None, float]] = [(None, plain)]
    methods += [(settings, total(target_weight, settings)) for settings in every if bank is not None]
    settings, _ = max(methods, key=lambda entry: entry[1])
    return Choice(split, configured, sorted(weights), target_weight, methods, settings, bank)


def settings_of(method: str, beta: float, k: int, alpha: float) -> Settings:
    """Validated settings.

    Raises:
        UserError: an unknown method, a value out of range.
    """
    known = next((name for name in get_args(Method) if name == method), None)
    if known is None:
        raise UserError(f"method {method}: unknown; choose one of {', '.join(get_args(Method))}")
    settings = Settings(known, beta, k, alpha)
    try:
        settings.check()
    except ValueError as error:
        raise UserError(str(error)) from error
    return settings
