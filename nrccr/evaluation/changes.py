"""How ranks of the same queries change from one ranking to another.

Q queries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ranks = npt.NDArray[np.float64]
STEPS = (1, 10, 100)  # places, at which a change of another size begins


@dataclass(frozen=True)
class Changes:
    """Changes of the ranks of Q queries; shares are 0..1.

    Attributes:
        median: of before - after, in places: above 0 where ranks improve.
        better: shares of the queries that gain 1 to 9 places, 10 to 99, and 100 or more.
        same: share of those that keep their rank.
        worse: as `better`, of those that lose places.
    """

    median: float
    better: tuple[float, ...]
    same: float
    worse: tuple[float, ...]


def rank_changes(before: Ranks, after: Ranks) -> Changes:
    """Changes from one ranking's ranks (Q,) to another's, of the same queries in the same order."""
    gained = before - after  # (Q,)
    return Changes(float(np.median(gained)), _shares(gained), float((gained == 0).mean()), _shares(-gained))


def size_names() -> tuple[str, ...]:
    """Names of the sizes of a change, such as `1-9`."""
    return (*(f"{low}-{high - 1}" for low, high in zip(STEPS, STEPS[1:], strict=False)), f"{STEPS[-1]}+")


def _shares(gained: Ranks) -> tuple[float, ...]:
    """Shares of the queries that gain as many places, by STEPS."""
    ends = (*STEPS[1:], np.inf)
    return tuple(float(((gained >= low) & (gained < high)).mean()) for low, high in zip(STEPS, ends, strict=True))
