"""State dicts of the published checkpoints -> ours.

Every width comes from the tensors; what no tensor tells (heads, the reading, the collection) from the run's options.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nrccr.config.schema import Config
from nrccr.config.yaml import Layer
from nrccr.errors import UserError
from nrccr.models.image import build_image_encoder
from nrccr.models.openai import visual_config, visual_tensors
from nrccr.models.statedicts import (
    MAPPING,
    PARTS,
    State,
    backbone_for,
    count_layers,
    is_state,
    load,
    load_parts,
    rename,
    without_unused,
)
from nrccr.systems.nrccr.discriminator import Discriminator
from nrccr.systems.nrccr.network import NRCCR, build_nrccr
from nrccr.systems.settings import build_config

CHECKPOINT_NAME = "model_best.pth.tar"

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
_DISCRIMINATOR = [
    ("discriminator.convolve.0.", "reduce."),
    *(
        (f"discriminator.convolve.{block}.conv{conv}.", f"convolutions.{block - 1}.{name}.")
        for block in (1, 2, 3)
        for conv, name in ((1, "first"), (2, "second"))
    ),
    ("discriminator.model.", "classify."),
]


@dataclass(frozen=True)
class Published:
    """A published checkpoint as ours: the configuration it was trained with, and its weights by our names."""

    path: Path
    config: Config
    visual: State
    text: State
    map_visual: State
    map_text: State
    discriminator: State

    @property
    def feature_width(self) -> int:
        """Width of the features it was trained on."""
        key = "project.linear.weight" if self.config.visual.kind == "video" else "linear.weight"
        return self.visual[key].shape[1]

    @property
    def image_size(self) -> int:
        """Side of the pixels that its image encoder takes, 0 without one."""
        return int(visual_config(self._encoder(), self.path).image_size) if self._encoder() else 0

    def _encoder(self) -> State:
        return {key.removeprefix(_ENCODER): v for key, v in self.visual.items() if key.startswith(_ENCODER)}

    def network(self) -> NRCCR:
        """The whole network with the checkpoint's weights.

        Raises:
            UserError: weights that do not fit the backbone of `text.model`.
        """
        backbone = backbone_for(self.text, self.config.text.model, self.path)
        encoder = build_image_encoder(visual_config(self._encoder(), self.path), None) if self._encoder() else None
        network = build_nrccr(self.config, backbone, self.feature_width, encoder)
        load_parts(network, {name: getattr(self, name) for name in PARTS}, self.path)
        return network

    def load_discriminator(self, discriminator: Discriminator) -> None:
        """Put the checkpoint's discriminator weights into one of the same strength."""
        load(discriminator, self.discriminator, self.path)


def read_published(path: Path, checkpoint: Mapping[str, Any], overrides: list[str]) -> Published:
    """Interpret a loaded checkpoint (see nrccr.safeload) of the published NRCCR code.

    Args:
        path: where it came from, for messages.
        checkpoint: plain data and tensors, options as a dict.
        overrides: `key=value`, over what the checkpoint says.

    Raises:
        UserError: not such a checkpoint, or of a kind that is not supported.
    """
    parts, options = checkpoint.get("model"), checkpoint.get("opt")
    whole = isinstance(parts, list) and len(parts) == 5 and all(map(is_state, parts))
    if not isinstance(parts, list) or not whole or not isinstance(options, dict):
        raise UserError(f"{path}: not an NRCCR checkpoint (it needs a list of five state dicts, `model`, and `opt`)")
    kind = options.get("model_type", "video")
    if kind not in ("video", "img"):
        raise UserError(f"{path}: a checkpoint with model_type={kind}; only video and img are supported")
    visual, text, map_visual, map_text, discriminator = (
        {key.removeprefix("module."): value for key, value in part.items()} for part in parts
    )
    trained = _plain_config(path, options, text, visual, map_text, discriminator)
    return Published(
        path=path,
        config=build_config([Layer(str(path), trained)], overrides),
        visual=rename(visual, _VISUAL, path) if kind == "video" else _rename_image(visual, path),
        text=without_unused(rename(text, _TEXT, path)),
        map_visual=rename(map_visual, MAPPING, path),
        map_text=rename(map_text, MAPPING, path),
        discriminator=rename(discriminator, _DISCRIMINATOR, path),
    )


def _plain_config(
    path: Path, options: dict[str, Any], text: State, visual: State, map_text: State, discriminator: State
) -> dict[str, Any]:
    """The configuration that the options and tensors of a checkpoint speak of."""
    # Video runs carry img_encoder too, so that only model_type tells.
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
    # Only what a test needs must be right; how it was trained is taken over as far as it makes sense.
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


def _visual_kind(visual: State) -> str:
    return "clip" if any(key.startswith(_ENCODER) for key in visual) else "vectors"


def _rename_image(visual: State, path: Path) -> State:
    """The linear layer and, in transformers' names, the visual half of CLIP where there is one."""
    clip = {key.removeprefix(_ENCODER): value for key, value in visual.items() if key.startswith(_ENCODER)}
    ours = rename({key: v for key, v in visual.items() if not key.startswith(_ENCODER)}, _IMAGE, path)
    return ours | {_ENCODER + key: value for key, value in visual_tensors(clip, path).items()}


def _is_weight(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and value >= 0


def _strength(discriminator: State) -> str:
    if "discriminator.convolve.0.weight" in discriminator:
        return "strong"
    return "weak" if "discriminator.model.weight" in discriminator else "not-so-weak"
