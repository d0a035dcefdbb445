"""Changes of rank by size."""

from __future__ import annotations

import numpy as np

from nrccr.evaluation.changes import rank_changes, size_names


def test_every_size_of_a_change() -> None:
    before = np.array([5.0, 5.0, 14.0, 15.0, 104.0, 105.0, 1.0, 1.0, 1.0, 1.0])
    after = np.array([5.0, 4.0, 5.0, 5.0, 5.0, 5.0, 10.0, 11.0, 100.0, 101.0])
    found = rank_changes(before, after)
    # Gains of 0, 1, 9, 10, 99, 100 and losses of 9, 10, 99, 100.
    assert (found.better, found.same, found.worse) == ((0.2, 0.2, 0.1), 0.1, (0.1, 0.2, 0.1))
    assert found.median == 0.5
    assert size_names() == ("1-9", "10-99", "100+")


def test_the_other_way_round_is_the_mirror_image() -> None:
    values = np.random.default_rng(0)
    before, after = values.integers(1, 500, 200).astype(float), values.integers(1, 500, 200).astype(float)
    one, other = rank_changes(before, after), rank_changes(after, before)
    assert (one.better, one.same, one.worse, one.median) == (other.worse, other.same, other.better, -other.median)
    assert abs(sum(one.better) + one.same + sum(one.worse) - 1) < 1e-12
