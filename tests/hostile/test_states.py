"""A state to resume from: every tensor has its parameter's shape and type, every number its range."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from nrccr.training.optim import Schedule, adam
from nrccr.training.state import position_of, require_adam, require_module, schedule_of, window_of


def trained() -> tuple[nn.Module, torch.optim.Adam]:
    """A module and its optimiser after a step."""
    module = nn.Linear(3, 2)
    optimizer = adam(module, 1e-3)
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return module, optimizer


def test_a_right_state_passes() -> None:
    module, optimizer = trained()
    require_module("network", module, module.state_dict())
    require_adam("optimizer", optimizer, optimizer.state_dict())
    fresh = adam(module, 1e-3).state_dict()
    require_adam("optimizer", optimizer, fresh)  # before the first step there is none of a parameter
    right = {"learning_rate": 1.0, "since_halving": 1, "best": -1.0, "best_epoch": 0, "stale": 0}
    assert schedule_of(right) == Schedule(1.0, 1)
    assert position_of({"epoch": 1, "batch": 2, "step": 3}) == (1, 2, 3)
    assert window_of({"sums": {"loss": torch.tensor(1.0).double()}, "count": 2})[1] == 2


DAMAGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "shape": lambda s: s["state"][0].update(exp_avg=torch.zeros(1)),
    "shape of squares": lambda s: s["state"][0].update(exp_avg_sq=torch.zeros(2, 4)),
    "transposed": lambda s: s["state"][0].update(exp_avg=torch.zeros(3, 2)),
    "type": lambda s: s["state"][0].update(exp_avg=torch.zeros(2, 3).double()),
    "number": lambda s: s["state"][0].update(exp_avg=0.5),
    "sparse": lambda s: s["state"][0].update(exp_avg=torch.zeros(2, 3).to_sparse()),
    "steps": lambda s: s["state"][0].update(step=torch.zeros(5)),
    "no step": lambda s: s["state"][0].pop("step"),
    "step before the first": lambda s: s["state"][0].update(step=torch.tensor(-1.0)),
    "step without end": lambda s: s["state"][0].update(step=torch.tensor(float("nan"))),
    "other moment": lambda s: s["state"][0].update(max_exp_avg_sq=torch.zeros(2, 3)),
    "parameter": lambda s: s["state"].update({7: s["state"][0]}),
    "negative parameter": lambda s: s["state"].update({-1: s["state"][0]}),
    "text": lambda s: s["state"].update({"0": s["state"][0]}),
    "no state": lambda s: s.pop("state"),
    "list": lambda s: s.update(state=[]),
    "groups": lambda s: s.update(param_groups=[]),
    "order": lambda s: s["param_groups"][0].update(params=[1, 0]),
    "rate": lambda s: s["param_groups"][0].update(lr=float("inf")),
    "negative rate": lambda s: s["param_groups"][0].update(lr=-1.0),
    "rate as tensor": lambda s: s["param_groups"][0].update(lr=torch.zeros(4)),
    "betas": lambda s: s["param_groups"][0].update(betas=(2.0, 3.0)),
    "climbs": lambda s: s["param_groups"][0].update(maximize=True),
    "kernel": lambda s: s["param_groups"][0].update(fused="yes"),
    "unknown": lambda s: s["param_groups"][0].update(other=torch.zeros(4)),
    "lacking": lambda s: s["param_groups"][0].pop("betas"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_another_state_of_an_optimiser_is_refused(damage: str) -> None:
    _, optimizer = trained()
    state = copy.deepcopy(optimizer.state_dict())
    DAMAGE[damage](state)
    with pytest.raises(ValueError, match="optimizer"):
        require_adam("optimizer", optimizer, state)


def test_options_of_another_torch_version_are_ours() -> None:
    _, optimizer = trained()
    own = optimizer.state_dict()["param_groups"]
    state = copy.deepcopy(optimizer.state_dict())
    group = state["param_groups"][0]
    group.update(lr=5e-4, fused=None, foreach=True, of_tomorrow=True)  # a newer one's
    for key in ("decoupled_weight_decay", "differentiable", "capturable", "maximize"):
        group.pop(key, None)  # an older one's
    taken, unknown = require_adam("optimizer", optimizer, state)
    assert unknown == ["of_tomorrow"] and taken["param_groups"] == [own[0] | {"lr": 5e-4}]
    optimizer.load_state_dict(taken)
    optimizer.step()
    assert optimizer.param_groups[0]["fused"] is True and optimizer.param_groups[0]["lr"] == 5e-4


@pytest.mark.parametrize(
    "weights",
    [
        {},
        {"weight": torch.zeros(2, 3), "bias": torch.zeros(1)},
        {"weight": torch.zeros(2, 3).half(), "bias": torch.zeros(2)},
        [],
    ],
)
def test_other_weights_are_refused(weights: Any) -> None:
    with pytest.raises(ValueError, match="network"):
        require_module("network", nn.Linear(3, 2), weights)


@pytest.mark.parametrize("key", ["learning_rate", "since_halving", "best", "best_epoch", "stale"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -2, "1", None, True, torch.zeros(1), 1 << 60])
def test_numbers_of_a_schedule_have_ranges(key: str, value: Any) -> None:
    right = {"learning_rate": 1.0, "since_halving": 1, "best": -1.0, "best_epoch": 0, "stale": 0}
    if value == 1 << 60 and key in ("learning_rate", "best"):
        return
    with pytest.raises(ValueError, match=key):
        schedule_of(right | {key: value})


def test_positions_and_windows_have_ranges() -> None:
    for value in (-1, 1.5, True, None, 1 << 60):
        with pytest.raises(ValueError, match="batch"):
            position_of({"epoch": 0, "batch": value, "step": 0})
    for sums in ({"a": torch.zeros(2).double()}, {"a": 1.0}, {1: torch.tensor(0.0).double()}, []):
        with pytest.raises(ValueError, match="window"):
            window_of({"sums": sums, "count": 1})
