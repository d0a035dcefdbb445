"""The state that --resume reads, compared with the run before anything of it is used.

An optimiser's kernels trust the shapes of its moments: a tensor of another shape would write over other memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nrccr.training.optim import Schedule

MOST = 2**53  # of a count
_OWN = {"fused", "foreach", "capturable", "differentiable", "decoupled_weight_decay"}  # how a version computes a step
_FIXED = {"betas", "eps", "weight_decay", "amsgrad"}  # what a step is, in every version


def require_module(name: str, module: nn.Module, found: Any) -> None:
    """Make sure that saved weights have a module's names, shapes and types.

    Raises:
        ValueError: they do not.
    """
    own = module.state_dict()
    _require_keys(name, found, own.keys())
    for key, tensor in own.items():
        _require_like(f"{name}.{key}", found[key], tensor.shape, tensor.dtype)


def require_adam(name: str, optimizer: torch.optim.Adam, found: Any) -> tuple[dict[str, Any], list[str]]:
    """Make sure that an optimiser's saved state is of its parameters.

    Another version of torch may know more options or fewer: how a step is computed is ours, what it is must be equal.

    Returns:
        The state with our options and the saved learning rates, and the names of options that this torch does not know.

    Raises:
        ValueError: another shape, type or option, or a number out of range.
    """
    own = optimizer.state_dict()["param_groups"]
    _require_keys(name, found, {"state", "param_groups"})
    groups, states = found["param_groups"], found["state"]
    if not isinstance(groups, list) or len(groups) != len(own) or not isinstance(states, dict):
        raise ValueError(f"{name} has other groups of parameters")
    unknown: set[str] = set()
    for group, right in zip(groups, own, strict=True):
        if not isinstance(group, dict) or not right["params"] == group.get("params"):
            raise ValueError(f"{name} has other parameters")
        require_number(f"{name}.lr", group.get("lr"))
        if not group.keys() >= _FIXED:
            raise ValueError(f"{name} lacks {sorted(_FIXED - group.keys())}")
        for key, value in group.items():
            if isinstance(value, Tensor) or not isinstance(value, type(None) | bool | int | float | str | list | tuple):
                raise ValueError(f"{name} has another {key}")
            if key in _OWN and value not in (None, True, False):
                raise ValueError(f"{name} has another {key}")
            if key not in right:
                unknown.add(str(key))
            elif key != "lr" and key not in _OWN and value != right[key]:
                raise ValueError(f"{name} has another {key}")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, state in states.items():
        if not isinstance(index, int) or not 0 <= index < len(parameters):
            raise ValueError(f"{name} has a state for parameter {index!r}")
        _require_keys(f"{name}, parameter {index}", state, {"step", "exp_avg", "exp_avg_sq"})
        for key in ("exp_avg", "exp_avg_sq"):
            _require_like(f"{name}.{key} of {index}", state[key], parameters[index].shape, parameters[index].dtype)
        step = state["step"]
        if isinstance(step, Tensor):
            _require_like(f"{name}.step of {index}", step, torch.Size(), torch.float32)
            step = step.item()
        require_number(f"{name}.step of {index}", step)
    taken = [right | {"lr": group["lr"]} for group, right in zip(groups, own, strict=True)]
    return {"state": states, "param_groups": taken}, sorted(unknown)


def schedule_of(found: Any) -> Schedule:
    """The schedule that a state holds.

    Raises:
        ValueError: other names, or a number out of range.
    """
    _require_keys("schedule", found, Schedule.__dataclass_fields__.keys())
    require_number("schedule.learning_rate", found["learning_rate"])
    require_number("schedule.best", found["best"], least=-1.0)
    for key in ("since_halving", "best_epoch", "stale"):
        require_count(f"schedule.{key}", found[key])
    return Schedule(**found)


def position_of(found: Any) -> tuple[int, int, int]:
    """Epoch, batch and step of a state.

    Raises:
        ValueError: other names, or a number out of range.
    """
    _require_keys("position", found, {"epoch", "batch", "step"})
    epoch, batch, step = (require_count(f"position.{key}", found[key]) for key in ("epoch", "batch", "step"))
    return epoch, batch, step


def window_of(found: Any) -> tuple[dict[str, Tensor], int]:
    """Sums since the last log line, and of how many steps.

    Raises:
        ValueError: something else.
    """
    _require_keys("window", found, {"sums", "count"})
    if not isinstance(found["sums"], dict) or not all(isinstance(name, str) for name in found["sums"]):
        raise ValueError("window.sums are no named numbers")
    for name, value in found["sums"].items():
        _require_like(f"window.sums.{name}", value, torch.Size(), torch.float64)
    return found["sums"], require_count("window.count", found["count"])


def require_number(name: str, value: Any, least: float = 0.0) -> float:
    """A finite number of at least `least`.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
        raise ValueError(f"{name} is out of range")
    return value


def require_count(name: str, value: Any) -> int:
    """A whole number from 0.

    Raises:
        ValueError: anything else.
    """
    if type(value) is not int or not 0 <= value < MOST:
        raise ValueError(f"{name} is out of range")
    return value


def _require_keys(name: str, found: Any, keys: Any) -> None:
    if not isinstance(found, Mapping) or found.keys() != set(keys):
        odd = sorted(map(str, set(found) ^ set(keys)))[:3] if isinstance(found, Mapping) else type(found).__name__
        raise ValueError(f"{name} lacks or adds {odd}")


def _require_like(name: str, found: Any, shape: torch.Size, dtype: torch.dtype) -> None:
    if not isinstance(found, Tensor) or found.layout != torch.strided or found.device.type != "cpu":
        raise ValueError(f"{name} is no tensor")
    if found.shape != shape or found.dtype != dtype:
        raise ValueError(f"{name} is {tuple(found.shape)} {found.dtype}, not {tuple(shape)} {dtype}")
