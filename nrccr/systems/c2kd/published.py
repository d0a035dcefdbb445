"""State dicts of C2KD's published checkpoints -> ours.

Every width comes from the tensors. What a checkpoint holds beside the network is left out: the audio branch and its
CNN, the word2vec path, a second copy of the fusion, poolers, the optimiser.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from nrccr.config.choices import PoolMask
from nrccr.config.schema import Config
from nrccr.config.yaml import Layer
from nrccr.errors import UserError
from nrccr.models.backbone import backbone_config, build_backbone
from nrccr.systems.c2kd.network import C2KD
from nrccr.systems.settings import build_config

CHECKPOINT_NAME = "latest_model.pth"
STUDENT = "sentence-transformers/LaBSE"
S3D_WIDTH = 1024  # YouCook2's features; all others are CLIP's
HEADS = 4  # which no tensor tells; the same in all experiments

_GATED = (("fc.", "linear."), ("cg.fc.", "gate."))
_BLOCK = (
    ("norm1.", "attention_norm."),
    ("attn.qkv.", "query_key_value."),
    ("attn.proj.", "output."),
    ("norm2.", "mlp_norm."),
    ("mlp.fc1.", "inner."),
    ("mlp.fc2.", "outer."),
)
_UNUSED = re.compile(
    r"(text_proj_t2t|text_token_proj|text_norm_layer|audio_token_proj|audio_norm_layer|audio_proj|davenet|fusion"
    r"|fusion_video\.norm|fusion_text\.pooler)\..*|fusion_text\.embeddings\.position_ids|learnable_weights.*"
)


def is_c2kd(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a loaded checkpoint is one of C2KD's."""
    state = checkpoint.get("state_dict")
    return isinstance(state, dict) and any("video_token_proj." in str(key) for key in state)


def published_config(path: Path, checkpoint: Mapping[str, Any], overrides: Sequence[str]) -> Config:
    """The configuration of a published checkpoint, as far as a test needs it; the rest is the default.

    The checkpoint names neither its encoder nor its collection: they are `text.model`, by default LaBSE, the students',
    and `data.collection`, by default one whose features have the right width.

    Raises:
        UserError: not such a checkpoint, or a bad override.
    """
    state = _state_of(path, checkpoint)
    width, features = _shape(path, state, "video.embed.linear.weight")
    joint, _ = _shape(path, state, "text.project.linear.weight")
    trained = {
        "model": "c2kd",
        "data": {"collection": "multi_youcook2" if features == S3D_WIDTH else "multi_msrvtt", "max_frames": 30},
        "text": {"model": STUDENT, "pretrained": False, "freeze": "none", "max_tokens": 40},
        "visual": {"width": width, "heads": HEADS, "layers": _count_blocks(state)},
        "joint": {"width": joint},
    }
    return build_config([Layer(str(path), trained)], overrides)


def published_network(
    path: Path, checkpoint: Mapping[str, Any], text_model: str, pool_mask: PoolMask = "labse"
) -> C2KD:
    """The network of a published checkpoint, student or teacher.

    Args:
        path: where it came from, for messages.
        checkpoint: plain data and tensors, see nrccr.safeload.
        text_model: the encoder it was trained with, name or folder; only its configuration is read.
        pool_mask: see TextBranch; "labse" is what published weights were trained with.

    Raises:
        UserError: not such a checkpoint, or weights that do not fit the encoder.
    """
    state = _state_of(path, checkpoint)
    width, features = _shape(path, state, "video.embed.linear.weight")
    joint, _ = _shape(path, state, "text.project.linear.weight")
    if width % HEADS:
        raise UserError(f"{path}: its video branch is {width} wide, no multiple of its {HEADS} heads")
    backbone = build_backbone(backbone_config(text_model, {}), pretrained=None)
    network = C2KD(
        backbone, features, joint, width=width, heads=HEADS, layers=_count_blocks(state), pool_mask=pool_mask
    )
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: does not fit text.model={text_model} ({reason}); give the encoder it was trained with as "
            "text.model=NAME_OR_FOLDER"
        ) from error
    return network.eval()


def _state_of(path: Path, checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    if not is_c2kd(checkpoint):
        raise UserError(f"{path}: not a C2KD checkpoint (its state_dict needs the tensors video_token_proj.*)")
    return _renamed(path, checkpoint["state_dict"])


def _count_blocks(state: Mapping[str, Tensor]) -> int:
    return len({key.split(".")[2] for key in state if key.startswith("video.blocks.")})


def _renamed(path: Path, published: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors that the network has, by our names."""
    state: dict[str, Tensor] = {}
    for name, value in published.items():
        key = str(name).removeprefix("module.")
        if _UNUSED.fullmatch(key):
            continue
        if not isinstance(value, Tensor):
            raise UserError(f"{path}: {name} is no tensor; not a C2KD checkpoint")
        ours = _our_name(key)
        if ours is None:
            raise UserError(f"{path}: unknown tensor {name}; not a C2KD checkpoint")
        state[ours] = value.reshape(-1) if ours == "video.cls" else value  # (1, 1, W) -> (W,)
    return state


def _our_name(key: str) -> str | None:
    prefixes = [
        ("fusion_text.", "text.backbone."),
        ("text_proj.0.", "text.norm."),
        *((f"text_proj.1.{theirs}", f"text.project.{ours}") for theirs, ours in _GATED),
        *((f"video_token_proj.{theirs}", f"video.embed.{ours}") for theirs, ours in _GATED),
        ("video_norm_layer.", "video.embed_norm."),
        *((f"video_proj.{theirs}", f"video.project.{ours}") for theirs, ours in _GATED),
        ("fusion_video.cls_token", "video.cls"),
        ("fusion_video.masking_token", "video.nothing"),
    ]
    block = re.match(r"fusion_video\.blocks\.(\d+)\.", key)
    if block:
        prefixes = [(block[0] + theirs, f"video.blocks.{block[1]}.{ours}") for theirs, ours in _BLOCK]
    return next((ours + key.removeprefix(theirs) for theirs, ours in prefixes if key.startswith(theirs)), None)


def _shape(path: Path, state: Mapping[str, Tensor], key: str) -> tuple[int, int]:
    """Rows and columns of a matrix that every checkpoint has."""
    if key not in state or state[key].ndim != 2:
        raise UserError(f"{path}: lacks the matrix {key} (by our names); not a C2KD checkpoint")
    rows, columns = state[key].shape
    return rows, columns
