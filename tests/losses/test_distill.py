"""Similarity distillation against loops, closed forms and the published step; what is attached and what is not."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from nrccr.losses.distill import SimilarityDistillation

Kind = Literal["soft_cross_entropy", "kl"]
KINDS: tuple[Kind, ...] = ("soft_cross_entropy", "kl")


def unit(rows: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, width, generator=generator, dtype=torch.float64), dim=1)


def brute(teacher: Tensor, student: Tensor, visual: Tensor, temperature: float, kind: Kind) -> Tensor:
    """One row and one direction at a time, from exponentials."""
    teacher = teacher.detach()
    targets = visual.detach() if kind == "kl" else visual
    directions = []
    for text_is_row in (True, False):
        rows = []
        for i in range(len(visual)):
            if text_is_row:
                wanted, given = teacher[i] @ targets.T, student[i] @ visual.T
            else:
                wanted, given = targets[i] @ teacher.T, visual[i] @ student.T
            p = (wanted / temperature).exp() / (wanted / temperature).exp().sum()
            q = (given / temperature).exp() / (given / temperature).exp().sum()
            rows.append((p * (p.log() - q.log())).sum() if kind == "kl" else -(p * q.log()).sum())
        directions.append(torch.stack(rows).mean())
    return (directions[0] + directions[1]) / 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_value_and_gradient_equal_the_loop(kind: Kind, temperature: float) -> None:
    teacher, student, visual = (unit(7, 5, seed).requires_grad_() for seed in range(3))
    ours = SimilarityDistillation(temperature, kind)(teacher, student, visual)
    theirs = brute(teacher, student, visual, temperature, kind)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    for mine, other in zip(
        torch.autograd.grad(ours, (student, visual)), torch.autograd.grad(theirs, (student, visual)), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_teacher_gets_no_gradient(kind: Kind) -> None:
    teacher, student, visual = (unit(4, 5, seed).requires_grad_() for seed in range(3))
    SimilarityDistillation(kind=kind)(teacher, student, visual).backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert visual.grad is not None


def test_only_the_released_targets_follow_the_visual_vectors() -> None:
    teacher, visual = unit(5, 4, 0), unit(5, 4, 1).requires_grad_()
    student = unit(5, 4, 2)
    attached, detached = (
        torch.autograd.grad(SimilarityDistillation(0.5, kind)(teacher, student, visual), visual)[0] for kind in KINDS
    )
    # Both kinds have the same gradient through q; the released one adds the part through p.
    scores, targets = student @ visual.detach().T / 0.5, teacher @ visual.T / 0.5
    through_p = -0.5 * (
        (targets.softmax(1) * scores.log_softmax(1)).sum(1).mean()
        + (targets.T.softmax(1) * scores.T.log_softmax(1)).sum(1).mean()
    )
    (extra,) = torch.autograd.grad(through_p, visual)
    assert extra.norm() > 0.01
    torch.testing.assert_close(attached, detached + extra, rtol=1e-10, atol=1e-10)


def test_closed_forms() -> None:
    vectors = unit(6, 4, 3)
    assert SimilarityDistillation(kind="kl")(vectors, vectors, unit(6, 4, 4)).item() == pytest.approx(0.0, abs=1e-12)
    # Equal vectors make every distribution uniform: cross entropy log N, divergence 0.
    equal = F.normalize(torch.ones(6, 4), dim=1)
    assert SimilarityDistillation()(equal, equal, equal).item() == pytest.approx(math.log(6), rel=1e-6)
    assert SimilarityDistillation(kind="kl")(equal, equal, equal).item() == pytest.approx(0.0, abs=1e-6)


def test_float32_under_autocast_and_inputs_unchanged() -> None:
    parts = [unit(5, 16, seed).float() for seed in range(3)]
    kept = [part.clone() for part in parts]
    exact = SimilarityDistillation()(*parts)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(SimilarityDistillation()(*parts), exact)
    assert all(torch.equal(now, before) for now, before in zip(parts, kept, strict=True))
    assert SimilarityDistillation()(*(part.bfloat16() for part in parts)).dtype == torch.float32


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="choose soft_cross_entropy or kl"):
        SimilarityDistillation(kind="mse")  # type: ignore[arg-type]


def test_published_step(shared: Path) -> None:
    folder = shared / "golden" / "nrccr_video"
    step = {name: torch.from_numpy(value) for name, value in np.load(folder / "expected_step.npz").items()}
    expected = json.loads((folder / "expected_step.json").read_text())["loss"]["loss_dtl"]
    ours = 0.4 * SimilarityDistillation()(step["teacher"], step["target"], step["video"]).item()
    assert ours == pytest.approx(expected, rel=1e-4)
