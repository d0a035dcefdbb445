"""Captions of several batches side by side in one call of a backbone, each attending to its own caption alone.

N captions in a batch, L tokens, T positions of all batches, H backbone width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from nrccr.data.batch import TextBatch
from nrccr.models.fast import dropout

NAME = "nrccr_packed"  # of the attention, among transformers' own
_FROM_ZERO = {"bert", "distilbert", "electra"}
_AFTER_PADDING = {"camembert", "roberta", "xlm-roberta"}  # positions begin after the padding id


class _Span(NamedTuple):
    """Where a batch lies among all positions: N captions of L, and which keys (N, 1, 1, L) are real."""

    captions: int
    length: int
    keys: Tensor


def packs(backbone: PreTrainedModel) -> bool:
    """Whether a backbone takes several batches in one call, see use_packed_attention."""
    return bool(backbone.config._attn_implementation == NAME)


def use_packed_attention(backbone: PreTrainedModel) -> None:
    """Let an encoder with absolute positions attend as `packed_states` needs it; other calls of it attend as before."""
    config = backbone.config
    if config.model_type in _FROM_ZERO | _AFTER_PADDING and not getattr(config, "is_decoder", False):
        backbone.set_attn_implementation(NAME)


def attention_mask(backbone: PreTrainedModel, mask: Tensor) -> Tensor:
    """The mask (N, L) in the form that a call of a backbone takes.

    A backbone that packs gets four dimensions, (N, 1, 1, L): transformers looks at the values of others, for which a
    device must wait.
    """
    return mask.bool()[:, None, None, :] if packs(backbone) else mask.long()


def packed_states(backbone: PreTrainedModel, words: Tensor, texts: Sequence[TextBatch]) -> list[Tensor]:
    """Last hidden states (N, L, H) of several batches; they pass all layers together, without the padding in between.

    Args:
        backbone: one that packs.
        words: (T, width) word vectors of all batches, one after the other.
        texts: the batches.
    """
    first = int(backbone.config.pad_token_id) + 1 if backbone.config.model_type in _AFTER_PADDING else 0
    spans = [_Span(len(text.tokens), text.tokens.shape[1], attention_mask(backbone, text.mask)) for text in texts]
    positions = [torch.arange(first, first + span.length, device=words.device).repeat(span.captions) for span in spans]
    states = backbone(
        inputs_embeds=words.unsqueeze(0),  # (1, T, width)
        position_ids=torch.cat(positions).unsqueeze(0),  # (1, T)
        attention_mask=spans[0].keys,  # a mask of four dimensions is passed on unseen; attention reads the spans
        spans=spans,
    ).last_hidden_state[0]  # (T, H)
    parts = states.split([span.captions * span.length for span in spans])
    return [part.reshape(span.captions, span.length, part.shape[-1]) for part, span in zip(parts, spans, strict=True)]


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    spans: Sequence[_Span] | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention within each caption: queries, keys, values (1, heads, T, width) -> (1, T, heads, width)."""
    if spans is None:
        attended: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return attended
    sizes = [span.captions * span.length for span in spans]
    parts = zip(spans, *(torch.split(states[0], sizes, dim=1) for states in (query, key, value)), strict=True)
    contexts = []  # of each batch, from heads (N, heads, L, width)
    for span, *own in parts:
        queries, keys, values = (part.unflatten(1, (span.captions, span.length)).transpose(0, 1) for part in own)
        context = _attention(queries, keys, values, span.keys, options)
        contexts.append(context.transpose(1, 2).flatten(0, 1))  # (N L, heads, width)
    return torch.cat(contexts).unsqueeze(0), None


def _attention(query: Tensor, key: Tensor, value: Tensor, keys: Tensor, options: Mapping[str, Any]) -> Tensor:
    """Attention (N, heads, L, width) to the real keys (N, 1, 1, L), fused where torch has a kernel for it."""
    rate, scale = options.get("dropout", 0.0), options.get("scaling") or query.shape[-1] ** -0.5
    if not rate or query.device.type != "cpu":
        return functional.scaled_dot_product_attention(query, key, value, keys, rate, scale=scale)
    # With dropout there is none for processors. Scale and mask come with the product.
    shape = query.shape
    query, key, value = (states.flatten(0, 1) for states in (query, key, value))  # each (N heads, L, width)
    hidden = torch.zeros_like(keys, dtype=query.dtype).masked_fill_(~keys, -torch.inf)  # (N, 1, 1, L)
    hidden = hidden.expand(-1, shape[1], -1, -1).flatten(0, 1)  # (N heads, 1, L)
    scores = torch.baddbmm(hidden, query, key.transpose(1, 2), alpha=scale)  # (N heads, L, L)
    return (dropout(scores.softmax(dim=-1), rate) @ value).reshape(shape)


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
