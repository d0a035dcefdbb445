"""The triplet loss against a loop over pairs, closed forms and the published step."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from nrccr.losses.triplet import TripletLoss


def unit(rows: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, width, generator=generator, dtype=torch.float64), dim=1)


def brute(text: Tensor, visual: Tensor, margin: float, same: Tensor) -> Tensor:
    """For each anchor and direction the costliest negative, one pair at a time."""
    total = text.new_zeros(())
    for left, right, match in ((text, visual, same), (visual, text, same.T)):
        for i in range(len(left)):
            costs = [
                margin + left[i] @ right[j] - left[i] @ right[i]
                for j in range(len(left))
                if j != i and not bool(match[i, j])
            ]
            hardest = max(costs, key=Tensor.detach, default=None)
            if hardest is not None and hardest.item() > 0:
                total = total + hardest
    return total


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("margin", [0.05, 0.2, 1.0])
def test_value_and_gradient_equal_the_loop(margin: float, masked: bool) -> None:
    text, visual = unit(9, 6, 0).requires_grad_(), unit(9, 6, 1).requires_grad_()
    items = torch.tensor([0, 0, 1, 2, 3, 3, 3, 4, 5])
    same = items[:, None] == items if masked else torch.zeros(9, 9, dtype=torch.bool)
    ours = TripletLoss(margin)(text, visual, same if masked else None)
    theirs = brute(text, visual, margin, same)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    for mine, other in zip(
        torch.autograd.grad(ours, (text, visual)), torch.autograd.grad(theirs, (text, visual)), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


def test_the_mask_need_not_be_symmetric_and_the_diagonal_is_always_in_it() -> None:
    text, visual = unit(4, 3, 2), unit(4, 3, 3)
    same = torch.zeros(4, 4, dtype=torch.bool)
    same[0, 2] = True
    torch.testing.assert_close(TripletLoss()(text, visual, same), brute(text, visual, 0.2, same))


def test_closed_form_is_a_sum_over_batch_and_directions() -> None:
    # All vectors equal: every cosine is 1, every anchor costs the margin, in both directions.
    vectors = F.normalize(torch.ones(5, 3), dim=1)
    assert TripletLoss(0.2)(vectors, vectors).item() == pytest.approx(5 * 2 * 0.2, abs=1e-6)
    # Orthonormal and matched: positives at 1, negatives at 0.
    assert TripletLoss(0.2)(torch.eye(4), torch.eye(4)).item() == 0.0
    assert TripletLoss(1.5)(torch.eye(4), torch.eye(4)).item() == pytest.approx(4 * 2 * 0.5)


def test_equal_negatives_do_not_share_the_gradient() -> None:
    text = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    visual = torch.tensor([[1.0, 0.0]] * 3, requires_grad=True)
    same = torch.ones(3, 3, dtype=torch.bool)
    same[0] = False  # caption 0 has two equal negatives, the other captions have none
    (gradient,) = torch.autograd.grad(TripletLoss()(text, visual, same), visual)
    text_to_visual = TripletLoss()(text, visual.detach(), same)
    assert text_to_visual.item() == pytest.approx(0.2 + 2 * 0.2)  # anchor 0, then items 1 and 2 against caption 0
    # Items 1 and 2 each get +1 as anchors' negatives and -1 as anchors, and one of them +1 from caption 0.
    assert sorted(gradient[:, 0].tolist()) == [-1.0, 0.0, 1.0]
    captions = text.clone().requires_grad_()  # the same of item 0, which has two equal captions as negatives
    (gradient,) = torch.autograd.grad(TripletLoss()(captions, visual.detach(), same.T), captions)
    assert sorted(gradient[:, 0].tolist()) == [-1.0, 0.0, 1.0]


@pytest.mark.parametrize("everything_matches", [False, True])
def test_no_negative_gives_zero_with_a_graph(everything_matches: bool) -> None:
    rows = 3 if everything_matches else 1
    text, visual = unit(rows, 4, 4).requires_grad_(), unit(rows, 4, 5).requires_grad_()
    same = torch.ones(rows, rows, dtype=torch.bool) if everything_matches else None
    loss = TripletLoss()(text, visual, same)
    assert loss.item() == 0.0
    for gradient in torch.autograd.grad(loss, (text, visual)):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_scores_stay_float32_under_autocast_and_for_bfloat16() -> None:
    text, visual = unit(6, 32, 6).float(), unit(6, 32, 7).float()
    exact = TripletLoss()(text, visual)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(TripletLoss()(text, visual), exact)
    halves = text.bfloat16(), visual.bfloat16()
    assert torch.equal(TripletLoss()(*halves), TripletLoss()(halves[0].float(), halves[1].float()))


def test_inputs_are_not_changed() -> None:
    text, visual, same = unit(5, 4, 8), unit(5, 4, 9), torch.zeros(5, 5, dtype=torch.bool)
    kept = [tensor.clone() for tensor in (text, visual, same)]
    TripletLoss()(text, visual, same)
    assert all(torch.equal(now, before) for now, before in zip((text, visual, same), kept, strict=True))


def test_published_step(shared: Path) -> None:
    folder = shared / "golden" / "nrccr_video"
    step = {name: torch.from_numpy(value) for name, value in np.load(folder / "expected_step.npz").items()}
    expected = json.loads((folder / "expected_step.json").read_text())["loss"]
    rank = TripletLoss(0.2)
    assert rank(step["source"], step["video"]).item() == pytest.approx(expected["Le_tri"], rel=1e-4)
    assert 0.6 * rank(step["target"], step["video"]).item() == pytest.approx(expected["Le_tri_trans"], rel=1e-4)
    assert 0.5 * rank(step["source"], step["back"]).item() == pytest.approx(expected["loss_contrastive"], rel=1e-4)
