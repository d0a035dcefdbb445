"""State dicts of C2KD's published checkpoints -> ours.

Every width comes from the tensors. What a checkpoint holds beside the network is left out: the audio branch and its
CNN, the word2vec path, a second copy of the fusion, poolers, the optimiser.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from nrccr.errors import UserError
from nrccr.models.statedicts import without_wrappers
from nrccr.systems.base import Published

STUDENT = "sentence-transformers/LaBSE"
S3D_WIDTH = 1024  # YouCook2's features; all others are CLIP's
HEADS = 4  # not in any tensor; the same in all experiments

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


def published(path: Path, checkpoint: Mapping[str, Any]) -> Published | None:
    """Convert a published checkpoint, student or teacher; none if it is another system's.

    The checkpoint names neither its encoder nor its collection: they are `text.model`, by default LaBSE, the students',
    and `data.collection`, by default one whose features have the right width.

    Raises:
        UserError: tensors that are missing or unknown.
    """
    if not is_c2kd(checkpoint):
        return None
    state = _renamed(path, checkpoint["state_dict"])
    width, features = _shape(path, state, "video.embed.linear.weight")
    joint, _ = _shape(path, state, "text.project.linear.weight")
    if width % HEADS:
        raise UserError(
            f"{path}: its video branch is {width} wide, no multiple of its {HEADS} heads; copy or download it again"
        )
    trained = {
        "model": "c2kd",
        "data": {"collection": "multi_youcook2" if features == S3D_WIDTH else "multi_msrvtt", "max_frames": 30},
        "text": {"model": STUDENT, "pretrained": False, "freeze": "none", "max_tokens": 40},
        "visual": {"width": width, "heads": HEADS, "layers": _count_blocks(state)},
        "joint": {"width": joint},
    }
    return Published(trained, state)


def _count_blocks(state: Mapping[str, Tensor]) -> int:
    return len({key.split(".")[2] for key in state if key.startswith("video.blocks.")})


def _renamed(path: Path, published: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors that the network has, by our names."""
    state: dict[str, Tensor] = {}
    for key, value in without_wrappers(published, path).items():
        if _UNUSED.fullmatch(key):
            continue
        if not isinstance(value, Tensor):
            raise UserError(f"{path}: {key} is no tensor; not a C2KD checkpoint")
        ours = _our_name(key)
        if ours is None:
            raise UserError(f"{path}: unknown tensor {key}; not a C2KD checkpoint")
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
