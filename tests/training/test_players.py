"""Players beside a network: whose turn it is, who gets a gradient from whom, what is clipped, whose rate falls."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nrccr.config.schema import Config
from nrccr.config.sections import TrainSection
from nrccr.data.batch import Parts, TensorRecord
from nrccr.distributed import Runtime
from nrccr.training.loop import Trainer
from nrccr.training.runfolder import RunFolder
from nrccr.training.task import Player, Task

RATE = 0.5


@dataclass(frozen=True)
class Numbers(TensorRecord):
    """A batch of numbers (N, 1)."""

    values: Tensor


class Scale(nn.Module):
    """x -> weight x."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, *parts: Numbers) -> Tensor:
        return self.weight * torch.cat([part.values for part in parts])


@pytest.fixture
def config() -> Config:
    return Config(train=TrainSection(learning_rate=1e-2, grad_clip=1e-3))


def trainer_of(config: Config, losses: Any, **players: Player) -> Trainer:
    nothing: Any = None
    task = Task(Scale(2.0), losses, players, nothing, nothing, {}, nothing)
    return Trainer(config, task, Runtime(torch.device("cpu")), RunFolder(Path("unused")))


def batch() -> Parts[Numbers]:
    return Parts([Numbers(torch.ones(2, 1)), Numbers(torch.full((1, 1), 4.0))])  # mean 2


def test_a_player_with_losses_steps_first_then_stands_still(config: Config) -> None:
    rival, seen = Scale(1.0), []

    def own(out: Tensor) -> dict[str, Tensor]:
        assert rival.weight.requires_grad
        return {"rival_loss": (rival.weight * out.detach()).mean(), "rival_note": out.detach().sum()}

    def losses(out: Tensor, given: Parts[Numbers]) -> dict[str, Tensor]:
        seen.append((rival.weight.item(), rival.weight.requires_grad, len(given.parts)))
        return {"network_loss": (rival.weight * out).mean()}

    trainer = trainer_of(config, losses, rival=Player(rival, RATE, own))
    report = trainer.step(batch())
    stepped = 1.0 - RATE  # Adam's first step is its learning rate
    assert seen == [(pytest.approx(stepped), False, 2)]
    assert report["rival_loss"].item() == pytest.approx(1.0 * 2.0 * 2.0) and "rival_note" in report
    assert report["total"].item() == pytest.approx(stepped * 2.0 * 2.0), "the network's losses alone"
    assert report["gradient_norm"].item() == pytest.approx(stepped * 2.0)
    assert rival.weight.requires_grad and rival.weight.grad is not None
    assert rival.weight.grad.item() == pytest.approx(4.0), "its own gradient, none from the network's loss"


def test_a_player_without_losses_learns_from_the_total_and_is_not_clipped(config: Config) -> None:
    share = Scale(1.0)
    trainer = trainer_of(config, lambda out, _: {"a_loss": (share.weight * out).mean()}, share=Player(share, RATE))
    report = trainer.step(batch())
    assert report["gradient_norm"].item() == pytest.approx(2.0), "of the network alone"
    assert trainer.network.weight.grad.item() == pytest.approx(1e-3, rel=1e-3)
    assert share.weight.grad is not None and share.weight.grad.item() == pytest.approx(4.0)
    assert share.weight.item() == pytest.approx(1.0 - RATE)


def test_a_rate_follows_the_schedule_by_its_ratio_or_stays(config: Config) -> None:
    fixed, follower = Player(Scale(1.0), RATE), Player(Scale(1.0), RATE, follows_schedule=True)
    trainer = trainer_of(config, lambda out, _: {"a_loss": out.mean()}, fixed=fixed, follower=follower)
    trainer.progress.schedule.learning_rate *= 0.25
    trainer._set_rate(1.0)
    rates = {name: own.param_groups[0]["lr"] for name, own in trainer.optimizers.items()}
    assert rates == {"fixed": RATE, "follower": pytest.approx(0.25 * RATE)}
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.25e-2)
