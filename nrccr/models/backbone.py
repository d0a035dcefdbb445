"""The multilingual backbone: configuration, weights, trainable layers, and its states.

N captions in the batch, L tokens, H backbone width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from nrccr.config.choices import Freeze
from nrccr.config.schema import Config
from nrccr.data.batch import TextBatch
from nrccr.errors import UserError, first_line, require_content
from nrccr.models.layers import evaluating
from nrccr.models.lower import cut, layers_of
from nrccr.models.masks import use_unseen_masks
from nrccr.models.packing import all_positions, packed_states, packs, real_tokens, use_packed_attention
from nrccr.models.pretrained import load_pretrained
from nrccr.models.statedicts import Trained, require_same_sizes
from nrccr.sizes import require_model_files

_POOLER = r"(.*\.)?pooler\."  # of a kind of model that cannot leave it out; only the last hidden states are read


def backbone_config(model: str, overrides: Mapping[str, int | float | str]) -> PretrainedConfig:
    """The backbone's configuration by name or folder, with single values replaced.

    Raises:
        UserError: no such model, or a value that its configuration does not have.
    """
    require_content(Path(model))
    try:
        require_model_files(model)
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    except Exception as error:  # whatever a damaged file can break
        reason = first_line(error)
        raise UserError(f"text.model={model}: no configuration there ({reason}); give a folder or hub name") from error
    for key, value in overrides.items():
        if not hasattr(config, key):
            raise UserError(f"text.backbone.{key}: {type(config).__name__} of {model} has no such value; remove it")
        if isinstance(value, int) and value < 0:
            raise UserError(f"text.backbone.{key}={value}: must not be negative")
        try:
            setattr(config, key, value)
        except Exception as error:  # transformers checks values with types of its own
            raise UserError(f"text.backbone.{key}={value}: {first_line(error)}") from error
    return config


def build_backbone(config: PretrainedConfig, pretrained: str | None) -> PreTrainedModel:
    """A transformers encoder without pooler, from random weights or from the weights of `pretrained`.

    Raises:
        UserError: no such weights, or some that the encoder needs are missing; a pooler's may be.
    """
    if pretrained is None:
        try:
            made: PreTrainedModel = _without_pooler(AutoModel.from_config, config, dtype=torch.float32)
        except Exception as error:  # whatever a configuration can break
            raise UserError(
                f"text.model, text.backbone: no encoder can be built ({first_line(error)}); give other sizes"
            ) from error
        return _attending(made)

    def load(model: str, **options: Any) -> Any:
        return _without_pooler(AutoModel.from_pretrained, model, config=config, dtype=torch.float32, **options)

    loaded = load_pretrained(load, pretrained, "text", unused=_POOLER)
    return _attending(loaded)


def _attending(backbone: PreTrainedModel) -> PreTrainedModel:
    """An encoder, with the attention that suits its kind."""
    use_packed_attention(backbone)
    use_unseen_masks(backbone)
    return backbone


def configured_backbone(config: Config, trained: Trained | None = None) -> PreTrainedModel:
    """The backbone that a configuration describes.

    Args:
        config: the run's configuration; `text.model` is a hub name or a folder.
        trained: weights that will replace the backbone's: it then begins from random ones.

    Raises:
        UserError: as backbone_config and build_backbone; a backbone of other sizes than the trained one.
    """
    described = backbone_config(config.text.model, config.text.backbone)
    if trained is not None:
        require_same_sizes(described, trained, config.text.model)
    pretrained = config.text.pretrained and trained is None
    return build_backbone(described, pretrained=config.text.model if pretrained else None)


def _without_pooler(make: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    try:
        return make(*arguments, add_pooling_layer=False, trust_remote_code=False, **options)
    except TypeError:  # a model without the option
        return make(*arguments, trust_remote_code=False, **options)


def freeze_backbone(backbone: nn.Module, mode: Freeze, trainable_layers: Sequence[int]) -> None:
    """Switch off the gradients of the layers that do not train; with "frozen" the embeddings never do.

    Args:
        backbone: a BERT-like encoder, its layers named `encoder.layer.<i>`, `transformer.layer.<i>` or `layers.<i>`.
        mode: "frozen" trains only `trainable_layers`, "all_frozen" nothing, "none" everything.
        trainable_layers: 0-based numbers, matched as whole names.

    Raises:
        UserError: a layer that the backbone does not have.
    """
    if mode == "none":
        return
    backbone.requires_grad_(False)
    if mode == "all_frozen":
        return
    found = layers_of(backbone)
    if found is None:
        raise UserError("text.freeze=frozen: this backbone's layers have unknown names; use none or all_frozen")
    _, layers = found
    for index in trainable_layers:
        if not 0 <= index < len(layers):
            raise UserError(
                f"text.trainable_layers: layer {index} does not exist, the backbone has layers 0 to {len(layers) - 1}; "
                "name other layers or set text.freeze=none"
            )
        layers[index].requires_grad_(True)


def backbone_states(backbone: PreTrainedModel, texts: Sequence[TextBatch], *, real_only: bool = False) -> list[Tensor]:
    """Last hidden states (N, L, H) of several batches, each at its own padded length.

    Where some bring the states of frozen layers, these layers are not computed for them. For the others, such as masked
    views, they are, without dropout too: all captions of a step are treated alike.

    Args:
        backbone: an encoder.
        texts: the batches.
        real_only: nobody reads states at padding, and no padding passes a backbone that packs.
    """
    if all(text.lower is None for text in texts):
        return _states_of(backbone, texts, real_only=real_only)
    lower, upper, _ = cut(backbone)
    others = [text for text in texts if text.lower is None]
    computed = iter(lower_states(lower, others) if others else [])
    below = [next(computed) if text.lower is None else text.lower.padded() for text in texts]  # each (N, L, H)
    if upper is None:
        return below
    layout = real_tokens(texts)
    flat = layout.take(torch.cat([part.flatten(0, 1) for part in below]))  # (T, H)
    return layout.put(packed_states(upper, flat, layout), texts)


def lower_states(lower: PreTrainedModel, texts: Sequence[TextBatch]) -> list[Tensor]:
    """States (N, L, H) of the lower part of a backbone, without dropout and gradients; see nrccr.models.lower."""
    with evaluating(lower):
        return _states_of(lower, texts, real_only=True)


def _states_of(backbone: PreTrainedModel, texts: Sequence[TextBatch], *, real_only: bool) -> list[Tensor]:
    """Last hidden states from token ids; zeros at padding that does not pass.

    The word embeddings of all are looked up at once: the gradient of a trainable table of 100,000 words is dense, and
    one is enough.
    """
    ids = torch.cat([text.tokens.flatten() for text in texts])  # (all positions,)
    table = backbone.get_input_embeddings()
    if packs(backbone):
        layout = real_tokens(texts) if real_only else all_positions(texts)
        return layout.put(packed_states(backbone, table(layout.take(ids)), layout), texts)
    parts = table(ids).split([text.tokens.numel() for text in texts])  # each (positions, width)
    shaped = [part.reshape(*text.tokens.shape, part.shape[-1]) for part, text in zip(parts, texts, strict=True)]
    return [
        backbone(inputs_embeds=part, attention_mask=text.mask.long()).last_hidden_state
        for part, text in zip(shaped, texts, strict=True)
    ]
