"""Parameters of a normalisation: validated, tried, and chosen by their quality."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import get_args

from nrccr.config.choices import Method
from nrccr.data.queries import Split
from nrccr.errors import UserError
from nrccr.evaluation.directions import Bank, Directions
from nrccr.evaluation.encode import Encoder, encode_split
from nrccr.evaluation.normalise import USES_BETA, USES_K, Settings
from nrccr.evaluation.ranked import Scored
from nrccr.evaluation.rule import Rule

BETAS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
ACTIVATED = (1, 3, 10)
NEIGHBOURS = (1, 5, 10, 30, 100)
ROUNDS = (1, 5, 20)
ALPHAS = (0.25, 0.5, 0.75, 1.0)


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
    """A function from settings to the SumR of a split, which is encoded once."""
    with rule.encoding():
        _, encoded = next(encode_split(network, split, rule.batch_size, rule.device))
    directions = Directions(encoded.embeddings, "raw", rule.memory_mb, bank)

    def sum_of_recalls(settings: Settings) -> float:
        scored = Scored.of(directions.normalised(rule.target_weight, settings), encoded.item_of, rule.memory_mb)
        return float(scored.ranked(memory_mb=rule.memory_mb).metrics()["SumR"])

    return sum_of_recalls


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
