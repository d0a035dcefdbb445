"""MLCMR's objective: the three sums term by term, and what no term compares."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from nrccr.losses.infonce import InfoNCELoss
from nrccr.losses.triplet import TripletLoss
from nrccr.systems.mlcmr.network import ViewOutput
from nrccr.systems.mlcmr.objective import MLCMRObjective
from nrccr.training.task import total

VECTORS = ["source", "target", "visual", "masked_source", "masked_target", "masked_visual"]


@pytest.fixture
def out() -> ViewOutput:
    """Six pairs of four items; every vector is a leaf that keeps its gradient."""
    generator = torch.Generator().manual_seed(0)
    made: Any = {name: F.normalize(torch.randn(6, 8, generator=generator), dim=1).requires_grad_() for name in VECTORS}
    return ViewOutput(**made, items=torch.tensor([0, 1, 1, 2, 3, 3]))


@pytest.fixture
def unparallel(out: ViewOutput) -> ViewOutput:
    return replace(out, target=None, masked_target=None)


def required(vectors: Tensor | None) -> Tensor:
    assert vectors is not None
    return vectors


@pytest.mark.parametrize("scenario", ["parallel", "translate"])
def test_two_languages(out: ViewOutput, scenario: Any) -> None:
    losses = MLCMRObjective(scenario, margin=0.3, temperature=0.1)(out)
    rank, contrast = TripletLoss(0.3), InfoNCELoss(0.1)
    expected = {
        "source_loss": rank(out.source, out.visual),
        "target_loss": rank(required(out.target), out.visual),
        "source_view_loss": contrast(out.source, out.masked_source),
        "target_view_loss": contrast(required(out.target), required(out.masked_target)),
        "visual_view_loss": contrast(out.visual, out.masked_visual),
    }
    assert list(losses) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)
    torch.testing.assert_close(total(losses), sum(expected.values()))


def test_mixed_languages(unparallel: ViewOutput) -> None:
    out = unparallel
    losses = MLCMRObjective("unparallel")(out)
    expected = {
        "text_loss": TripletLoss(0.2)(out.source, out.visual),
        "text_view_loss": InfoNCELoss(0.07)(out.source, out.masked_source),
        "visual_view_loss": InfoNCELoss(0.07)(out.visual, out.masked_visual),
    }
    assert list(losses) == list(expected)
    torch.testing.assert_close(total(losses), sum(expected.values()))


def test_no_term_joins_the_languages_or_a_view_with_another_modality(out: ViewOutput) -> None:
    losses = MLCMRObjective("parallel")(out)
    reached = {
        name: {other for other in VECTORS if gradient(loss, getattr(out, other)) is not None}
        for name, loss in losses.items()
    }
    assert reached == {
        "source_loss": {"source", "visual"},
        "target_loss": {"target", "visual"},
        "source_view_loss": {"source", "masked_source"},
        "target_view_loss": {"target", "masked_target"},
        "visual_view_loss": {"visual", "masked_visual"},
    }


def gradient(loss: Tensor, of: Tensor) -> Tensor | None:
    (found,) = torch.autograd.grad(loss, of, retain_graph=True, allow_unused=True)
    return found


def test_captions_of_one_item_can_be_spared_in_the_ranking(out: ViewOutput) -> None:
    out = replace(out, items=torch.tensor([0, 0, 0, 1, 1, 1]))
    same = out.items[:, None] == out.items
    plain, spared = MLCMRObjective("parallel")(out), MLCMRObjective("parallel", mask_same_item=True)(out)
    torch.testing.assert_close(spared["source_loss"], TripletLoss()(out.source, out.visual, same))
    torch.testing.assert_close(spared["target_loss"], TripletLoss()(required(out.target), out.visual, same))
    assert spared["source_loss"] < plain["source_loss"] and spared["target_loss"] < plain["target_loss"]
    for name in ("source_view_loss", "target_view_loss", "visual_view_loss"):
        assert torch.equal(plain[name], spared[name])


def test_an_unknown_scenario_is_refused() -> None:
    with pytest.raises(ValueError, match="choose parallel, translate, unparallel"):
        MLCMRObjective("pseudo")  # type: ignore[arg-type]


def test_a_batch_of_another_scenario_is_refused(out: ViewOutput, unparallel: ViewOutput) -> None:
    with pytest.raises(ValueError, match="with target, scenario unparallel"):
        MLCMRObjective("unparallel")(out)
    with pytest.raises(ValueError, match="without target, scenario translate"):
        MLCMRObjective("translate")(unparallel)


def test_an_output_maps_every_tensor(out: ViewOutput, unparallel: ViewOutput) -> None:
    doubled = out.map(lambda tensor: torch.cat([tensor, tensor]))  # as gathered from two processes
    assert all(len(getattr(doubled, name)) == 12 for name in VECTORS) and len(doubled.items) == 12
    assert unparallel.map(torch.clone).masked_target is None
