"""The floor of benchmarks/step.py: every product of a step is kept, and counts once."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import MagicMock

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


def test_attention_without_padding_counts_each_caption_alone() -> None:
    """Torch's kernel runs on GPUs alone: here a stand-in of its name and order of arguments is recorded."""
    lengths, heads, width = [2, 3, 3, 5], 4, 8
    bounds = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0)
    queries, keys, values, gradient = torch.randn(4, sum(lengths), heads, width)
    calls = {
        "torch_attn._varlen_attn": (queries, keys, values, bounds, bounds, 5, 5),
        "torch_attn._varlen_attn_backward": (gradient, queries, keys, values, None, None, bounds, bounds, 5, 5),
    }
    record = Products()
    for name, arguments in calls.items():
        kernel = MagicMock(overloadpacket=name)
        record.__torch_dispatch__(kernel, (), arguments)
        kernel.assert_called_once_with(*arguments)
    assert record.operations() == (2 + 4) * 2 * heads * width * sum(length**2 for length in lengths)
    assert torch.equal(record.calls[2][1][0], queries[2:8].unflatten(0, (2, 3)).transpose(1, 2).flatten(0, 1))
