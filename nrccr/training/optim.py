"""Optimisers, and the published schedule of learning rate and early stopping."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from nrccr.config.sections import TrainSection
from nrccr.training.rows import UsedRows


@dataclass(frozen=True)
class Apart:
    """How a part of a network learns.

    Attributes:
        learning_rate: at the start; none: that of everything else.
        decay: share of the learning rate by which a step shrinks its weights, apart from their gradients (AdamW).
    """

    learning_rate: float | None = None
    decay: float = 0.0


def adam(module: nn.Module, learning_rate: float, apart: Mapping[str, Apart] | None = None) -> torch.optim.Adam:
    """Adam with default betas over the parameters that train; the fused kernel, one pass over memory.

    Args:
        module: what trains.
        learning_rate: at the start.
        apart: parts that learn in their own way, by the beginning of their parameters' names.
    """
    if not apart:
        return torch.optim.Adam(trainable(module), lr=learning_rate, fused=True)
    ways = {"": Apart(), **apart}
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in ways}
    for name, parameter in _named(module):
        groups[next((part for part in apart if name.startswith(part)), "")].append(parameter)
    return torch.optim.Adam(
        [
            {"params": own, "lr": ways[name].learning_rate or learning_rate, "weight_decay": ways[name].decay}
            for name, own in groups.items()
            if own
        ],
        lr=learning_rate,
        fused=True,
        decoupled_weight_decay=True,
    )


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that train; of a word table with its used rows apart these, in its place."""
    return [parameter for _, parameter in _named(module)]


def _named(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    rows = {id(own.weight): own.own for own in module.modules() if isinstance(own, UsedRows) and own.own is not None}
    named = module.named_parameters()
    return [(name, rows.get(id(parameter), parameter)) for name, parameter in named if parameter.requires_grad]


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float, ratios: Sequence[float] = ()) -> None:
    """Set the learning rate of all parameters; with `ratios`, one for each group, times these."""
    for index, group in enumerate(optimizer.param_groups):
        group["lr"] = learning_rate * ratios[index] if ratios else learning_rate


def share_of_rate(step: int, steps: int, config: TrainSection) -> float:
    """What the schedule of steps leaves of the learning rate in a step.

    Args:
        step: from 0.
        steps: of all epochs.
        config: the schedule and its warm-up.
    """
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    if config.schedule == "published":
        return warm
    return warm * 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / max(1, steps))))


@dataclass
class Schedule:
    """Learning rate and early stopping after each epoch (spec section 3).

    The rate falls by a factor every epoch, and by half too when validation did not improve and more than `halve_after`
    epochs have passed since the last halving.

    Attributes:
        learning_rate: the current one.
        since_halving: epochs since the last halving.
        best: best validation score so far.
        best_epoch: its epoch, from 1; 0 before the first.
        stale: epochs since then.
    """

    learning_rate: float
    since_halving: int = 0
    best: float = -1.0
    best_epoch: int = 0
    stale: int = 0

    def after_epoch(self, epoch: int, score: float | None, config: TrainSection) -> bool:
        """Take the validation score of `epoch` (from 1); returns whether it is the best so far.

        Without a score, where there is no validation split, the last epoch is the best.
        """
        improved = score is None or score > self.best
        if improved:
            self.best, self.best_epoch, self.stale = self.best if score is None else score, epoch, 0
        else:
            self.stale += 1
        self.since_halving += 1
        self.learning_rate *= config.learning_rate_decay
        if not improved and config.halve_after is not None and self.since_halving > config.halve_after:
            self.learning_rate *= 0.5
            self.since_halving = 0
        return improved

    def exhausted(self, config: TrainSection) -> bool:
        """Whether validation has not improved for `patience` epochs."""
        return config.patience is not None and self.stale >= config.patience
