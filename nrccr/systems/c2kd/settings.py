"""The configuration keys of C2KD."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from nrccr.config.keys import FileName, Section, key
from nrccr.config.limits import require_at_most, require_heads, require_padding_free
from nrccr.config.render import spelled
from nrccr.config.schema import Config, Refuse

Stage: TypeAlias = Literal["zero_shot", "translate_train", "distill"]
TeacherPooling: TypeAlias = Literal["maximum", "minimum", "mean", "each", "learned_teachers", "learned_pools"]
Distillation: TypeAlias = Literal["kl", "smooth_l1"]
Name: TypeAlias = Annotated[FileName, Field(min_length=1)]


class C2KDSection(Section):
    """Its objective and its teachers."""

    stage: Stage = key(
        "distill", "zero_shot: English alone | translate_train: all languages | distill: that, and teachers"
    )
    temperature: float = key(0.05, "of the contrastive terms", gt=0)
    distill_temperature: float = key(0.1, "of the distillation", gt=0)
    balance: float = key(0.1, "share of the contrastive terms; the distillation has the rest", ge=0, le=1)
    pooling: TeacherPooling = key("maximum", "of the teachers' scores")
    distillation: Distillation = key("kl", "")
    mixing_learning_rate: float = key(0.01, "of the learned weights", gt=0)
    teachers: list[Name] = key(
        [],
        "run folders or published checkpoints, for stage: distill",
        words="run folders or published checkpoints",
    )
    teacher_models: list[FileName] = key(
        [], "their encoders, one each, hub names or folders, where they are published checkpoints"
    )
    precompute: bool = key(
        True, "true: embed the training set with the teachers once | false: in every step", changes="digits"
    )
    words: FileName | None = key(
        None,
        "list of words; English captions without one of them are left out of the first English term",
        min_length=1,
        words="a file",
    )
    labse: FileName = key(
        "sentence-transformers/LaBSE",
        "hub name or folder of LaBSE's tokenizer, for pool_mask: labse",
        min_length=1,
        words="a folder or a hub name",
    )
    lower_case: bool = key(
        False, "true: captions and queries in lower case; else as the encoder's own tokenizer has it"
    )
    query_tokens: int = key(
        40, "longest query in validation and test, in tokens; text.max_tokens is for training", ge=3, le=512
    )


SECTIONS: dict[str, type[Section]] = {"c2kd": C2KDSection}
READS = frozenset(
    {
        *("data.languages", "visual.width", "visual.heads", "visual.layers"),
        *("switches.frames", "switches.pool_mask", "text.cache"),
    }
)
SWITCHES: dict[str, Any] = {"score": "raw", "frames": "first"}
FOLDERS = {"labse": "c2kd.labse"}
VARIANTS: dict[str, tuple[str, ...]] = {}
NOTES = {
    "data.collection": "multi_msrvtt | multi_youcook2 | multi_vatex | multi_rudder | multi30k | vatex",
    "text.max_tokens": "at most 512",
}
LONGEST = 512  # tokens; the encoder has the only position vectors
OF_DISTILLATION = (
    *("distill_temperature", "balance", "pooling", "distillation", "mixing_learning_rate", "teachers"),
    *("teacher_models", "precompute"),
)


def check(config: Config, refuse: Refuse) -> None:
    """Refuse raw images, captions beyond the encoder's positions, and keys that the stage does not read."""
    require_at_most(config, "text.max_tokens", LONGEST, f"between 3 and {LONGEST}", refuse)
    require_heads(config, "visual", refuse)
    instead = "reading=corrected, or switches.pool_mask=own"
    require_padding_free(config, config.switch("pool_mask") == "own", instead, refuse)
    if config.visual.kind == "clip":
        message = f"visual.kind={config.visual.kind} does not go with model={config.model}; set visual.kind=video"
        refuse(message, "visual.kind", "model")
    section, default = config.section(C2KDSection), C2KDSection()
    for key_, reason in _unread(section, config.switch("pool_mask")).items():
        value = getattr(section, key_)
        if value != getattr(default, key_):
            refuse(f"c2kd.{key_}={spelled(value)} is not used by c2kd.{reason}; remove it", f"c2kd.{key_}")


def _unread(own: C2KDSection, pool_mask: str) -> dict[str, str]:
    """The keys that these settings leave unused, and why."""
    unread = {} if own.pooling.startswith("learned") else {"mixing_learning_rate": f"pooling={own.pooling}"}
    if own.distillation == "smooth_l1":
        unread["distill_temperature"] = "distillation=smooth_l1"
    if own.stage != "distill":
        unread = dict.fromkeys(OF_DISTILLATION, f"stage={own.stage}")
    if pool_mask != "labse" and not own.teachers:  # published teachers may need it
        unread["labse"] = "teachers=[] where switches.pool_mask is own"
    return unread
