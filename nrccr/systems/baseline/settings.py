"""The configuration keys of baselines."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from nrccr.config.keys import Section, declared, key
from nrccr.config.render import spelled
from nrccr.config.schema import Config, Refuse

Map: TypeAlias = Literal["ridge", "none"]
TextPooling: TypeAlias = Literal["usual", "mean", "first"]
FitCaptions: TypeAlias = Literal["source", "target", "both"]


class BaselineSection(Section):
    """A frozen pair of encoders, fitted by `nrccr baseline`."""

    map: Map = key(
        "ridge",
        "ridge: linear from text vectors to features, by ridge regression on the training pairs | none: text.model "
        "gives vectors in the space of the features, such as the text side of the CLIP that they come from",
    )
    pooling: TextPooling = key("usual", "of tokens: usual: CLIP's and SigLIP's own, mean for others | mean | first")
    captions: FitCaptions = key("source", "that the map is fitted on: source | target: their translations | both")
    penalty: float | None = key(
        None, "of ridge regression, times the mean variance of text vectors; null: chosen on validation", gt=0
    )


SECTIONS: dict[str, type[Section]] = {"baseline": BaselineSection}
READS = frozenset(
    {
        *("data.task", "data.source", "data.target", "data.mismatch_tolerance", "text.prefix"),
        *("image.model", "image.pretrained", "image.path"),
        *("switches.english_cleaning", "switches.frames", "switches.pixels"),
        *(f"evaluation.{name}" for name in ("target_weight", "save_scores", "normalise", "beta", "k", "alpha")),
    }
)
SWITCHES: dict[str, Any] = {"score": "raw"}
FOLDERS = {"image_encoder": "image.model"}
NOTES = {"data.collection": "any that NRCCR reads", "text.model": "a CLIP's or SigLIP's text side too"}
VARIANTS: dict[str, tuple[str, ...]] = {}
# What only a training by gradients reads.
_OF_TRAINING = ("train.", "joint.", "text.freeze", "text.trainable_layers")


def check(config: Config, refuse: Refuse) -> None:
    """Refuse what nothing reads: keys of a training, and those of the map where there is none."""
    own = config.section(BaselineSection)
    for name, found in declared(type(config)).items():
        value = config.value(name)
        if name.startswith(_OF_TRAINING) and value != found.default:
            refuse(f"{name}={spelled(value)} is not used by model={config.model}; remove it", name)
    for name in ("captions", "penalty"):
        value = getattr(own, name)
        if own.map == "none" and value != getattr(BaselineSection(), name):
            refuse(f"baseline.{name}={spelled(value)} is not used by baseline.map=none; remove it", f"baseline.{name}")
