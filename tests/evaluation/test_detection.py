"""Precision of finding the wrong ones, by hand and against counting."""

from __future__ import annotations

import numpy as np
import pytest

from nrccr.evaluation.detection import detect, separation


def test_by_hand() -> None:
    found = detect([0.9, 0.8, 0.7, 0.6, 0.5], [True, False, True, False, False])
    assert found.first.tolist() == [1, 2, 3, 4, 5]
    assert found.precision == pytest.approx([1, 1 / 2, 2 / 3, 2 / 4, 2 / 5])
    assert found.recall == pytest.approx([1 / 2, 1 / 2, 1, 1, 1])
    assert found.average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert found.base_rate == 0.4
    assert found.separation == pytest.approx(5 / 6), "of six pairs one is the wrong way round"
    assert found.at(0.4) == 1 / 2 and found.at(0.5) == pytest.approx(2 / 3) and found.at(1) == pytest.approx(2 / 5)


def test_ties_are_looked_at_together() -> None:
    found = detect([3, 3, 3, 1], [True, False, False, True])
    assert found.first.tolist() == [3, 4] and found.precision == pytest.approx([1 / 3, 1 / 2])
    assert found.average_precision == pytest.approx(1 / 2 * 1 / 3 + 1 / 2 * 1 / 2)
    assert found.separation == pytest.approx((1 / 2 + 1 / 2 + 0 + 0) / 4)
    assert found.at(0.01) == pytest.approx(1 / 3)


def test_order_does_not_matter_and_counting_gives_the_same() -> None:
    values = np.random.default_rng(0)
    numbers, wrong = values.integers(0, 12, 60).astype(float), values.random(60) < 0.3
    found, order = detect(numbers, wrong), values.permutation(60)
    other = detect(numbers[order], wrong[order])
    assert np.array_equal(found.precision, other.precision) and found.average_precision == other.average_precision
    for first, precision, recall in zip(found.first, found.precision, found.recall, strict=True):
        threshold = sorted(numbers, reverse=True)[first - 1]
        taken = [own for number, own in zip(numbers, wrong, strict=True) if number >= threshold]
        assert len(taken) == first
        assert precision == pytest.approx(sum(taken) / len(taken)) and recall == pytest.approx(sum(taken) / wrong.sum())
    steps = np.diff([0.0, *found.recall])
    assert found.average_precision == pytest.approx(float((steps * found.precision).sum()))


def test_nothing_to_find() -> None:
    for wrong in ([True, True], [False, False]):
        with pytest.raises(ValueError, match="wrong ones and others"):
            detect([1, 2], wrong)
    with pytest.raises(ValueError, match="both kinds"):
        separation([1.0], [])
