"""Which parameters a normalisation is tried with, and the choice among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

from nrccr.config.choices import Method
from nrccr.evaluation.normalise import USES_BETA, USES_K, Settings

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
