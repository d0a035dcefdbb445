"""Steps of a run that begins on a tiny collection, with one option or another, and what of them must be equal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nrccr.data.batch import Parts
from nrccr.data.sampling import epoch_batches
from nrccr.distributed import Runtime, make_deterministic
from nrccr.systems.base import system_of
from nrccr.systems.settings import load_config
from nrccr.training.loop import Trainer
from nrccr.training.runfolder import RunFolder

CPU = torch.device("cpu")


class Started:
    """A trainer on a tiny collection, as at the first step of a run, and the batches of its first epoch."""

    def __init__(self, config: Path, root: Path, *overrides: str, dropout: bool = False) -> None:
        self.config = load_config(config, list(overrides))
        make_deterministic(self.config.seed)
        task = system_of(self.config.model).task(self.config, root, CPU, test=False)
        self.trainer = Trainer(self.config, task, Runtime(CPU, self.config.train.precision), RunFolder(Path("unused")))
        self.modules = {"network": self.trainer.network} | {
            name: player.module for name, player in task.players.items()
        }
        if not dropout:
            without_dropout(self.trainer.network)
        self.trainer.network.train()
        self.pairs = task.pairs.at_epoch(0)
        self.random = torch.Generator().manual_seed(1).get_state()  # between two steps

    def batches(self, count: int) -> Iterator[Parts[Any]]:
        """The first batches."""
        for indices in epoch_batches(len(self.pairs), self.config.train.batch_size, self.config.seed, 0)[:count]:
            yield self.pairs[indices]

    def steps(self, count: int = 1) -> list[dict[str, float]]:
        """What the first steps report."""
        torch.set_rng_state(self.random)
        reports = [self.trainer.step(batch) for batch in self.batches(count)]
        self.random = torch.get_rng_state()
        return [{name: value.item() for name, value in report.items()} for report in reports]

    def gradients(self) -> dict[str, Tensor]:
        """Of all parameters that have one, rows of a word table that train apart included."""
        parameters = {f"rows {index}": table.own for index, table in enumerate(self.trainer.tables)}
        for name, module in self.modules.items():
            parameters |= {f"{name}.{key}": own for key, own in module.named_parameters()}
        return {key: own.grad.clone() for key, own in parameters.items() if own is not None and own.grad is not None}

    def weights(self) -> dict[str, Tensor]:
        """After the last step."""
        states = {name: module.state_dict() for name, module in self.modules.items()}
        return {f"{name}.{key}": own for name, state in states.items() for key, own in state.items()}


def without_dropout(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def require_same_step(whole: Started, other: Started, *, close: float = 1e-5) -> None:
    """The reports, gradients and, where gradients are not rounding alone, weights of one step each."""
    (one,), (two,) = whole.steps(), other.steps()
    assert two == pytest.approx(one, rel=close, abs=close / 10)
    gradients, others = whole.gradients(), other.gradients()
    assert gradients.keys() == others.keys() and gradients
    rounding = close / 3 * max(own.abs().max().item() for own in gradients.values())
    for name, own in gradients.items():
        torch.testing.assert_close(
            others[name], own, rtol=close, atol=close * own.abs().max().item() + rounding, msg=said_of(name)
        )
    weights = other.weights()
    for name, weight in whole.weights().items():
        certain = gradients.get(name, torch.ones(())).abs() > 100 * rounding
        torch.testing.assert_close(
            torch.where(certain, weights[name], weight), weight, rtol=close, atol=close, msg=said_of(name)
        )


def said_of(name: str) -> Callable[[str], str]:
    return lambda said: f"{name}: {said}"
