"""Attention between words and trust, against loops over pieces."""

from __future__ import annotations

import numpy as np
import pytest

from nrccr.evaluation.trust import special_share, trust, word_attention, word_similarity

SOURCE = [-1, 0, 0, 1, 2, 2, -1]
TARGET = [-1, 0, 1, 1, 1, 2, 3, 3, -1]


@pytest.fixture
def weights() -> np.ndarray:
    values = np.random.default_rng(0).random((len(SOURCE), len(TARGET)))
    return values / values.sum(axis=1, keepdims=True)


def test_a_loop_over_pieces_gives_the_same(weights: np.ndarray) -> None:
    found = word_attention(weights, SOURCE, TARGET)
    for row in range(3):
        own = []
        for column in range(4):
            received = [
                sum(weights[i, j] for j, word in enumerate(TARGET) if word == column)
                for i, each in enumerate(SOURCE)
                if each == row
            ]
            own.append(sum(received) / len(received))
        assert found[row] == pytest.approx([value / sum(own) for value in own])
    assert found.sum(axis=1) == pytest.approx(np.ones(3))
    loop = [sum(found[row, column] for row in range(3)) / 3 * 7 / TARGET.count(column) for column in range(4)]
    assert trust(found, TARGET) == pytest.approx(loop)
    alike = [
        np.mean([np.mean([weights[i, j] for i, each in enumerate(SOURCE) if each == row
                          for j, word in enumerate(TARGET) if word == column]) for row in range(3)])
        for column in range(4)
    ]  # fmt: skip
    assert word_similarity(weights, SOURCE, TARGET) == pytest.approx(alike)
    given = [weights[i, 0] + weights[i, -1] for i in range(1, 6)]
    assert special_share(weights, SOURCE, TARGET) == pytest.approx(sum(given) / 5)


def test_padding_and_order_change_nothing(weights: np.ndarray) -> None:
    found = word_attention(weights, SOURCE, TARGET)
    padded = np.full((10, 12), 0.7)
    padded[: len(SOURCE), : len(TARGET)] = weights
    assert np.array_equal(word_attention(padded, SOURCE, TARGET), found)
    assert special_share(padded, SOURCE, TARGET) == special_share(weights, SOURCE, TARGET)
    assert np.array_equal(word_similarity(padded, SOURCE, TARGET), word_similarity(weights, SOURCE, TARGET))
    order = np.random.default_rng(1).permutation(len(TARGET))
    turned = [TARGET[at] for at in order]
    assert word_attention(weights[:, order], SOURCE, turned) == pytest.approx(found)
    assert trust(found, turned) == pytest.approx(trust(found, TARGET))


def test_even_attention_trusts_all_words_alike() -> None:
    even = word_attention(np.full((7, 9), 1 / 9), SOURCE, TARGET)
    assert even[0] == pytest.approx([1 / 7, 3 / 7, 1 / 7, 2 / 7]), "a word of three pieces is looked at three times"
    assert trust(even, TARGET) == pytest.approx(np.ones(4)), "and is not trusted for its length"


def test_no_words() -> None:
    for function in (word_attention, word_similarity):
        with pytest.raises(ValueError, match="without words"):
            function(np.ones((2, 2)), [-1, -1], [-1, 0])
