"""What the tests of the generated collection share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest


@pytest.fixture(scope="session")
def lost() -> Callable[[Sequence[str], Sequence[str]], int]:
    """Words of a clean sentence outside its longest common subsequence with a noisy one, by the textbook table."""

    def count(clean: Sequence[str], noisy: Sequence[str]) -> int:
        table = [[0] * (len(noisy) + 1) for _ in range(len(clean) + 1)]
        for i, own in enumerate(clean):
            for j, other in enumerate(noisy):
                table[i + 1][j + 1] = table[i][j] + 1 if own == other else max(table[i][j + 1], table[i + 1][j])
        return len(clean) - table[-1][-1]

    return count
