"""Epochs cut into batches, and batches for encoding."""

from __future__ import annotations

import numpy as np
import pytest

from nrccr.data.sampling import epoch_batches, ordered_batches


@pytest.mark.parametrize(("count", "sizes"), [(10, [4, 4, 2]), (8, [4, 4]), (9, [4, 5]), (3, [3])])
def test_every_pair_once_and_no_batch_of_one(count: int, sizes: list[int]) -> None:
    batches = epoch_batches(count, 4, seed=3, epoch=5)
    assert [len(batch) for batch in batches] == sizes
    assert sorted(np.concatenate(batches).tolist()) == list(range(count))


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(epoch_batches(50, 8, seed, epoch)).tolist()

    assert order(1, 2) == order(1, 2)
    assert len({tuple(order(seed, epoch)) for seed in range(4) for epoch in range(4)}) == 16


def test_encoding_order() -> None:
    lengths = np.array([5, 1, 3, 1, 9])
    assert [b.tolist() for b in ordered_batches(lengths, 2, by_length=False)] == [[0, 1], [2, 3], [4]]
    assert [b.tolist() for b in ordered_batches(lengths, 2, by_length=True)] == [[1, 3], [2, 0], [4]]
