"""The floor of benchmarks/step.py: every product of a step is kept, and counts once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from nrccr.models import fast

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from products import Products  # noqa: E402


@pytest.mark.parametrize("onednn", [False, True])
def test_operations_by_hand(onednn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "ASKS_ONEDNN", onednn and fast.HAS_ONEDNN)
    states = torch.randn(7, 16, requires_grad=True)
    weight, maps = torch.randn(12, 16, requires_grad=True), torch.randn(5, 4, 3, requires_grad=True)
    queries, keys, values = (torch.randn(2, 3, length, 8, requires_grad=True) for length in (6, 9, 9))
    with Products() as record:
        made = functional.gelu(fast.linear(states, weight)).sum()
        made = made + functional.scaled_dot_product_attention(queries, keys, values).sum()
        made = made + functional.conv1d(torch.randn(2, 4, 11), maps).sum()
        made.backward()
    linear, attended, convolved = 2 * 7 * 16 * 12, 2 * (2 * 3 * 6 * 9 * 8), 2 * (2 * 9 * 5 * 4 * 3)
    # Of the convolution's input no gradient is wanted.
    assert record.operations() == 3 * linear + (2 + 4) * attended + 2 * convolved
    record.run()
