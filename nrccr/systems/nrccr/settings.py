"""The configuration keys of NRCCR."""

from __future__ import annotations

from typing import Any

from nrccr.config.keys import Section
from nrccr.config.limits import (
    FRAME_POSITIONS,
    QUERY_KEY_WIDTH,
    TEXT_POSITIONS,
    require_at_most,
    require_heads,
    require_padding_free,
)
from nrccr.config.schema import Config, Refuse

SECTIONS: dict[str, type[Section]] = {}
READS = frozenset(
    {
        *(
            "image",
            "loss",
            "adversary",
            "text.width",
            "text.heads",
            "text.cache",
            "visual.width",
            "visual.heads",
            "visual.layers",
        ),
        *("joint.dropout", "data.task", "data.source", "data.target", "data.round_trips", "data.mismatch_tolerance"),
        *(f"evaluation.{name}" for name in ("target_weight", "save_scores", "normalise", "beta", "k", "alpha")),
        *("switches.pooling", "switches.attention_mask", "switches.teacher", "switches.feed_forward"),
        *("switches.attention_scale", "switches.similarity", "switches.feature", "switches.adversary"),
        *("switches.score", "switches.english_cleaning", "switches.frames"),
        "switches.pixels",
    }
)
SWITCHES: dict[str, Any] = {}
FOLDERS = {"image_encoder": "image.model"}
NOTES = {
    "data.collection": "videos: vatex | msrvttcn (also found as msrvtt10kcn) | generated; images: multi30k | mscoco",
    "data.max_frames": "at most 80",
    "text.max_tokens": "at most 250",
}
# What `nrccr noise` compares: overrides by name. `basic` is the ranking loss alone.
TERMS = ("similarity", "feature", "cycle", "adversary")
VARIANTS: dict[str, tuple[str, ...]] = {
    "basic": tuple(f"loss.{term}=0" for term in TERMS),
    "nrccr": (),
    **{f"no-{term}": (f"loss.{term}=0",) for term in TERMS},
}


def check(config: Config, refuse: Refuse) -> None:
    """Refuse what is too long for the position vectors, heads that do not divide widths, one language for both.

    And how raw images are read where there are none.
    """
    require_at_most(config, "text.max_tokens", TEXT_POSITIONS, f"between 3 and {TEXT_POSITIONS}", refuse)
    frames = f"at most {FRAME_POSITIONS}, the number of position vectors"
    require_at_most(config, "data.max_frames", FRAME_POSITIONS, frames, refuse)
    require_heads(config, "text", refuse, QUERY_KEY_WIDTH)
    if config.visual.kind == "video":
        require_heads(config, "visual", refuse, QUERY_KEY_WIDTH)
    if config.switches.pixels is not None and config.visual.kind != "clip":
        message = f"switches.pixels={config.switches.pixels} says how raw images are read, and visual.kind="
        refuse(f"{message}{config.visual.kind} reads none; remove it", "switches.pixels", "visual.kind")
    instead = "reading=corrected, or switches.attention_mask=key and switches.pooling=masked"
    require_padding_free(config, padding_free(config), instead, refuse)
    if config.data.source == config.data.target:
        message = f"data.target={config.data.target} is data.source, too; give the language of the queries"
        refuse(message, "data.source", "data.target")


def cleans_queries(config: Config) -> bool:
    """Whether translated queries are cleaned as English of the training set is: on videos, not on images."""
    return config.visual.kind == "video" or bool(config.switch("english_cleaning") == "all")


def padding_free(config: Config) -> bool:
    """Whether padding never counts, so that no embedding depends on its neighbours."""
    return bool(config.switch("attention_mask") == "key" and config.switch("pooling") == "masked")
