"""Contrast of views: closed forms, a brute-force twin, invariances."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from nrccr.losses.infonce import InfoNCELoss


def vectors(seed: int, count: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, 5, generator=generator, dtype=torch.float64), dim=1)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_vectors_that_are_all_alike_cost_log_n_each(count: int) -> None:
    alike = vectors(0, 1).expand(count, -1)
    assert InfoNCELoss()(alike, alike).item() == pytest.approx(count * math.log(count), abs=1e-9)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_orthogonal_items_equal_to_their_views(temperature: float) -> None:
    axes = torch.eye(4, dtype=torch.float64)
    expected = 4 * math.log(1 + 3 * math.exp(-1 / temperature))
    assert InfoNCELoss(temperature)(axes, axes).item() == pytest.approx(expected, rel=1e-9)


def test_brute_force() -> None:
    items, views = vectors(1), vectors(2)
    one = other = 0.0
    for i in range(6):
        one -= math.log(weight(items[i], views[i]) / sum(weight(items[i], view) for view in views))
        other -= math.log(weight(items[i], views[i]) / sum(weight(item, views[i]) for item in items))
    assert InfoNCELoss()(items, views).item() == pytest.approx((one + other) / 2, rel=1e-9)


def weight(a: Tensor, b: Tensor) -> float:
    return math.exp(float(a @ b) / 0.07)


def test_arguments_and_rows_may_change_places() -> None:
    items, views, loss = vectors(1), vectors(2), InfoNCELoss()
    expected = loss(items, views)
    order = [3, 5, 0, 1, 4, 2]
    torch.testing.assert_close(loss(views, items), expected)
    torch.testing.assert_close(loss(items[order], views[order]), expected)


def test_both_sides_learn() -> None:
    items, views = vectors(1).requires_grad_(), vectors(2).requires_grad_()
    assert torch.autograd.gradcheck(InfoNCELoss(), (items, views))
    of_items, of_views = torch.autograd.grad(InfoNCELoss()(items, views), (items, views))
    assert (of_items.norm(dim=1) > 0).all() and (of_views.norm(dim=1) > 0).all()


def test_half_precision_is_computed_in_float32() -> None:
    items, views = vectors(1).bfloat16(), vectors(2).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss = InfoNCELoss()(items, views)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, InfoNCELoss()(items.float(), views.float()))
