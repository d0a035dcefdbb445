"""What the readers of published checkpoints share: names of tensors, and loading whole parts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from nrccr.errors import UserError
from nrccr.models.backbone import backbone_config, build_backbone

State = dict[str, Tensor]
PARTS = ("visual", "text", "map_visual", "map_text")
MAPPING = [("mapping.fc1.", "linear."), ("mapping.bn_1.", "norm.")]
_UNUSED = re.compile(r"backbone\.(embeddings\.position_ids|pooler\..*)")


def is_state(part: Any) -> bool:
    """Whether this is a state dict: names and tensors."""
    return isinstance(part, dict) and all(isinstance(value, Tensor) for value in part.values())


def without_unused(text: State) -> State:
    """A text branch without what older backbones carry and no output uses: position ids, pooler."""
    return {key: value for key, value in text.items() if not _UNUSED.fullmatch(key)}


def rename(state: Mapping[str, Tensor], table: list[tuple[str, str]], path: Path) -> State:
    """Every tensor under our name, by a table of their prefixes and ours.

    Raises:
        UserError: a tensor that no prefix fits.
    """
    renamed: State = {}
    for key, value in state.items():
        for theirs, ours in table:
            if key.startswith(theirs):
                renamed[ours + key.removeprefix(theirs)] = value
                break
        else:
            raise UserError(f"{path}: unknown tensor {key}; not a published checkpoint of this model")
    return renamed


def load_parts(network: nn.Module, states: Mapping[str, State], path: Path) -> None:
    """Load several parts of a network by name, see `load`."""
    for name, state in states.items():
        load(network.get_submodule(name), state, path)


def load(module: nn.Module, state: State, path: Path) -> None:
    """Load all of a module's weights.

    Raises:
        UserError: tensors that are missing, unexpected or of another shape.
    """
    own = module.state_dict()
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unexpected:
        raise UserError(f"{path}: tensors missing: {missing[:3] or 'none'}, not expected: {unexpected[:3] or 'none'}")
    for key, value in state.items():
        if own[key].shape != value.shape:
            raise UserError(f"{path}: {key} is {tuple(value.shape)}, the network has {tuple(own[key].shape)}")
    module.load_state_dict(state)


def backbone_for(text: State, model: str, path: Path) -> PreTrainedModel:
    """A backbone with random weights, of the sizes that a text branch's tensors have.

    Args:
        text: the text branch, by our names.
        model: `text.model`, hub name or folder.
        path: the checkpoint, for messages.

    Raises:
        UserError: the model has other sizes.
    """
    config = backbone_config(model, {})
    words, positions = (text.get(f"backbone.embeddings.{kind}_embeddings.weight") for kind in ("word", "position"))
    if words is None or positions is None or words.ndim != 2:
        raise UserError(f"{path}: has no embeddings of words and positions; not a published checkpoint of this model")
    stored = {
        "hidden_size": words.shape[1],
        "vocab_size": words.shape[0],
        "max_position_embeddings": positions.shape[0],
        "num_hidden_layers": count_layers(text),
    }
    for key, value in stored.items():
        if getattr(config, key, value) != value:
            raise UserError(
                f"{path}: its backbone has {key}={value}, text.model={model} has {getattr(config, key)}; "
                "give the backbone it was trained with as text.model=NAME_OR_FOLDER"
            )
    return build_backbone(config, pretrained=None)


def count_layers(text: State) -> int:
    """How many layers the backbone of a text branch has, by either naming of its tensors."""
    return len({match[1] for key in text if (match := re.search(r"\.encoder\.layer\.(\d+)\.", key))})
