"""State dicts of MLCMR's published checkpoints -> ours.

Every width comes from the tensors. The options record the training, among them the scenario.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from nrccr.errors import UserError
from nrccr.models.levels import KERNELS
from nrccr.models.statedicts import (
    MAPPING,
    StateDict,
    is_state,
    rename,
    unwrapped,
    whole,
    without_unused,
    without_wrappers,
)
from nrccr.systems.base import Published

_VISUAL = [("rnn.", "gru."), ("convs1.", "convolutions.")]
_TEXT = [("text_bert.text_bert.", "backbone.")]


def is_mlcmr(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a loaded checkpoint is one of MLCMR's: its first part holds a GRU."""
    parts = checkpoint.get("model")
    first = parts[0] if isinstance(parts, list) and parts else None
    return isinstance(first, dict) and any(unwrapped(str(key)).startswith("rnn.") for key in first)


def published(path: Path, checkpoint: Mapping[str, Any]) -> Published | None:
    """Convert a published checkpoint; none if it is another system's.

    Raises:
        UserError: parts or tensors that are missing or unknown.
    """
    if not is_mlcmr(checkpoint):
        return None
    parts, options = checkpoint.get("model"), checkpoint.get("opt")
    complete = isinstance(parts, list) and len(parts) == 4 and all(map(is_state, parts))
    if not isinstance(parts, list) or not complete or not isinstance(options, dict):
        raise UserError(f"{path}: not an MLCMR checkpoint (it needs a list of four state dicts, `model`, and `opt`)")
    visual, text, map_visual, map_text = (without_wrappers(part, path) for part in parts)
    _require_shapes(path, visual, map_text)
    visual = {key: _as_sequence(value) if key.startswith("convs1.") else value for key, value in visual.items()}
    weights = {
        "visual": rename(visual, _VISUAL, path),
        "text": without_unused(rename(text, _TEXT, path)),
        "map_visual": rename(map_visual, MAPPING, path),
        "map_text": rename(map_text, MAPPING, path),
    }
    return Published(_plain_config(options, weights["visual"], weights["map_text"]), whole(weights))


def _plain_config(options: Mapping[str, Any], visual: StateDict, map_text: StateDict) -> dict[str, Any]:
    """The configuration that it was trained with, as far as a test needs it.

    The scenario, which `train_mode` and `label_situation` name, decides how a test mixes scores: 0.85 of the query
    itself where both languages are human, 0.55 elsewhere.
    """
    mode = "unparallel" if options.get("train_mode") == "unparallel" else "parallel"
    human = mode == "parallel" and options.get("label_situation", "human_label") == "human_label"
    collections = options.get("collections_pathname")
    return {
        "model": "mlcmr",
        "data": {
            "collection": collections.get("train", "vatex") if isinstance(collections, dict) else "vatex",
            "target": options.get("target_language", "zh"),
            "scenario": mode if human or mode == "unparallel" else "translate",
            "feature": options.get("visual_feature"),
        },
        "text": {"pretrained": False, "freeze": "none", "max_tokens": 512},  # which layers trained changes no test
        "visual": {"gru": visual["gru.weight_hh_l0"].shape[1], "maps": len(visual["convolutions.0.weight"])},
        "joint": {"width": len(map_text["linear.weight"])},
        "evaluation": {"target_weight": 0.85 if human else 0.55},
    }


def _require_shapes(path: Path, visual: StateDict, map_text: StateDict) -> None:
    """Make sure that the tensors that give the widths exist, with the right number of dimensions."""
    convolutions = [(visual, f"convs1.{place}.weight", 4) for place in range(len(KERNELS))]
    matrices = [(visual, "rnn.weight_ih_l0", 2), (visual, "rnn.weight_hh_l0", 2), (map_text, "mapping.fc1.weight", 2)]
    for state, key, dimensions in [*matrices, *convolutions]:
        if key not in state or state[key].ndim != dimensions or not state[key].numel():
            raise UserError(f"{path}: lacks the tensor {key} of {dimensions} dimensions; not a checkpoint of MLCMR")


def _as_sequence(weight: Tensor) -> Tensor:
    """A kernel (M, 1, frames, channels) over an image of frames -> (M, channels, frames) over a sequence."""
    return weight.squeeze(1).transpose(1, 2) if weight.ndim == 4 else weight
