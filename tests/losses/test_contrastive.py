"""C2KD's contrast against loops and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nrccr.losses.contrastive import ContrastiveLoss


def cosines(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_value_equals_the_loop(temperature: float) -> None:
    scores = cosines(6)
    powers = (scores / temperature).exp()
    rows = [-(powers[i, i] / powers[i].sum()).log() for i in range(6)]
    columns = [-(powers[i, i] / powers[:, i].sum()).log() for i in range(6)]
    wanted = sum(rows) / 6 + sum(columns) / 6
    torch.testing.assert_close(ContrastiveLoss(temperature)(scores), wanted, rtol=1e-10, atol=0)


def test_chance_and_certainty() -> None:
    assert ContrastiveLoss(0.1)(torch.zeros(8, 8)).item() == pytest.approx(2 * math.log(8))
    assert ContrastiveLoss(0.01)(torch.eye(8)).item() == pytest.approx(0.0, abs=1e-6)
    assert ContrastiveLoss()(torch.full((1, 1), 0.3)).item() == 0.0


def test_the_order_of_pairs_does_not_matter() -> None:
    scores, order = cosines(7), torch.randperm(7, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ContrastiveLoss()(scores[order][:, order]), ContrastiveLoss()(scores))


def test_no_pairs_are_zero_and_can_be_differentiated() -> None:
    scores = torch.zeros(0, 0, requires_grad=True)
    loss = ContrastiveLoss()(scores)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0 and scores.grad is not None


def test_float32_of_bfloat16_scores() -> None:
    scores = cosines(5).bfloat16()
    assert ContrastiveLoss()(scores).dtype == torch.float32
    assert torch.equal(ContrastiveLoss()(scores), ContrastiveLoss()(scores.float()))
