"""Which values a configuration may have."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING

from nrccr.errors import UserError

if TYPE_CHECKING:
    from nrccr.config import Config


def check_ranges(config: Config, name: str) -> None:
    """Refuse values out of range.

    Args:
        config: the configuration.
        name: where it comes from, for the message.

    Raises:
        UserError: a value out of range, or two that do not go together; the message names the key.
    """
    c = config
    named = {"text.model": c.text.model, "image.model": c.image.model, "image.cache": c.image.cache}
    for key in (key for key, value in named.items() if not value):
        raise UserError(f"{name}: {key} is empty; give a folder{'' if 'cache' in key else ' or a hub name'}")
    positive: dict[str, float] = {
        "data.max_frames": c.data.max_frames,
        "text.width": c.text.width,
        "text.heads": c.text.heads,
        "visual.width": c.visual.width,
        "visual.heads": c.visual.heads,
        "visual.layers": c.visual.layers,
        "joint.width": c.joint.width,
        "loss.temperature": c.loss.temperature,
        "adversary.learning_rate": c.adversary.learning_rate,
        "train.epochs": c.train.epochs,
        "train.learning_rate": c.train.learning_rate,
        "train.learning_rate_decay": c.train.learning_rate_decay,
        "train.patience": c.train.patience,
        "train.grad_clip": c.train.grad_clip,
        "train.log_every": c.train.log_every,
        "train.save_minutes": c.train.save_minutes,
        "evaluation.batch_size": c.evaluation.batch_size,
        "evaluation.beta": c.evaluation.beta,
        "evaluation.alpha": c.evaluation.alpha,
    }
    at_least_zero: dict[str, float] = {
        "seed": c.seed,
        "data.round_trips": c.data.round_trips,
        "data.workers": c.data.workers,
        "data.mismatch_tolerance": c.data.mismatch_tolerance,
        "train.halve_after": c.train.halve_after,
        "evaluation.k": c.evaluation.k,
        **{f"loss.{f.name}": getattr(c.loss, f.name) for f in fields(c.loss)},
    }
    bounds: list[tuple[dict[str, float], Callable[[float], bool], str]] = [
        (positive, lambda v: v > 0, "above 0"),
        (at_least_zero, lambda v: v >= 0, "0 or more"),
        ({"train.batch_size": c.train.batch_size}, lambda v: v >= 2, "2 or more (batch normalisation needs two)"),
        ({"data.task": c.data.task}, lambda v: v in (1, 2), "1 or 2"),
        ({"text.max_tokens": c.text.max_tokens}, lambda v: 3 <= v <= 250, "between 3 and 250"),
        ({"data.max_frames": c.data.max_frames}, lambda v: v <= 80, "at most 80, the number of position vectors"),
        ({"joint.dropout": c.joint.dropout}, lambda v: 0 <= v < 1, "from 0 up to, not including, 1"),
        ({"evaluation.target_weight": c.evaluation.target_weight}, lambda v: 0 <= v <= 1, "between 0 and 1"),
        ({"evaluation.memory_mb": c.evaluation.memory_mb}, lambda v: v >= 16, "16 or more"),
    ]
    if c.seed >= 2**63:
        raise UserError(f"{name}: seed={c.seed} is out of range; it must be below 2**63")
    for values, holds, words in bounds:
        for key, value in values.items():
            if not (math.isfinite(value) and holds(value)):
                raise UserError(f"{name}: {key}={value} is out of range; it must be {words}")
    branches = [("text", c.text.width, c.text.heads), ("visual", c.visual.width, c.visual.heads)]
    for branch, width, heads in branches[: 2 if c.visual.kind == "video" else 1]:
        if width % heads or 512 % heads:
            raise UserError(f"{name}: {branch}.heads={heads} must divide {branch}.width={width} and 512")
    if c.text.pretrained and c.text.backbone:
        raise UserError(f"{name}: text.backbone does not go with pretrained weights; set text.pretrained=false")
