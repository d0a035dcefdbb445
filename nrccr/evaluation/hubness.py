"""Hubs: items that come out near the top for too many queries, and those that never do.

Q queries, N items, k places of a ranking that count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import skew

from nrccr.evaluation.blocks import Blocks, highest_columns

PLACES = 10
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Hubness:
    """How unevenly a ranking shows items.

    Attributes:
        skewness: of the k-occurrences: third central moment over the cube of the deviation; 0 where all are alike.
        never: share of the items in no query's first k, 0..1 ("anti-hubs").
        mean: of the k-occurrences, Q k / N whatever the ranking.
        most: the largest k-occurrence.
    """

    skewness: float
    never: float
    mean: float
    most: int


def places_of(items: int) -> int:
    """How many first places count: 10, fewer in a gallery of under 20 items, where most would always be among them."""
    return max(1, min(PLACES, items // 2))


def first_places(scores: Blocks, k: int, memory_mb: float | None = None) -> Counts:
    """The items (Q, min(k, N)) ranked first for every query, ties by index."""
    found: Counts = highest_columns(scores, k, memory_mb).cpu().numpy()
    return found


def occurrences(first: Counts, items: int) -> Counts:
    """The k-occurrence N_k of every item, (N,): for how many queries it is among the first k.

    Args:
        first: (Q, k) from `first_places`.
        items: N.
    """
    return np.bincount(first.ravel(), minlength=items)


def hubness(counts: Counts) -> Hubness:
    """What the k-occurrences (N,) say together (Radovanovic et al. 2010, "Hubs in space", section 3)."""
    level = bool((counts == counts[0]).all())  # a deviation of 0, by which nothing can be divided
    return Hubness(
        skewness=0.0 if level else float(skew(counts)),
        never=float((counts == 0).mean()),
        mean=float(counts.mean()),
        most=int(counts.max()),
    )
