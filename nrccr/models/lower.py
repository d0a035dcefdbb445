"""A backbone cut in two: the embeddings and layers below the first that trains, and the layers above them.

What the lower part gives of a caption is the same in every epoch: nrccr.features.text_cache keeps it.
H backbone width.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple, TypeVar

from torch import Tensor, nn
from transformers import PreTrainedModel

from nrccr.errors import UserError
from nrccr.models.packing import packs

Module = TypeVar("Module", bound=nn.Module)


class Cut(NamedTuple):
    """Both parts of a backbone, made of its own modules.

    Attributes:
        lower: embeddings and frozen layers, token ids -> states.
        upper: the layers above, states -> states; none where nothing trains.
        frozen: how many layers the lower part has.
    """

    lower: PreTrainedModel
    upper: PreTrainedModel | None
    frozen: int


def layers_of(backbone: nn.Module) -> tuple[str, nn.ModuleList] | None:
    """A BERT-like encoder's layers and their name; none where they have unknown names."""
    for name, module in backbone.named_modules():
        if isinstance(module, nn.ModuleList) and name.endswith(("layer", "layers")):
            return name, module
    return None


def cut(backbone: PreTrainedModel) -> Cut:
    """Cut a backbone below the first layer that trains.

    Raises:
        UserError: its embeddings train, or its layers cannot be computed apart.
    """
    found = layers_of(backbone)
    if not any(parameter.requires_grad for parameter in backbone.parameters()):
        return Cut(backbone, None, 0 if found is None else len(found[1]))
    if found is None or not packs(backbone):
        raise UserError(
            f"text.cache: the layers of a {backbone.config.model_type} cannot be computed apart from each other; set "
            "text.freeze=all_frozen, or text.cache=null"
        )
    name, layers = found
    trains = [any(parameter.requires_grad for parameter in layer.parameters()) for layer in layers]
    first = trains.index(True) if True in trains else len(layers)
    lower, upper = _part(backbone, name, layers[:first]), _part(backbone, name, layers[first:])
    if any(parameter.requires_grad for parameter in lower.parameters()):
        raise UserError("text.cache: the embeddings of the backbone train; set text.freeze=frozen, or text.cache=null")
    upper._modules["embeddings"] = _Given()
    upper._modules.pop("embeddings_project", None)  # ELECTRA's, a part of its embeddings
    return Cut(lower, upper, first)


class _Given(nn.Module):
    """In the place of embeddings: what a call gives."""

    def forward(self, input_ids: None = None, inputs_embeds: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
        """The states (1, positions, H) themselves."""
        assert inputs_embeds is not None
        return inputs_embeds


def _part(backbone: PreTrainedModel, name: str, layers: nn.ModuleList) -> PreTrainedModel:
    """The backbone with some of its layers alone."""
    parent, _, own = name.rpartition(".")
    made, encoder = _shallow(backbone), _shallow(backbone.get_submodule(parent))
    encoder._modules[own] = layers
    made._modules[parent] = encoder
    return made


def _shallow(module: Module) -> Module:
    """A copy whose modules can be exchanged; they, and all weights, are the module's own."""
    made = copy.copy(module)
    made._modules = dict(module._modules)
    return made
