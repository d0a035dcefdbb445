"""Compactness against a loop over all pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from nrccr.evaluation.compactness import compactness


@pytest.fixture
def points() -> tuple[np.ndarray, np.ndarray]:
    values = np.random.default_rng(0)
    vectors = values.standard_normal((23, 6))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), values.integers(0, 5, 23)


def test_a_loop_over_pairs_gives_the_same(points: tuple[np.ndarray, np.ndarray]) -> None:
    vectors, items = points
    within, between = [], []
    for i, j in combinations(range(len(items)), 2):
        (within if items[i] == items[j] else between).append(1 - float(vectors[i] @ vectors[j]))
    found = compactness(vectors, items)
    assert (found.points, found.items) == (23, 5)
    assert found.within == pytest.approx(np.mean(within)) and found.between == pytest.approx(np.mean(between))
    assert found.ratio == pytest.approx(np.mean(within) / np.mean(between))
    single = compactness(vectors.astype(np.float32), items)
    assert single.within == pytest.approx(found.within, abs=1e-6)
    half = vectors.astype(np.float16)  # of which no vector is exactly of unit length
    pairs = [1 - float(half[i].astype(float) @ half[j]) for i, j in combinations(range(23), 2) if items[i] == items[j]]
    assert compactness(half, items).within == pytest.approx(np.mean(pairs), abs=1e-12)


def test_order_and_names_do_not_matter(points: tuple[np.ndarray, np.ndarray]) -> None:
    vectors, items = points
    order = np.random.default_rng(1).permutation(len(items))
    other = compactness(vectors[order], [f"v{items[at]}" for at in order])
    assert other.ratio == pytest.approx(compactness(vectors, items).ratio)


def test_extremes() -> None:
    axes = np.eye(3).repeat(2, axis=0)
    assert compactness(axes, [0, 0, 1, 1, 2, 2]).ratio == pytest.approx(0)
    assert compactness(axes, [0, 1, 0, 1, 0, 1]).within == pytest.approx(1)
    for items in ([0, 0, 0, 0, 0, 0], [0, 1, 2, 3, 4, 5]):
        with pytest.raises(ValueError, match="two items"):
            compactness(axes, items)
