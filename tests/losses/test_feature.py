"""Feature distillation: formulas, what is attached, the published step."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nrccr.losses.feature import FeatureDistillation


def test_released_value_and_gradients() -> None:
    # Differences 1, 2 (square: d^2 / 8) and 6 (line: 6 - 2), 0.
    teacher = torch.tensor([[1.0, 2.0], [6.0, 3.0]], dtype=torch.float64, requires_grad=True)
    student = torch.tensor([[0.0, 0.0], [0.0, 3.0]], dtype=torch.float64, requires_grad=True)
    loss = FeatureDistillation()(teacher, student)
    assert loss.item() == pytest.approx((1 / 8 + 4 / 8 + 4 + 0) / 4)
    of_teacher, of_student = torch.autograd.grad(loss, (teacher, student))
    slope = torch.tensor([[1 / 4, 2 / 4], [1.0, 0.0]], dtype=torch.float64) / 4
    torch.testing.assert_close(of_teacher, slope)
    torch.testing.assert_close(of_student, -slope)


def test_paper_value_and_gradients() -> None:
    teacher = torch.tensor([[1.0, 2.0], [6.0, 3.0]], requires_grad=True)
    student = torch.tensor([[0.0, 4.0], [0.0, 2.5]], requires_grad=True)
    loss = FeatureDistillation("l1")(teacher, student)
    assert loss.item() == pytest.approx((1 + 2 + 6 + 0.5) / 4)
    loss.backward()
    assert teacher.grad is None
    assert student.grad is not None
    torch.testing.assert_close(student.grad, torch.tensor([[-1.0, 1.0], [-1.0, -1.0]]) / 4)


def test_half_precision_is_computed_in_float32() -> None:
    teacher, student = torch.rand(3, 5).bfloat16(), torch.rand(3, 5).bfloat16()
    loss = FeatureDistillation()(teacher, student)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, FeatureDistillation()(teacher.float(), student.float()))


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="choose smooth_l1 or l1"):
        FeatureDistillation("l2")  # type: ignore[arg-type]


def test_published_step(shared: Path) -> None:
    folder = shared / "golden" / "nrccr_video"
    step = {name: torch.from_numpy(value) for name, value in np.load(folder / "expected_step.npz").items()}
    expected = json.loads((folder / "expected_step.json").read_text())["loss"]["loss_feat"]
    assert 0.1 * FeatureDistillation()(step["teacher"], step["target"]).item() == pytest.approx(expected, rel=1e-4)
