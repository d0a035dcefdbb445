"""Captions of several batches side by side in one call of a backbone, each attending to its own caption alone.

Where padding counts all positions pass the layers, otherwise real tokens alone: padding is never computed.

N captions in a batch, L tokens, C captions of all batches, C' of them with a token, T tokens or positions that pass,
P positions of all batches, H backbone width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from nrccr.data.batch import TextBatch
from nrccr.models.fast import dropout

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # before torch 2.10
    varlen_attn = None  # type: ignore[assignment]

NAME = "nrccr_packed"  # of the attention, among transformers' own
MOST_WIDTH = 256  # of a head, that the varlen kernel takes
_FROM_ZERO = {"bert", "distilbert", "electra"}
_AFTER_PADDING = {"camembert", "roberta", "xlm-roberta"}  # positions begin after the padding id


class Span(NamedTuple):
    """Captions that attend together: how many, of what length, and which keys (N, 1, 1, L) are real; none: all are."""

    captions: int
    length: int
    keys: Tensor | None


@dataclass(frozen=True)
class Layout:
    """What passes the layers, in a flat order; make one with `all_positions` or `real_tokens`.

    Attributes:
        positions: (T,) of each in its caption, from 0.
        spans: who attends to whom: captions one after the other.
        places: (T,) of each among the P positions of all batches, one batch after the other; none: all of them.
        cells: (T,) of each among the positions of the only span, where this is padded although no padding passes the
            layers; none: spans are made of what passes.
        bounds: (C' + 1,) int32, with `cells`: where each caption with a token begins among the T, and T.
        order: (C,) captions of all batches in the order in which they pass, on the host; none: as they are.
        lengths: (C,) tokens or positions of each in that order, on the host.
    """

    positions: Tensor
    spans: Sequence[Span]
    places: Tensor | None = None
    cells: Tensor | None = None
    bounds: Tensor | None = None
    order: npt.NDArray[np.int64] | None = None
    lengths: npt.NDArray[np.int64] | None = None

    def take(self, rows: Tensor) -> Tensor:
        """Of something at each position of all batches (P, ...) what passes the layers (T, ...)."""
        return rows if self.places is None else rows.index_select(0, self.places)

    def put(self, states: Tensor, texts: Sequence[TextBatch]) -> list[Tensor]:
        """States (T, H) at the places of their tokens, for each batch (N, L, H); zeros at padding that did not pass."""
        sizes = [text.tokens.numel() for text in texts]
        if self.places is not None:
            states = states.new_zeros(sum(sizes), states.shape[1]).index_copy(0, self.places, states)  # (P, H)
        parts = zip(torch.split(states, sizes), texts, strict=True)
        return [part.reshape(*text.tokens.shape, states.shape[1]) for part, text in parts]


def all_positions(texts: Sequence[TextBatch]) -> Layout:
    """All positions, padding too; every batch is a span."""
    spans = [Span(len(text.tokens), text.tokens.shape[1], text.mask.bool()[:, None, None, :]) for text in texts]
    device = texts[0].tokens.device
    positions = [torch.arange(span.length, device=device).repeat(span.captions) for span in spans]
    return Layout(torch.cat(positions), spans)


def real_tokens(texts: Sequence[TextBatch], *, one_span: bool | None = None) -> Layout:
    """Real tokens alone, captions in order of length.

    Everything is computed on the host from the batches' lengths, so that no device is waited for.

    Args:
        texts: the batches.
        one_span: all captions in one padded span, which takes few launches; otherwise captions of one length are a
            span, without a mask. None: the first but on a processor.
    """
    device = texts[0].tokens.device
    counted = [text.counted() for text in texts]
    widths = np.repeat([text.tokens.shape[1] for text in texts], [len(own) for own in counted])  # (C,)
    lengths, starts = np.concatenate(counted), np.cumsum(widths) - widths  # (C,) each
    order = np.argsort(lengths, kind="stable")
    lengths, starts = lengths[order], starts[order]
    positions = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)  # (T,)
    longest, count = int(lengths.max(initial=0)), len(lengths)
    cells = np.repeat(np.arange(count) * longest, lengths) + positions
    own, places, cell = _moved(np.stack([positions, np.repeat(starts, lengths) + positions, cells]), device)
    if device.type != "cpu" if one_span is None else one_span:
        keys = torch.zeros(count * longest, dtype=torch.bool, device=device).index_fill(0, cell, True)
        spans = [Span(count, longest, keys.view(count, 1, 1, longest))]
        bounds = _moved(np.concatenate([[0], np.cumsum(lengths[lengths > 0])]).astype(np.int32), device)
        return Layout(own, spans, places, cell, bounds, order, lengths)
    groups = zip(*(found.tolist() for found in np.unique(lengths[lengths > 0], return_counts=True)), strict=True)
    spans = [Span(captions, length, None) for length, captions in groups]
    return Layout(own, spans, places, order=order, lengths=lengths)


def _moved(indices: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Indices on a device, which is not waited for."""
    made = torch.from_numpy(indices)
    return (made.pin_memory() if device.type == "cuda" else made).to(device, non_blocking=True)


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


def packed_states(backbone: PreTrainedModel, vectors: Tensor, layout: Layout) -> Tensor:
    """Last hidden states (T, H): one call of all layers.

    Args:
        backbone: one that packs.
        vectors: (T, width) word vectors of what passes.
        layout: what passes.
    """
    first = int(backbone.config.pad_token_id) + 1 if backbone.config.model_type in _AFTER_PADDING else 0
    states: Tensor = backbone(
        inputs_embeds=vectors.unsqueeze(0),  # (1, T, width)
        position_ids=(layout.positions + first).unsqueeze(0),  # (1, T)
        attention_mask=_passed_on(vectors),
        layout=layout,
    ).last_hidden_state
    return states.squeeze(0)


def _passed_on(vectors: Tensor) -> Tensor:
    """A mask of four dimensions, which transformers passes on unseen; attention reads the layout."""
    return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=vectors.device)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention within each caption: queries, keys, values (1, heads, T, width) -> (1, T, heads, width)."""
    if layout is None:
        attended: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return attended
    # Not [0], whose gradient is a copy among zeros.
    flat = [states.squeeze(0).transpose(0, 1) for states in (query, key, value)]  # each (T, heads, width)
    if layout.bounds is not None and has_varlen_kernel(query, options):
        longest, (queries, keys, values) = layout.spans[0].length, flat
        context: Any = varlen_attn(queries, keys, values, layout.bounds, layout.bounds, longest, longest)
        return context.unsqueeze(0), None
    sizes = [span.captions * span.length for span in layout.spans]
    if layout.cells is not None:
        flat = [states.new_zeros(sizes[0], *states.shape[1:]).index_copy(0, layout.cells, states) for states in flat]
    contexts = []  # of each span, from heads (N, heads, L, width)
    for span, *own in zip(layout.spans, *(torch.split(states, sizes) for states in flat), strict=True):
        queries, keys, values = (part.unflatten(0, (span.captions, span.length)).transpose(1, 2) for part in own)
        context = _attention(queries, keys, values, span.keys, options)
        contexts.append(context.transpose(1, 2).flatten(0, 1))  # (N L, heads, width)
    joined = torch.cat(contexts)  # (N L of all spans, heads, width)
    return (joined if layout.cells is None else joined.index_select(0, layout.cells)).unsqueeze(0), None


def has_varlen_kernel(query: Tensor, options: Mapping[str, Any]) -> bool:
    """Whether torch has a kernel that needs no padding: in half precision on a GPU since Ampere, without dropout.

    Its gradients are added up in any order, so that with gradients it is asked only where torch's own choice of kernels
    may take flash attention, see `distributed.make_deterministic`.

    Args:
        query: (1, heads, T, width).
        options: attention's, of which `dropout` and `scaling` are read.
    """
    width = query.shape[-1]
    return (
        varlen_attn is not None
        and query.device.type == "cuda"
        and query.dtype in (torch.bfloat16, torch.float16)
        and not options.get("dropout", 0.0)
        and (options.get("scaling") or width**-0.5) == width**-0.5  # no other was known to its first version
        and query.shape[-2] > 0
        and width % 8 == 0
        and width <= MOST_WIDTH
        and torch.backends.cuda.is_flash_attention_available()
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
        and (not query.requires_grad or bool(torch.backends.cuda.flash_sdp_enabled()))  # type: ignore[no-untyped-call]
    )


def _attention(query: Tensor, key: Tensor, value: Tensor, keys: Tensor | None, options: Mapping[str, Any]) -> Tensor:
    """Attention (N, heads, L, width) to the real keys (N, 1, 1, L), fused where torch has a kernel for it."""
    rate, scale = options.get("dropout", 0.0), options.get("scaling") or query.shape[-1] ** -0.5
    if not rate or query.device.type != "cpu":
        return functional.scaled_dot_product_attention(query, key, value, keys, rate, scale=scale)
    # With dropout there is none for processors. Scale and mask come with the product.
    shape = query.shape
    query, key, value = (states.flatten(0, 1) for states in (query, key, value))  # each (N heads, L, width)
    hidden = query.new_zeros(1, 1, 1)
    if keys is not None:
        hidden = torch.zeros_like(keys, dtype=query.dtype).masked_fill_(~keys, -torch.inf)  # (N, 1, 1, L)
        hidden = hidden.expand(-1, shape[1], -1, -1).flatten(0, 1)  # (N heads, 1, L)
    scores = torch.baddbmm(hidden, query, key.transpose(1, 2), alpha=scale)  # (N heads, L, L)
    return (dropout(scores.softmax(dim=-1), rate) @ value).reshape(shape)


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
