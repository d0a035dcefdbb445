"""Which values a configuration may have."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import TYPE_CHECKING

from nrccr.config.yaml import flatten
from nrccr.errors import UserError

if TYPE_CHECKING:
    from nrccr.config.schema import Config

# Keys, or sections, that not every system reads: which do. Elsewhere they must keep their defaults.
NRCCR, MLCMR, C2KD = "nrccr", "mlcmr", "c2kd"
_OWNERS: dict[tuple[str, ...], tuple[str, ...]] = {
    (NRCCR,): (
        *("attention_mask", "teacher", "feed_forward", "attention_scale", "similarity", "feature", "adversary"),
        "english_cleaning",
    ),
    (NRCCR, MLCMR): ("pooling", "score"),
    (C2KD,): ("pool_mask",),
}
OWNERS: dict[str, tuple[str, ...]] = {
    **{f"switches.{name}": owners for owners, names in _OWNERS.items() for name in names},
    **dict.fromkeys(("adversary", "image", "text.width", "text.heads", "data.round_trips", "data.task"), (NRCCR,)),
    **{f"loss.{name}": (NRCCR,) for name in ("target", "similarity", "feature", "cycle", "adversary")},
    **dict.fromkeys(("loss", "joint.dropout", "data.target", "data.mismatch_tolerance"), (NRCCR, MLCMR)),
    **{f"evaluation.{name}": (NRCCR, MLCMR) for name in ("target_weight", "save_scores")},
    **{f"evaluation.{name}": (NRCCR,) for name in ("normalise", "beta", "k", "alpha")},
    **{f"data.{name}": (MLCMR,) for name in ("scenario", "validation_english", "validate_on_test", "held_out")},
    **dict.fromkeys(("visual.gru", "visual.maps"), (MLCMR,)),
    **dict.fromkeys(("visual.width", "visual.heads", "visual.layers"), (NRCCR, C2KD)),
    **dict.fromkeys(("c2kd", "data.languages"), (C2KD,)),
}


def belongs(key: str, model: str) -> bool:
    """Whether a system reads a key such as `switches.pooling`."""
    owners = OWNERS.get(key) or OWNERS.get(key.partition(".")[0])
    return owners is None or model in owners


def check_ranges(config: Config, name: str) -> None:
    """Refuse values out of range.

    Args:
        config: the configuration.
        name: where it comes from, for the message.

    Raises:
        UserError: a value out of range, or two that do not go together; the message names the key.
    """
    c = config
    _check_owners(c, name)
    _check_stage(c, name)
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
        "visual.gru": c.visual.gru,
        "visual.maps": c.visual.maps,
        "joint.width": c.joint.width,
        "loss.temperature": c.loss.temperature,
        "adversary.learning_rate": c.adversary.learning_rate,
        "train.epochs": c.train.epochs,
        "train.learning_rate": c.train.learning_rate,
        "train.learning_rate_decay": c.train.learning_rate_decay,
        **{
            f"c2kd.{key}": getattr(c.c2kd, key)
            for key in ("temperature", "distill_temperature", "mixing_learning_rate")
        },
        "train.log_every": c.train.log_every,
        "train.save_minutes": c.train.save_minutes,
        "evaluation.batch_size": c.evaluation.batch_size,
        "evaluation.beta": c.evaluation.beta,
        "evaluation.alpha": c.evaluation.alpha,
    }
    optional = {"train.patience": c.train.patience, "train.grad_clip": c.train.grad_clip}
    positive |= {key: value for key, value in optional.items() if value is not None}
    at_least_zero: dict[str, float] = {
        "seed": c.seed,
        "data.round_trips": c.data.round_trips,
        "data.workers": c.data.workers,
        "data.mismatch_tolerance": c.data.mismatch_tolerance,
        "train.halve_after": c.train.halve_after or 0,
        "data.held_out": c.data.held_out,
        "evaluation.k": c.evaluation.k,
        **{f"loss.{f.name}": getattr(c.loss, f.name) for f in fields(c.loss)},
    }
    longest = 250 if c.model == NRCCR else 512  # position vectors of the branch's own, or the backbone's alone
    frames = c.data.max_frames if c.model == NRCCR else 1
    bounds: list[tuple[dict[str, float], Callable[[float], bool], str]] = [
        (positive, lambda v: v > 0, "above 0"),
        (at_least_zero, lambda v: v >= 0, "0 or more"),
        ({"train.batch_size": c.train.batch_size}, lambda v: v >= 2, "2 or more (batch normalisation needs two)"),
        ({"data.task": c.data.task}, lambda v: v in (1, 2), "1 or 2"),
        ({"text.max_tokens": c.text.max_tokens}, lambda v: 3 <= v <= longest, f"between 3 and {longest}"),
        ({"c2kd.query_tokens": c.c2kd.query_tokens}, lambda v: 3 <= v <= 512, "between 3 and 512"),
        ({"data.max_frames": frames}, lambda v: v <= 80, "at most 80, the number of position vectors"),
        ({"c2kd.balance": c.c2kd.balance}, lambda v: 0 <= v <= 1, "between 0 and 1"),
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
    _check_heads(c, name)
    if c.text.pretrained and c.text.backbone:
        raise UserError(f"{name}: text.backbone does not go with pretrained weights; set text.pretrained=false")
    if c.model == MLCMR and c.visual.kind != "video" or c.model == C2KD and c.visual.kind == "clip":
        raise UserError(f"{name}: visual.kind={c.visual.kind} does not go with model={c.model}; set visual.kind=video")
    if c.data.held_out and c.data.validate_on_test:
        raise UserError(f"{name}: data.held_out and data.validate_on_test exclude each other; leave one out")


def _check_heads(c: Config, name: str) -> None:
    """Heads must divide the widths that they attend in."""
    branches = [("text", c.text.width, c.text.heads)] if c.model == NRCCR else []
    if c.model == C2KD or (c.model == NRCCR and c.visual.kind == "video"):
        branches.append(("visual", c.visual.width, c.visual.heads))
    inner = 512 if c.model == NRCCR else 0  # key width of NRCCR's attention
    for branch, width, heads in branches:
        if width % heads or inner % heads:
            raise UserError(
                f"{name}: {branch}.heads={heads} must divide {branch}.width={width}{' and 512' if inner else ''}"
            )


def _check_owners(c: Config, name: str) -> None:
    """A key that the chosen system does not read must keep its default: nothing is accepted and ignored."""
    values, usual = flatten(asdict(c)), flatten(asdict(type(c)()))
    for key, value in values.items():
        if value != usual.get(key) and not belongs(key, c.model):
            raise UserError(f"{name}: {key}={value} means nothing to model={c.model}; remove it")


def _check_stage(c: Config, name: str) -> None:
    """What only one stage of C2KD reads must keep its default in the others."""
    own, usual = c.c2kd, type(c.c2kd)()
    unread = {"mixing_learning_rate": f"pooling={own.pooling}"} if not own.pooling.startswith("learned") else {}
    if own.distillation == "smooth_l1":
        unread["distill_temperature"] = "distillation=smooth_l1"
    if own.stage != "distill":
        keys = ("distill_temperature", "balance", "pooling", "distillation", "mixing_learning_rate", "teachers")
        unread = dict.fromkeys((*keys, "teacher_models", "precompute"), f"stage={own.stage}")
    if c.model == C2KD and c.switch("pool_mask") != "labse" and not own.teachers:  # published ones may need it
        unread["labse"] = "teachers=[] where switches.pool_mask is own"
    for key, reason in unread.items():
        if getattr(own, key) != getattr(usual, key):
            raise UserError(f"{name}: c2kd.{key}={getattr(own, key)} means nothing to c2kd.{reason}; remove it")
    if not all(own.teachers):
        raise UserError(f"{name}: c2kd.teachers holds an empty name; give run folders or published checkpoints")
    for key in ("labse", "words"):
        if getattr(own, key) == "":
            raise UserError(
                f"{name}: c2kd.{key} is empty; give a {'folder or a hub name' if key == 'labse' else 'file'}"
            )
