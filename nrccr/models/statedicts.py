"""State dicts: renamed from published checkpoints, validated, loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PretrainedConfig

from nrccr.errors import UserError

StateDict = dict[str, Tensor]
MAPPING = [("mapping.fc1.", "linear."), ("mapping.bn_1.", "norm.")]
_UNUSED = re.compile(r"backbone\.(embeddings\.position_ids|pooler\..*)")
# What torch's wrappers for several devices and for compiling put into the names of what they wrap: all of it in front,
# and inside where a part was compiled.
WRAPPED = (r"^(?:module\.|_orig_mod\.)+", r"(?<=\.)_orig_mod\.")


@dataclass(frozen=True)
class Trained:
    """Trained weights by our names.

    Attributes:
        weights: of the whole network.
        place: the file they come from.
        published: whether it is a published checkpoint, which brings no files of its encoders.
    """

    weights: StateDict
    place: Path
    published: bool = False

    def width_of(self, name: str) -> int:
        """Input width of a matrix: the width of the features in training.

        Raises:
            UserError: the weights lack it.
        """
        if name not in self.weights or self.weights[name].ndim != 2:
            raise UserError(f"{self.place}: lacks the matrix {name}; these weights are of another system")
        return int(self.weights[name].shape[-1])


def is_state(part: Any) -> bool:
    """Whether this is a state dict: names and tensors."""
    if not isinstance(part, dict):
        return False
    return all(isinstance(name, str) and isinstance(value, Tensor) for name, value in part.items())


def unwrapped(name: str) -> str:
    """A tensor's name without what wrappers put into it: `module.` in front, `_orig_mod.` anywhere."""
    for pattern in WRAPPED:
        name = re.sub(pattern, "", name)
    return name


def without_wrappers(state: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A state dict by the names that its tensors had before any wrapping.

    Raises:
        UserError: two tensors would have the same name.
    """
    named = {unwrapped(str(key)): value for key, value in state.items()}
    if len(named) < len(state):
        raise UserError(f"{path}: holds tensors twice, with and without `module.` or `_orig_mod.`; save the model once")
    return named


def without_unused(text: StateDict) -> StateDict:
    """A text branch without unused tensors of older backbones: position ids, pooler."""
    return {key: value for key, value in text.items() if not _UNUSED.fullmatch(key)}


def rename(state: Mapping[str, Tensor], table: list[tuple[str, str]], path: Path) -> StateDict:
    """Every tensor under our name, by a table of their prefixes and ours.

    Raises:
        UserError: a tensor that no prefix fits.
    """
    renamed: StateDict = {}
    for key, value in state.items():
        for theirs, ours in table:
            if key.startswith(theirs):
                renamed[ours + key.removeprefix(theirs)] = value
                break
        else:
            raise UserError(f"{path}: unknown tensor {key}; not a published checkpoint of this model")
    return renamed


def load_state_dict(module: nn.Module, state: StateDict, path: Path) -> None:
    """Load all of a module's weights.

    Raises:
        UserError: tensors that are missing, unexpected or of another shape.
    """
    own = module.state_dict()
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unexpected:
        names = f"tensors missing: {missing[:3] or 'none'}, not expected: {unexpected[:3] or 'none'}"
        raise UserError(f"{path}: {names}; give the file that belongs to this configuration")
    for key, value in state.items():
        if own[key].shape != value.shape:
            shapes = f"{key} is {tuple(value.shape)}, the network has {tuple(own[key].shape)}"
            raise UserError(f"{path}: {shapes}; give the file that belongs to this configuration")
    module.load_state_dict(state)


def whole(parts: Mapping[str, StateDict]) -> StateDict:
    """The weights of a whole network, from those of its parts."""
    return {f"{part}.{key}": value for part, state in parts.items() for key, value in state.items()}


def require_same_sizes(backbone: PretrainedConfig, trained: Trained, model: str) -> None:
    """Make sure that a backbone has the sizes of trained weights, before it is built.

    Args:
        backbone: the configuration of `text.model`.
        trained: weights of the whole network.
        model: `text.model`, for messages.

    Raises:
        UserError: other sizes.
    """
    words, positions = (
        trained.weights.get(f"text.backbone.embeddings.{kind}_embeddings.weight") for kind in ("word", "position")
    )
    stored: dict[str, int] = {}
    if words is not None and words.ndim == 2:
        # ELECTRA and its kind look words up in vectors of another width.
        width = "embedding_size" if hasattr(backbone, "embedding_size") else "hidden_size"
        stored |= {width: words.shape[1], "vocab_size": words.shape[0]}
    if positions is not None and positions.ndim == 2:
        stored["max_position_embeddings"] = positions.shape[0]
    layers = count_layers(trained.weights)
    if layers:
        stored["num_hidden_layers"] = layers
    for key, value in stored.items():
        if getattr(backbone, key, value) != value:
            raise UserError(
                f"{trained.place}: its backbone has {key}={value}, text.model={model} has {getattr(backbone, key)}; "
                "give the backbone it was trained with as text.model=NAME_OR_FOLDER"
            )


def count_layers(weights: Mapping[str, Tensor]) -> int:
    """How many layers the backbone has, by either naming of its tensors; 0 where they are named otherwise."""
    return len({match[1] for key in weights if (match := re.search(r"\.encoder\.layer\.(\d+)\.", key))})
