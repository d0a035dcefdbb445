"""The text side of a CLIP or SigLIP, whose vectors lie in one space with those of its visual side.

N captions in the batch, L tokens, D width of a vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
import transformers
from torch import Tensor
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel

from nrccr.data.batch import TextBatch
from nrccr.errors import UserError, first_line
from nrccr.models.pretrained import load_pretrained


@dataclass(frozen=True)
class Tower:
    """What is known of a kind of text side.

    Attributes:
        build: the class of transformers.
        vector: its output that is the caption's vector.
        whole: whether it reads all its positions, padded ones too, as it was trained.
    """

    build: str
    vector: str
    whole: bool


_CLIP = Tower("CLIPTextModelWithProjection", "text_embeds", whole=False)
_SIGLIP = Tower("SiglipTextModel", "pooler_output", whole=True)
_SIGLIP2 = Tower("Siglip2TextModel", "pooler_output", whole=True)
# By the model_type of its configuration.
TOWERS: Mapping[str, Tower] = {
    "clip_text_model": _CLIP,
    "siglip_text_model": _SIGLIP,
    "siglip2_text_model": _SIGLIP2,
}


def build_tower(config: PretrainedConfig, pretrained: str | None) -> PreTrainedModel:
    """The text side of a configuration, from random weights or from those of `pretrained`.

    Raises:
        UserError: no such weights, some that are missing, or a configuration that no model can be built from.
    """
    make = getattr(transformers, TOWERS[config.model_type].build)
    if pretrained is None:
        try:
            made: PreTrainedModel = make(config).float()
        except Exception as error:  # whatever a configuration can break
            raise UserError(
                f"text.model: no encoder can be built ({first_line(error)}); give another config.json"
            ) from error
        return made
    return load_pretrained(partial(make.from_pretrained, dtype=torch.float32), pretrained, "text")


def tower_vectors(model: PreTrainedModel, text: TextBatch, pad: int) -> Tensor:
    """Vectors (N, D) of captions, not of unit length; `pad` is the tokeniser's padding."""
    tower = TOWERS[model.config.model_type]
    tokens, mask = text.tokens, text.mask.long()  # (N, L)
    if tower.whole:
        missing = int(model.config.max_position_embeddings) - tokens.shape[1]
        tokens = functional.pad(tokens, (0, missing), value=pad)
        out = model(input_ids=tokens)
    else:
        out = model(input_ids=tokens, attention_mask=mask)
    return getattr(out, tower.vector)  # type: ignore[no-any-return]
