"""Distillation of score matrices, by KL and entry by entry."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nrccr.losses.matrix_distill import MatrixDistillation
from nrccr.losses.matrix_smooth_l1 import matrix_smooth_l1


def cosines(count: int, seed: int) -> Tensor:
    return torch.rand(count, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def brute(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """One row at a time, both directions added up."""
    total = torch.zeros((), dtype=torch.float64)
    for wanted, given in ((teacher, student), (teacher.T, student.T)):
        for i in range(len(wanted)):
            p, q = ((part[i] / temperature).exp() for part in (wanted, given))
            p, q = p / p.sum(), q / q.sum()
            total = total + (p * (p / q).log()).sum() / len(wanted)
    return total


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_value_and_gradient_equal_the_loop(temperature: float) -> None:
    teacher, student = cosines(6, 0), cosines(6, 1).requires_grad_()
    ours, theirs = MatrixDistillation(temperature)(teacher, student), brute(teacher, student, temperature)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    mine, other = (torch.autograd.grad(loss, student)[0] for loss in (ours, theirs))
    torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12)


def test_zero_for_equal_distributions_only() -> None:
    scores = cosines(5, 2)
    assert MatrixDistillation()(scores, scores).item() == pytest.approx(0.0, abs=1e-12)
    assert MatrixDistillation()(scores + 3, scores).item() == pytest.approx(0.0, abs=1e-12)
    assert MatrixDistillation()(2 * scores, scores).item() > 0.01


def test_smooth_l1_in_closed_form() -> None:
    teacher = torch.zeros(2, 2)
    student = torch.tensor([[0.5, -0.5], [2.0, 0.0]])
    assert matrix_smooth_l1(teacher, student).item() == pytest.approx((0.125 + 0.125 + 1.5 + 0) / 4)


@pytest.mark.parametrize("loss", [MatrixDistillation(), matrix_smooth_l1])
def test_teachers_get_no_gradient_and_nothing_is_zero(loss: object) -> None:
    assert callable(loss)
    teacher, student = cosines(4, 3).requires_grad_(), cosines(4, 4).requires_grad_()
    loss(teacher, student).backward()
    assert teacher.grad is None and student.grad is not None and student.grad.norm() > 0
    assert loss(torch.zeros(0, 0), torch.zeros(0, 0)).item() == 0
