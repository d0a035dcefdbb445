"""How close the captions of an item and the item itself lie to each other, against other items.

P points (captions and items), D joint-space width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Compactness:
    """Mean cosine distances, 0..2.

    Attributes:
        points, items: how many.
        within: mean over all pairs of points of the same item.
        between: mean over all pairs of points of different items.
    """

    points: int
    items: int
    within: float
    between: float

    @property
    def ratio(self) -> float:
        """Within over between: 0 where each item is one point, 1 where items mean nothing."""
        return self.within / self.between


def compactness(vectors: npt.ArrayLike, item_of: npt.ArrayLike) -> Compactness:
    """Distances within and between items, in the space itself.

    The sum of the cosines of all pairs is (|sum of the vectors|² - P) / 2, so that no pair is computed on its own.

    Args:
        vectors: (P, D) of unit length.
        item_of: (P,) the item of each point.

    Raises:
        ValueError: one item alone, or none with two points.
    """
    points = np.asarray(vectors, dtype=np.float64)
    _, places, counts = np.unique(np.asarray(item_of), return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), points.shape[1]))
    np.add.at(sums, places, points)  # (items, D)
    within_pairs = float((counts * (counts - 1) / 2).sum())
    between_pairs = len(points) * (len(points) - 1) / 2 - within_pairs
    if not within_pairs or not between_pairs:
        raise ValueError("compactness needs two items, and an item with two points")
    squares = float((points**2).sum())  # P for unit length; kept, as float32 vectors are not exactly that
    within = (float((sums**2).sum()) - squares) / 2
    every = (float((sums.sum(axis=0) ** 2).sum()) - squares) / 2
    return Compactness(len(points), len(counts), 1 - within / within_pairs, 1 - (every - within) / between_pairs)
