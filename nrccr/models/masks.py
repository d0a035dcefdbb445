"""Attention masks that are made without a look at their values, for which a device would have to wait."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "nrccr_unseen"  # of torch's attention with such masks, among transformers' own


def use_unseen_masks(backbone: PreTrainedModel) -> None:
    """Let an encoder with torch's attention keep its mask where nothing is padded; transformers looks, to drop it.

    Encoders without torch's attention (MPNet, XLM and a few others) stay as they are: each of their calls waits.
    """
    if backbone.config._attn_implementation == "sdpa":
        backbone.set_attn_implementation(NAME)


def _mask(**options: Any) -> Tensor | None:
    made: Tensor | None = sdpa_mask(**options | {"allow_is_bidirectional_skip": False})
    return made


AttentionInterface.register(NAME, sdpa_attention_forward)
AttentionMaskInterface.register(NAME, _mask)
