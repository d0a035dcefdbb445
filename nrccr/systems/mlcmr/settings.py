"""The configuration keys of MLCMR."""

from __future__ import annotations

from typing import Any

from nrccr.config.keys import Section
from nrccr.config.limits import require_at_most, require_padding_free
from nrccr.config.schema import Config, Refuse

SECTIONS: dict[str, type[Section]] = {}
READS = frozenset(
    {
        *("loss.margin", "loss.temperature", "loss.mask_same_item", "joint.dropout", "visual.gru", "visual.maps"),
        *("data.target", "data.mismatch_tolerance", "data.scenario", "data.validation_english"),
        *("data.validate_on_test", "data.held_out"),
        *(f"evaluation.{name}" for name in ("target_weight", "save_scores", "normalise", "beta", "k", "alpha")),
        *("text.cache", "switches.pooling", "switches.score", "switches.frames"),
    }
)
SWITCHES: dict[str, Any] = {"score": "raw", "frames": "first"}
FOLDERS: dict[str, str] = {}
VARIANTS: dict[str, tuple[str, ...]] = {}
NOTES = {
    "data.collection": "vatex | msrvtt10kyu | generated",
    "text.max_tokens": "at most 512",
}
LONGEST = 512  # tokens; the backbone has the only position vectors


def check(config: Config, refuse: Refuse) -> None:
    """Refuse images, captions beyond the backbone's positions, and two validation sets at once."""
    require_at_most(config, "text.max_tokens", LONGEST, f"between 3 and {LONGEST}", refuse)
    instead = "reading=corrected, or switches.pooling=masked"
    require_padding_free(config, padding_free(config), instead, refuse)
    if config.visual.kind != "video":
        message = f"visual.kind={config.visual.kind} does not go with model={config.model}; set visual.kind=video"
        refuse(message, "visual.kind", "model")
    if config.data.held_out and config.data.validate_on_test:
        message = "data.held_out and data.validate_on_test exclude each other; leave one out"
        refuse(message, "data.held_out", "data.validate_on_test")


def padding_free(config: Config) -> bool:
    """Whether padding never counts, so that no embedding depends on its neighbours."""
    return bool(config.switch("pooling") == "masked")
