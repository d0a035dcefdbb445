"""The adversarial terms against binary cross entropy written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nrccr.losses.adversarial import (
    accuracy,
    discriminator_loss,
    discriminator_terms,
    minimax_encoder_loss,
    non_saturating_encoder_loss,
)


def brute_bce(logits: Tensor, label: int) -> float:
    entries = [
        -math.log(1 / (1 + math.exp(-x))) if label else -math.log(1 / (1 + math.exp(x)))
        for row in logits.tolist()
        for x in row
    ]
    return sum(entries) / len(entries)


@pytest.mark.parametrize("width", [1, 2])
def test_values(width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(5, width, generator=generator, dtype=torch.float64)
    target = torch.randn(3, width, generator=generator, dtype=torch.float64)
    real, fake = brute_bce(source, 1), brute_bce(target, 0)
    terms = discriminator_terms(source, target)
    assert [term.item() for term in terms] == pytest.approx([real, fake])
    assert discriminator_loss(source, target).item() == pytest.approx(0.5 * (real + fake))
    assert minimax_encoder_loss(source, target).item() == pytest.approx(-0.5 * (real + fake))
    assert non_saturating_encoder_loss(target).item() == pytest.approx(brute_bce(target, 1))


def test_undecided_logits_cost_log_two() -> None:
    zero = torch.zeros(4, 2)
    assert discriminator_loss(zero, zero).item() == pytest.approx(math.log(2))
    assert non_saturating_encoder_loss(zero).item() == pytest.approx(math.log(2))


def test_the_encoder_pulls_against_the_discriminator() -> None:
    source, target = torch.randn(4, 1, requires_grad=True), torch.randn(4, 1, requires_grad=True)
    of_discriminator = torch.autograd.grad(discriminator_loss(source, target), (source, target))
    of_minimax = torch.autograd.grad(minimax_encoder_loss(source, target), (source, target))
    for mine, theirs in zip(of_minimax, of_discriminator, strict=True):
        assert torch.equal(mine, -theirs)
    # Non-saturating: d/dx BCE(x, 1) = sigmoid(x) - 1, the same direction with another size.
    (of_target,) = torch.autograd.grad(non_saturating_encoder_loss(target), target)
    torch.testing.assert_close(of_target, (target.detach().sigmoid() - 1) / 4)
    assert torch.equal(of_target.sign(), of_minimax[1].sign())


def test_accuracy_of_two_logits() -> None:
    source = torch.tensor([[0.0, 1.0], [2.0, 1.0], [-1.0, 5.0], [1.0, 1.0]])  # source, target, source, undecided
    target = torch.tensor([[1.0, 0.0], [0.0, 3.0], [2.0, 2.0]])  # target, source, undecided
    assert [share.item() for share in accuracy(source, target)] == pytest.approx([2 / 4, 2 / 3])


def test_accuracy_of_one_logit() -> None:
    source, target = torch.tensor([[0.5], [-0.5], [0.0], [2.0]]), torch.tensor([[-1.0], [3.0], [0.0]])
    assert [share.item() for share in accuracy(source, target)] == pytest.approx([2 / 4, 2 / 3])


def test_half_precision_is_computed_in_float32_and_large_logits_stay_finite() -> None:
    logits = torch.tensor([[80.0, -80.0]]).bfloat16()
    loss = discriminator_loss(logits, logits)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(40.0)
