"""The objective: names, weights, what is left out, and who gets a gradient from whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from nrccr.losses.triplet import TripletLoss
from nrccr.systems.nrccr.network import BackboneStates, PairOutput
from nrccr.systems.nrccr.objective import NRCCRObjective, adversary
from nrccr.systems.settings import load_config
from nrccr.training.task import total

CONFIG = Path(__file__).resolve().parents[3] / "configs" / "base.yaml"
NAMES = ["source_loss", "target_loss", "similarity_loss", "feature_loss", "cycle_loss", "adversary_loss"]
WEIGHTS = {"target": 0.6, "similarity": 0.4, "feature": 0.1, "cycle": 0.5, "adversary": 0.001}
MakeOutput = Callable[..., PairOutput]


class Linear(nn.Module):
    """A discriminator on the mean of the states."""

    def __init__(self, logits: int) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.classify = nn.Linear(4, logits)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = self.classify(states.mean(1))
        return logits


def objective(*overrides: str) -> NRCCRObjective:
    return NRCCRObjective(load_config(CONFIG, overrides))


@pytest.fixture
def out() -> PairOutput:
    """Six pairs of four items; every tensor is a leaf that keeps its gradient."""
    generator = torch.Generator().manual_seed(0)

    def vectors() -> Tensor:
        return F.normalize(torch.randn(6, 8, generator=generator), dim=1).requires_grad_()

    def states() -> BackboneStates:
        return BackboneStates(torch.randn(3, 5, 4, generator=generator).requires_grad_(), torch.ones(3, 5))

    return PairOutput(
        source=vectors(), target=vectors(), visual=vectors(), teacher=vectors(), back=vectors(),
        items=torch.tensor([0, 1, 1, 2, 3, 3]), source_states=[states(), states()], target_states=[states(), states()],
    )  # fmt: skip


def test_the_total_is_the_sum_of_the_losses(out: PairOutput) -> None:
    losses = objective()(out, Linear(2))
    assert list(losses) == NAMES
    torch.testing.assert_close(total(losses), sum(losses.values()))
    torch.testing.assert_close(total(losses | {"accuracy": torch.tensor(9.0)}), sum(losses.values()))


def test_terms_are_those_of_the_specification(out: PairOutput) -> None:
    assert out.teacher is not None and out.back is not None
    discriminator, rank = Linear(2), TripletLoss(0.2)
    losses = objective()(out, discriminator)
    p, q = (vectors @ out.visual.T / 0.07 for vectors in (out.teacher, out.target))
    similarity = sum(-(a.softmax(1) * b.log_softmax(1)).sum(1).mean() for a, b in ((p, q), (p.T, q.T))) / 2
    logits = torch.cat([discriminator(part.states, part.mask) for part in out.target_states])
    expected = [
        rank(out.source, out.visual),
        0.6 * rank(out.target, out.visual),
        0.4 * similarity,
        0.1 * F.smooth_l1_loss(out.teacher, out.target, beta=4.0),
        0.5 * rank(out.source, out.back),
        0.001 * F.binary_cross_entropy_with_logits(logits, torch.ones(6, 2)),
    ]
    for name, value in zip(NAMES, expected, strict=True):
        torch.testing.assert_close(losses[name], value, msg=name)


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_scale_their_own_term_alone(out: PairOutput, name: str) -> None:
    before, after = objective()(out, Linear(2)), objective(f"loss.{name}={3 * WEIGHTS[name]}")(out, Linear(2))
    for key in NAMES:
        factor = 3.0 if key == f"{name}_loss" else 1.0
        torch.testing.assert_close(after[key], factor * before[key])


def test_a_zero_weight_leaves_its_term_out(out: PairOutput) -> None:
    assert "similarity_loss" not in objective("loss.similarity=0")(out, Linear(2))
    assert "feature_loss" not in objective("loss.feature=0")(out, Linear(2))
    assert list(objective("loss.adversary=0")(out, None)) == NAMES[:-1]


def test_captions_of_one_item_are_negatives_unless_masked(out: PairOutput) -> None:
    same = out.items[:, None] == out.items
    plain, masked = objective()(out, Linear(2)), objective("loss.mask_same_item=true")(out, Linear(2))
    rank = TripletLoss(0.2)
    assert out.back is not None
    for name, weight, rows, columns in (
        ("source_loss", 1.0, out.source, out.visual),
        ("target_loss", 0.6, out.target, out.visual),
        ("cycle_loss", 0.5, out.source, out.back),
    ):
        torch.testing.assert_close(plain[name], weight * rank(rows, columns))
        torch.testing.assert_close(masked[name], weight * rank(rows, columns, same))
    assert total(masked) < total(plain)


def gradient(states: list[BackboneStates]) -> bool:
    """Whether any gradient came to the states."""
    return any(part.states.grad is not None and bool(part.states.grad.any()) for part in states)


def test_discriminator_learns_from_detached_states(out: PairOutput) -> None:
    discriminator = Linear(2)
    report = objective().discriminate(out, discriminator)
    report["discriminator_loss"].backward()
    assert discriminator.classify.weight.grad is not None and bool(discriminator.classify.weight.grad.any())
    assert not gradient(out.source_states) and not gradient(out.target_states)
    source, target = (
        torch.cat([discriminator(part.states, part.mask) for part in states])
        for states in (out.source_states, out.target_states)
    )
    real = F.binary_cross_entropy_with_logits(source, torch.ones(6, 2))
    fake = F.binary_cross_entropy_with_logits(target, torch.zeros(6, 2))
    torch.testing.assert_close(report["discriminator_loss"], 0.5 * (real + fake))
    torch.testing.assert_close(report["discriminator_source"], real)
    torch.testing.assert_close(report["discriminator_target"], fake)
    torch.testing.assert_close(report["discriminator_source_accuracy"], (source.argmax(1) == 1).float().mean())
    torch.testing.assert_close(report["discriminator_target_accuracy"], (target.argmax(1) == 0).float().mean())


def test_released_encoder_term_reaches_the_target_language_alone(out: PairOutput) -> None:
    objective()(out, Linear(2))["adversary_loss"].backward()
    assert gradient(out.target_states) and not gradient(out.source_states)


def test_minimax_reaches_both_languages(out: PairOutput) -> None:
    paper, discriminator = objective("switches.adversary=minimax"), Linear(1)
    loss = paper(out, discriminator)["adversary_loss"]
    torch.testing.assert_close(loss, -0.001 * paper.discriminate(out, discriminator)["discriminator_loss"])
    loss.backward()
    assert gradient(out.target_states) and gradient(out.source_states)


@pytest.mark.parametrize("reading", ["released", "paper"])
def test_teacher_is_detached_as_the_reading_says(out: PairOutput, reading: str) -> None:
    assert out.teacher is not None
    losses = objective(f"reading={reading}", "loss.adversary=0")(out, None)
    losses["similarity_loss"].backward(retain_graph=True)
    assert out.teacher.grad is None, "L_sim never reaches the teacher"
    losses["feature_loss"].backward(retain_graph=True)
    assert (out.teacher.grad is not None) is (reading == "released")


def test_the_discriminator_plays_against_the_network_where_there_is_one(out: PairOutput) -> None:
    basic, discriminator = objective("loss.adversary=0"), Linear(2)
    assert adversary(basic, None, 0.1) == {}
    (player,) = adversary(objective(), discriminator, 0.1).values()
    assert player.module is discriminator and (player.learning_rate, player.follows_schedule) == (0.1, False)
    assert player.losses is not None
    wanted = objective().discriminate(out, discriminator)
    found = player.losses(out)
    assert list(found) == list(wanted) and all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_an_output_maps_every_tensor(out: PairOutput) -> None:
    seen: list[Tensor] = []
    detached = out.map(lambda tensor: seen.append(tensor) or tensor.detach())
    assert len(seen) == 6 + 2 * 2 * 2  # five vectors, items, and states with mask of two parts in two languages
    assert isinstance(detached.source_states[1], BackboneStates) and not detached.source_states[1].states.requires_grad
    gathered = replace(out, back=None).map(lambda tensor: torch.cat([tensor, tensor]))  # as from two processes
    assert (
        gathered.back is None and gathered.source.shape == (12, 8) and gathered.items.tolist() == 2 * out.items.tolist()
    )
    assert gathered.target_states[0].mask.shape == (6, 5)
