"""State dicts of the published checkpoints -> ours.

Every width comes from the tensors; what no tensor shows (heads, collection, loss weights) from the run's options.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nrccr.errors import UserError
from nrccr.models.openai import visual_tensors
from nrccr.models.statedicts import (
    MAPPING,
    StateDict,
    count_layers,
    is_state,
    rename,
    whole,
    without_unused,
    without_wrappers,
)
from nrccr.systems.base import Published

_BRANCH = [
    ("input_proj_layer.LayerNorm.", "project.input_norm."),
    ("input_proj_layer.net.1.", "project.linear."),
    ("pos_embed_layer.position_embeddings.", "project.positions."),
    ("pos_embed_layer.LayerNorm.", "project.norm."),
]
_BLOCK = [
    ("encoder_layer.self.query.", "query."),
    ("encoder_layer.self.key.", "key."),
    ("encoder_layer.self.value.", "value."),
    ("encoder_layer.output.dense.", "output."),
    ("encoder_layer.output.LayerNorm.", "norm."),
]
_VISUAL = [*_BRANCH, *((theirs, f"blocks.0.{ours}") for theirs, ours in _BLOCK)]
_TEXT = [*_BRANCH, *((theirs, f"block.{ours}") for theirs, ours in _BLOCK), ("text_bert.text_bert.", "backbone.")]
_IMAGE = [("proj.", "linear.")]
_ENCODER = "encoder."  # the whole CLIP of an image run


def published(path: Path, checkpoint: Mapping[str, Any]) -> Published | None:
    """Convert a published checkpoint; none if it is another system's.

    Raises:
        UserError: tensors that are missing or unknown, or a kind that is not supported.
    """
    parts, options = checkpoint.get("model"), checkpoint.get("opt")
    if not isinstance(parts, list) or len(parts) != 5 or not all(map(is_state, parts)) or not isinstance(options, dict):
        return None
    if not any("input_proj_layer." in key for key in parts[1]):  # the text branch of every run has one
        return None
    kind = options.get("model_type", "video")
    if kind not in ("video", "img"):
        raise UserError(f"{path}: a checkpoint with model_type={kind}; only video and img are supported")
    visual, text, map_visual, map_text, discriminator = (without_wrappers(part, path) for part in parts)
    trained = _plain_config(path, options, text, visual, map_text, discriminator)
    weights = {
        "visual": rename(visual, _VISUAL, path) if kind == "video" else _rename_image(visual, path),
        "text": without_unused(rename(text, _TEXT, path)),
        "map_visual": rename(map_visual, MAPPING, path),
        "map_text": rename(map_text, MAPPING, path),
    }
    return Published(trained, whole(weights))


def _plain_config(
    path: Path,
    options: dict[str, Any],
    text: StateDict,
    visual: StateDict,
    map_text: StateDict,
    discriminator: StateDict,
) -> dict[str, Any]:
    """The configuration that the options and tensors of a checkpoint describe."""
    # Video runs carry img_encoder too, so that only model_type decides.
    images = options.get("model_type") == "img"
    needed = [
        (text, "input_proj_layer.net.1.weight"),
        (visual, "proj.weight" if images else "input_proj_layer.net.1.weight"),
        (map_text, "mapping.fc1.weight"),
        (text, "text_bert.text_bert.embeddings.word_embeddings.weight"),
        (text, "text_bert.text_bert.embeddings.position_embeddings.weight"),
    ]
    for state, key in needed:
        if key not in state or state[key].ndim != 2:
            raise UserError(f"{path}: lacks the matrix {key}; not a checkpoint of NRCCR")
    text_width, visual_width, joint, _, _ = (len(state[key]) for state, key in needed)
    # Only what a test needs must be right; training options are kept if they are valid.
    found = (re.fullmatch(r".*layer\.(\d+)", str(name)) for name in options.get("layer_list") or [])
    named = {int(match[1]) for match in found if match}
    freeze = options.get("frozen")
    data_type = re.fullmatch(r"(.+)_enc2([a-z]+)(2.*)?", str(options.get("data_type")))
    loss = {
        "margin": "margin",
        "target": "tri_alpha",
        "similarity": "dtl_beta",
        "feature": "l1_gama",
        "cycle": "back_w",
        "adversary": "scale",
    }
    return {
        "data": {
            "collection": options.get("collection", "multi30k" if images else "vatex"),
            "task": options.get("task", 1) if images and options.get("collection") != "mscoco" else 1,
            "target": data_type[2] if data_type else "zh",
            "translator": data_type[1] if data_type else "google",
            "feature": options.get("visual_feature"),
        },
        "text": {
            "pretrained": False,
            "freeze": freeze if freeze in ("all_frozen", "none") else "frozen",
            "trainable_layers": sorted(named & set(range(count_layers(text)))),
            "width": text_width,
            "heads": options.get("text_num_attention", 8),
        },
        "visual": {
            "kind": _visual_kind(visual) if images else "video",
            "width": visual_width,
            "heads": options.get("video_num_attention", 8),
            "layers": 1,
        },
        "image": {"pretrained": False},
        "joint": {"width": joint},
        "loss": {ours: options[theirs] for ours, theirs in loss.items() if _is_weight(options.get(theirs))},
        "adversary": {"discriminator": _strength(discriminator)},
        "evaluation": {"target_weight": 0.5 if images else 0.8},
    }


def _visual_kind(visual: StateDict) -> str:
    return "clip" if any(key.startswith(_ENCODER) for key in visual) else "vectors"


def _rename_image(visual: StateDict, path: Path) -> StateDict:
    """The linear layer and, in transformers' names, the visual half of CLIP where there is one."""
    clip = {key.removeprefix(_ENCODER): value for key, value in visual.items() if key.startswith(_ENCODER)}
    ours = rename({key: v for key, v in visual.items() if not key.startswith(_ENCODER)}, _IMAGE, path)
    return ours | {_ENCODER + key: value for key, value in visual_tensors(clip, path).items()}


def _is_weight(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and value >= 0


def _strength(discriminator: StateDict) -> str:
    if "discriminator.convolve.0.weight" in discriminator:
        return "strong"
    return "weak" if "discriminator.model.weight" in discriminator else "not-so-weak"
