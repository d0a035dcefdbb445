"""k-occurrences and their skewness, against loops."""

from __future__ import annotations

import numpy as np
import pytest

from nrccr.evaluation.blocks import DenseScores
from nrccr.evaluation.hubness import first_places, hubness, occurrences, places_of


@pytest.mark.parametrize("k", [1, 3, 10, 40])
@pytest.mark.parametrize("ties", [True, False])
def test_occurrences_are_those_of_sorted_rows(k: int, ties: bool) -> None:
    values = np.random.default_rng(k)
    scores = values.integers(0, 4, (30, 25)).astype(float) if ties else values.standard_normal((30, 25))
    counts, first = [0] * 25, []
    for row in scores:
        first.append(sorted(range(25), key=lambda column: (-row[column], column))[:k])
        for column in first[-1]:
            counts[column] += 1
    found = first_places(DenseScores(scores), k, memory_mb=0.001)
    assert found.tolist() == first
    assert occurrences(found, 25).tolist() == counts


def test_skewness_and_shares() -> None:
    counts = np.array([0, 0, 1, 2, 2, 3, 20])
    mean = sum(counts) / 7
    second, third = (sum((count - mean) ** power for count in counts) / 7 for power in (2, 3))
    found = hubness(counts)
    assert found.skewness == pytest.approx(third / second**1.5)
    assert (found.never, found.mean, found.most) == (2 / 7, mean, 20)


def test_items_that_all_come_out_alike_are_not_skewed() -> None:
    assert hubness(np.full(5, 3)).skewness == 0.0


@pytest.mark.parametrize(("items", "k"), [(1, 1), (2, 1), (8, 4), (19, 9), (20, 10), (1500, 10)])
def test_fewer_places_count_in_small_galleries(items: int, k: int) -> None:
    assert places_of(items) == k
