"""The typed configuration: what every key is, YAML files with `extends:`, and overrides key=value.

The dataclasses are the schema: a key that is not here is refused. `configs/base.yaml` lists every key with its default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nrccr.config.limits import belongs, check_ranges
from nrccr.config.yaml import parse_yaml, read_layers
from nrccr.errors import UserError

READINGS = {
    "released": {
        "pooling": "padded",
        "attention_mask": "outer",
        "teacher": "cross_and_target",
        "feed_forward": False,
        "attention_scale": "value_width",
        "similarity": "soft_cross_entropy",
        "feature": "smooth_l1",
        "adversary": "non_saturating",
        "score": "minmax",
        "english_cleaning": "source",
        "frames": "first",
        "pool_mask": "labse",
    },
}
READINGS["paper"] = {
    "pooling": "masked",
    "attention_mask": "key",
    "teacher": "cross",
    "feed_forward": True,
    "attention_scale": "key_width",
    "similarity": "kl",
    "feature": "l1",
    "adversary": "minimax",
    "score": "raw",
    "english_cleaning": "all",
    "frames": "uniform",
    "pool_mask": "own",
}
READINGS["corrected"] = READINGS["released"] | {"pooling": "masked", "attention_mask": "key", "pool_mask": "own"}
# Where another system than NRCCR reads otherwise, in every reading.
OF_MODEL: dict[str, dict[str, Any]] = {
    "nrccr": {},
    "mlcmr": {"score": "raw", "english_cleaning": "all", "frames": "first"},
    "c2kd": {"score": "raw", "frames": "first"},
}


@dataclass
class Switches:
    """One field for each place where readings differ; null takes the value of `reading`."""

    pooling: Literal["padded", "masked"] | None = None
    attention_mask: Literal["outer", "key"] | None = None
    teacher: Literal["cross_and_target", "cross"] | None = None
    feed_forward: bool | None = None
    attention_scale: Literal["value_width", "key_width"] | None = None
    similarity: Literal["soft_cross_entropy", "kl"] | None = None
    feature: Literal["smooth_l1", "l1"] | None = None
    adversary: Literal["non_saturating", "minimax"] | None = None
    score: Literal["minmax", "raw"] | None = None
    english_cleaning: Literal["source", "all"] | None = None
    frames: Literal["first", "uniform"] | None = None
    pool_mask: Literal["labse", "own"] | None = None


@dataclass
class DataConfig:
    """The collection on disk and how it is read."""

    collection: str = "vatex"
    task: int = 1
    target: str = "zh"
    translator: str = "google"
    scenario: Literal["parallel", "translate", "unparallel"] = "parallel"
    validation_english: Literal["human", "translated"] = "human"
    validate_on_test: bool = False
    held_out: int = 0
    languages: list[str] = field(default_factory=list)
    round_trips: int = 0
    feature: str | None = None
    max_frames: int = 64
    mismatch_tolerance: float = 0.01
    workers: int = 0


@dataclass
class TextConfig:
    """The text branch."""

    model: str = "bert-base-multilingual-cased"
    pretrained: bool = True
    backbone: dict[str, Any] = field(default_factory=dict)
    freeze: Literal["frozen", "all_frozen", "none"] = "frozen"
    trainable_layers: list[int] = field(default_factory=lambda: [5, 6, 7, 8, 9, 10, 11])
    width: int = 768
    heads: int = 8
    max_tokens: int = 250


@dataclass
class VisualConfig:
    """The visual branch."""

    kind: Literal["video", "vectors", "clip"] = "video"
    width: int = 1024
    heads: int = 8
    layers: int = 1
    gru: int = 512
    maps: int = 512


@dataclass
class ImageConfig:
    """Raw images and their encoder, for `visual.kind: clip`."""

    model: str = "openai/clip-vit-base-patch32"
    pretrained: bool = True
    path: str | None = None
    trainable: bool = False
    cache: str = "runs/image-features"


@dataclass
class JointConfig:
    """The joint space."""

    width: int = 1536
    dropout: float = 0.2


@dataclass
class LossConfig:
    """Weights and constants of the objective."""

    margin: float = 0.2
    target: float = 0.6
    similarity: float = 0.4
    feature: float = 0.1
    cycle: float = 0.5
    adversary: float = 0.001
    temperature: float = 0.07
    mask_same_item: bool = False


@dataclass
class AdversaryConfig:
    """The language discriminator."""

    discriminator: Literal["weak", "not-so-weak", "strong"] = "strong"
    learning_rate: float = 0.001


@dataclass
class C2KDConfig:
    """C2KD's objective and its teachers."""

    stage: Literal["zero_shot", "translate_train", "distill"] = "distill"
    temperature: float = 0.05
    distill_temperature: float = 0.1
    balance: float = 0.1
    pooling: Literal["maximum", "minimum", "mean", "each", "learned_teachers", "learned_pools"] = "maximum"
    distillation: Literal["kl", "smooth_l1"] = "kl"
    mixing_learning_rate: float = 0.01
    teachers: list[str] = field(default_factory=list)
    teacher_models: list[str] = field(default_factory=list)
    precompute: bool = True
    words: str | None = None
    labse: str = "sentence-transformers/LaBSE"
    lower_case: bool = False
    query_tokens: int = 40


@dataclass
class TrainConfig:
    """Optimisation, schedule and bookkeeping."""

    epochs: int = 50
    batch_size: int = 128
    learning_rate: float = 1e-4
    learning_rate_decay: float = 0.99
    halve_after: int | None = 2
    patience: int | None = 11
    grad_clip: float | None = 2.0
    drop_last: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"
    log_every: int = 10
    save_minutes: float = 5.0


@dataclass
class EvaluationConfig:
    """Validation and test."""

    batch_size: int = 64
    target_weight: float = 0.8
    save_scores: bool = False
    normalise: Literal["none", "is", "dis", "dual_is", "dual_dis", "csls", "nnn", "dsl", "sinkhorn"] = "none"
    beta: float = 20.0
    k: int = 1
    alpha: float = 0.75
    memory_mb: float = 2000.0


@dataclass
class Config:
    """A whole run."""

    model: Literal["nrccr", "mlcmr", "c2kd"] = "nrccr"
    seed: int = 0
    reading: Literal["released", "paper", "corrected"] = "released"
    switches: Switches = field(default_factory=Switches)
    data: DataConfig = field(default_factory=DataConfig)
    text: TextConfig = field(default_factory=TextConfig)
    visual: VisualConfig = field(default_factory=VisualConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    joint: JointConfig = field(default_factory=JointConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    adversary: AdversaryConfig = field(default_factory=AdversaryConfig)
    c2kd: C2KDConfig = field(default_factory=C2KDConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def switch(self, name: str) -> Any:
        """The value of a switch: its own if set, else the reading's for this model."""
        own = getattr(self.switches, name)
        return self.usual_switches[name] if own is None else own

    @property
    def usual_switches(self) -> dict[str, Any]:
        """What every switch is where it is not set itself."""
        return READINGS[self.reading] | OF_MODEL[self.model]

    @property
    def cleans_queries(self) -> bool:
        """Whether translated queries are cleaned as English of the training set is: on videos, not on images."""
        video = self.visual.kind == "video"
        return self.model != "c2kd" and (video or bool(self.switch("english_cleaning") == "all"))

    @property
    def padding_free(self) -> bool:
        """Whether padding never counts, so that no embedding depends on its neighbours."""
        attention = self.model != "nrccr" or self.switch("attention_mask") == "key"
        return self.model == "c2kd" or (attention and bool(self.switch("pooling") == "masked"))


def resolved_switches(config: Config) -> dict[str, Any]:
    """Every switch of the model with the value in force."""
    return {f.name: config.switch(f.name) for f in fields(Switches) if belongs(f"switches.{f.name}", config.model)}


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, what it extends, and overrides, into a typed, checked configuration.

    Args:
        path: the YAML file. Its `extends:` names another, relative to it, whose values it replaces.
        overrides: `key=value` each, the key with dots.

    Raises:
        UserError: a missing or malformed file, an unknown key, a value of the wrong type or out of range.
    """
    return build_config([*read_layers(path)], overrides)


def build_config(layers: Sequence[tuple[str, dict[str, Any]]], overrides: Sequence[str] = ()) -> Config:
    """Merge named layers of plain values, then overrides, into a checked configuration.

    Raises:
        UserError: as load_config; the message names the layer.
    """
    merged = OmegaConf.structured(Config)
    for name, values in layers:
        merged = _merge(merged, values, name)
    for override in overrides:
        merged = _merge(merged, _parse_override(override), f"override {override}")
    try:
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise UserError(f"{layers[-1][0] if layers else 'configuration'}: {_explain(error)}") from error
    assert isinstance(config, Config)
    check_ranges(config, layers[-1][0] if layers else "configuration")
    return config


def plain(config: Config) -> dict[str, Any]:
    """The configuration as plain YAML-ready values, in the schema's order."""
    return asdict(config)


def to_yaml(config: Config) -> str:
    """The whole configuration as YAML text."""
    return yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)


def _parse_override(override: str) -> dict[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not key or not all(key.split(".")):
        raise UserError(f"override {override!r}: write key=value, for instance train.batch_size=64")
    nested: Any = parse_yaml(text, f"override {override!r}") if text else ""
    for part in reversed(key.split(".")):
        nested = {part: nested}
    values: dict[str, Any] = nested
    return values


def _merge(base: DictConfig, values: dict[str, Any], name: str) -> DictConfig:
    for section, given in values.items():
        if is_dataclass(getattr(Config(), str(section), None)) and not isinstance(given, dict):
            raise UserError(f"{name}: {section} is a section; write {section}.KEY=VALUE")
    text = values.get("text")
    if isinstance(text, dict) and text.get("backbone") == {}:
        base.text.backbone = {}  # merging would keep what is there
    try:
        merged = OmegaConf.merge(base, values)
    except OmegaConfBaseException as error:
        raise UserError(f"{name}: {_explain(error)}") from error
    assert isinstance(merged, DictConfig)
    return merged


def _explain(error: OmegaConfBaseException) -> str:
    what = str(error).split("\n")[0]
    key = error.full_key or (f"{error.key}" if error.key is not None else "a section")
    if "not in" in what:
        section = key.rpartition(".")[0]
        owner: Any = Config()
        for part in section.split(".") if section else []:
            owner = getattr(owner, part)
        return f"unknown key {key}; known here: {', '.join(f.name for f in fields(owner))}"
    if "not a ListConfig" in what:
        return f"{key}: needs a list, such as [en,de]; write {key}=[VALUE]"
    return f"{key}: {what}"
