"""State dicts of MLCMR's published checkpoints -> ours.

Every width comes from the tensors. The options say how it was trained; the scenario is among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from nrccr.config.choices import Pooling
from nrccr.config.schema import Config
from nrccr.config.yaml import Layer
from nrccr.errors import UserError
from nrccr.models.statedicts import MAPPING, PARTS, State, is_state, load_parts, rename, without_unused
from nrccr.systems.mlcmr.network import KERNELS, MLCMR
from nrccr.systems.settings import build_config

_VISUAL = [("rnn.", "gru."), ("convs1.", "convolutions.")]
_TEXT = [("text_bert.text_bert.", "backbone.")]


@dataclass(frozen=True)
class PublishedMLCMR:
    """A published checkpoint as ours.

    Attributes:
        path: where it came from.
        options: the published options, plain data; `train_mode` and `label_situation` name the scenario.
        visual, text, map_visual, map_text: weights by our names.
    """

    path: Path
    options: dict[str, Any]
    visual: State
    text: State
    map_visual: State
    map_text: State

    def config(self, overrides: Sequence[str]) -> Config:
        """What it was trained with, as far as a test needs it.

        The scenario decides how a test mixes scores: 0.85 of the query itself where both languages are human, 0.55
        elsewhere.
        """
        options = self.options
        mode = "unparallel" if options.get("train_mode") == "unparallel" else "parallel"
        human = mode == "parallel" and options.get("label_situation", "human_label") == "human_label"
        collections = options.get("collections_pathname")
        trained = {
            "model": "mlcmr",
            "data": {
                "collection": collections.get("train", "vatex") if isinstance(collections, dict) else "vatex",
                "target": options.get("target_language", "zh"),
                "scenario": mode if human or mode == "unparallel" else "translate",
                "feature": options.get("visual_feature"),
            },
            "text": {"pretrained": False, "max_tokens": 512},
            "visual": {
                "gru": self.visual["gru.weight_hh_l0"].shape[1],
                "maps": len(self.visual["convolutions.0.weight"]),
            },
            "joint": {"width": len(self.map_text["linear.weight"])},
            "evaluation": {"target_weight": 0.85 if human else 0.55},
        }
        return build_config([Layer(str(self.path), trained)], overrides)

    @property
    def feature_width(self) -> int:
        """Width of the frame features it was trained on."""
        return self.visual["gru.weight_ih_l0"].shape[1]

    def network(self, backbone: PreTrainedModel, pooling: Pooling = "padded") -> MLCMR:
        """The whole network with the checkpoint's weights.

        Args:
            backbone: of the checkpoint's architecture, see build_backbone; its weights are replaced.
            pooling: "padded" is what the checkpoint was trained with.

        Raises:
            UserError: weights that do not fit the backbone or one another.
        """
        network = MLCMR(
            backbone,
            self.feature_width,
            joint=len(self.map_text["linear.weight"]),
            gru=self.visual["gru.weight_hh_l0"].shape[1],
            maps=len(self.visual["convolutions.0.weight"]),
            pooling=pooling,
        )
        load_parts(network, {name: getattr(self, name) for name in PARTS}, self.path)
        return network


def is_mlcmr(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a loaded checkpoint is one of MLCMR's: its first part holds a GRU."""
    parts = checkpoint.get("model")
    first = parts[0] if isinstance(parts, list) and parts else None
    return isinstance(first, dict) and any(str(key).removeprefix("module.").startswith("rnn.") for key in first)


def read_mlcmr(path: Path, checkpoint: Mapping[str, Any]) -> PublishedMLCMR:
    """Interpret a loaded checkpoint (see nrccr.safeload) of the published MLCMR code.

    Args:
        path: where it came from, for messages.
        checkpoint: plain data and tensors, options as a dict.

    Raises:
        UserError: not such a checkpoint.
    """
    parts, options = checkpoint.get("model"), checkpoint.get("opt")
    whole = isinstance(parts, list) and len(parts) == 4 and all(map(is_state, parts))
    if not isinstance(parts, list) or not whole or not isinstance(options, dict):
        raise UserError(f"{path}: not an MLCMR checkpoint (it needs a list of four state dicts, `model`, and `opt`)")
    visual, text, map_visual, map_text = (
        {key.removeprefix("module."): value for key, value in part.items()} for part in parts
    )
    _require_shapes(path, visual, map_text)
    visual = {key: _as_sequence(value) if key.startswith("convs1.") else value for key, value in visual.items()}
    return PublishedMLCMR(
        path=path,
        options=options,
        visual=rename(visual, _VISUAL, path),
        text=without_unused(rename(text, _TEXT, path)),
        map_visual=rename(map_visual, MAPPING, path),
        map_text=rename(map_text, MAPPING, path),
    )


def _require_shapes(path: Path, visual: State, map_text: State) -> None:
    """What widths are read from must be there, with as many dimensions as a width is looked for in."""
    convolutions = [(visual, f"convs1.{place}.weight", 4) for place in range(len(KERNELS))]
    matrices = [(visual, "rnn.weight_ih_l0", 2), (visual, "rnn.weight_hh_l0", 2), (map_text, "mapping.fc1.weight", 2)]
    for state, key, dimensions in [*matrices, *convolutions]:
        if key not in state or state[key].ndim != dimensions or not state[key].numel():
            raise UserError(f"{path}: lacks the tensor {key} of {dimensions} dimensions; not a checkpoint of MLCMR")


def _as_sequence(weight: Tensor) -> Tensor:
    """A kernel (M, 1, frames, channels) over an image of frames -> (M, channels, frames) over a sequence."""
    return weight.squeeze(1).transpose(1, 2) if weight.ndim == 4 else weight
