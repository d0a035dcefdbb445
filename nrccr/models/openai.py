"""CLIP's visual half in OpenAI's tensor names -> transformers' configuration and tensor names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from transformers import CLIPVisionConfig

from nrccr.errors import UserError

HEAD_WIDTH = 64  # of every OpenAI model; the number of heads is stored nowhere
_TOP = {
    "class_embedding": "vision_model.embeddings.class_embedding",
    "conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "ln_pre.weight": "vision_model.pre_layrnorm.weight",  # transformers' spelling
    "ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "ln_post.weight": "vision_model.post_layernorm.weight",
    "ln_post.bias": "vision_model.post_layernorm.bias",
}
_LAYER = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)")


def visual_tensors(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The visual half in transformers' names, from a whole CLIP in OpenAI's; the text half is dropped.

    Args:
        state: tensors by name; those of the visual half begin with `visual.`.
        path: where they came from, for messages.

    Raises:
        UserError: no visual transformer, or a tensor that it does not have.
    """
    ours: dict[str, Tensor] = {}
    for key, value in state.items():
        name = key.removeprefix("visual.")
        if name == key:
            continue
        block = _BLOCK.fullmatch(name)
        if name == "proj":
            ours["visual_projection.weight"] = value.T.contiguous()  # a matrix to multiply by from the right
        elif name in _TOP:
            ours[_TOP[name]] = value
        elif block and block[2] == "attn.in_proj":
            if len(value) % 3:
                raise UserError(f"{path}: {key} has {len(value)} rows, not three times a width; give a CLIP checkpoint")
            for part, piece in zip("qkv", value.chunk(3), strict=True):
                ours[f"vision_model.encoder.layers.{block[1]}.self_attn.{part}_proj.{block[3]}"] = piece.contiguous()
        elif block and block[2] in _LAYER:
            ours[f"vision_model.encoder.layers.{block[1]}.{_LAYER[block[2]]}.{block[3]}"] = value
        else:
            raise UserError(f"{path}: unknown tensor {key}; only CLIP's visual transformers (ViT) are supported")
    return {key: value.float() for key, value in ours.items()}


def visual_config(tensors: Mapping[str, Tensor], path: Path) -> CLIPVisionConfig:
    """The configuration that the tensors of `visual_tensors` have; OpenAI's models use QuickGELU and eps 1e-5.

    Raises:
        UserError: a tensor that is missing, or shapes that no such model has.
    """
    try:
        patches = tensors["vision_model.embeddings.patch_embedding.weight"]  # (width, 3, patch, patch)
        positions = len(tensors["vision_model.embeddings.position_embedding.weight"]) - 1
        inner = len(tensors["vision_model.encoder.layers.0.mlp.fc1.weight"])
        joint = len(tensors["visual_projection.weight"])
    except KeyError as error:
        raise UserError(
            f"{path}: its image encoder lacks the tensor {error.args[0]} (in transformers' names); copy it again"
        ) from None
    side = round(positions**0.5)
    if patches.ndim != 4 or side * side != positions or not side or len(patches) % HEAD_WIDTH:
        raise UserError(
            f"{path}: its image encoder has {positions} positions, width {len(patches)}; give a CLIP checkpoint"
        )
    layers = {key.split(".")[3] for key in tensors if key.startswith("vision_model.encoder.layers.")}
    return CLIPVisionConfig(
        hidden_size=len(patches),
        intermediate_size=inner,
        projection_dim=joint,
        num_hidden_layers=len(layers),
        num_attention_heads=len(patches) // HEAD_WIDTH,
        num_channels=patches.shape[1],
        image_size=side * patches.shape[-1],
        patch_size=patches.shape[-1],
        hidden_act="quick_gelu",
        layer_norm_eps=1e-5,
    )
