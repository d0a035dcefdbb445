"""Projection and attention block, shared by NRCCR's text and visual branch.

N sequences in the batch, L positions, Q query positions, K key positions, W width, H heads.
Masks are true (or 1) at real positions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from nrccr.config.choices import AttentionMask, AttentionScale
from nrccr.config.limits import QUERY_KEY_WIDTH


def additive_mask(query_mask: Tensor, key_mask: Tensor, kind: AttentionMask) -> Tensor:
    """Added to attention scores: 0 where a query may attend, -10000 elsewhere, (N, 1, Q, K).

    "outer" is the released reading: the outer product of both masks, so that a padded query's row is shifted
    as a whole and attends to everything, padding included. "key" hides padded keys from every query.
    """
    keys = key_mask.float()[:, None, None, :]  # (N, 1, 1, K)
    allowed = query_mask.float()[:, None, :, None] * keys if kind == "outer" else keys
    return (1.0 - allowed) * -10000.0


class Projection(nn.Module):
    """Input states -> LayerNorm -> dropout -> Linear -> ReLU -> + learned position -> LayerNorm -> dropout.

    Args:
        inputs: width of the input states.
        width: width of the output.
        positions: the number of position vectors, the longest sequence.
    """

    def __init__(self, inputs: int, width: int, positions: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.input_norm = nn.LayerNorm(inputs)
        self.linear = nn.Linear(inputs, width)
        self.positions = nn.Embedding(positions, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        """States (N, L, inputs) -> (N, L, W)."""
        hidden = functional.relu(self.linear(self.dropout(self.input_norm(states))))  # (N, L, W)
        hidden = hidden + self.positions.weight[: hidden.shape[1]]
        projected: Tensor = self.dropout(self.norm(hidden))
        return projected


class Heads(NamedTuple):
    """Queries and keys (N, H, L, 512 / H) and values (N, H, L, W / H) of the same states."""

    query: Tensor
    key: Tensor
    value: Tensor


class AttentionBlock(nn.Module):
    """Multi-head attention with residual and LayerNorm; one set of weights serves self- and cross-attention.

    Queries and keys project to 512 in all, values to the full width. Released: no feed-forward sub-layer, scores
    divided by sqrt(W / H). Paper: a feed-forward sub-layer, scores divided by the root of a head's key width.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        mask: AttentionMask = "outer",
        scale: AttentionScale = "value_width",
        feed_forward: bool = False,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.mask = mask
        self.scale = math.sqrt((width if scale == "value_width" else QUERY_KEY_WIDTH) / heads)
        self.query = nn.Linear(width, QUERY_KEY_WIDTH)
        self.key = nn.Linear(width, QUERY_KEY_WIDTH)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.feed_forward = FeedForward(width, dropout) if feed_forward else None

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Self-attention with residual: states (N, L, W), mask (N, L) -> (N, L, W)."""
        return self.attend(states, mask, self.heads_of(states))

    def heads_of(self, states: Tensor) -> Heads:
        """Queries, keys and values of states (N, L, W); computed once where self- and cross-attention both use them."""
        return Heads(*(self._split(project(states)) for project in (self.query, self.key, self.value)))

    def attend(self, states: Tensor, mask: Tensor, heads: Heads) -> Tensor:
        """Self-attention with residual, from `heads_of(states)`: (N, L, W)."""
        return self._finish(self.norm(self._mix(heads.query, mask, heads, mask) + states))

    def cross(self, queries: Heads, query_mask: Tensor, keys: Heads, key_mask: Tensor) -> Tensor:
        """Cross-attention without residual: queries of Q positions attend to K positions -> (N, Q, W)."""
        return self._finish(self.norm(self._mix(queries.query, query_mask, keys, key_mask)))

    def weights(self, query: Tensor, query_mask: Tensor, key: Tensor, key_mask: Tensor) -> Tensor:
        """Attention of Q positions to K positions (N, H, Q, K), before dropout; each row's sum is 1."""
        # Scores and softmax in float32 in any precision: -10000 swallows the digits of a bfloat16 score.
        scores = (query @ key.transpose(-1, -2)).float() / self.scale  # (N, H, Q, K)
        return (scores + additive_mask(query_mask, key_mask, self.mask)).softmax(dim=-1)

    def _mix(self, query: Tensor, query_mask: Tensor, keys: Heads, key_mask: Tensor) -> Tensor:
        weights = self.dropout(self.weights(query, query_mask, keys.key, key_mask))  # (N, H, Q, K)
        context = (weights.to(keys.value.dtype) @ keys.value).transpose(1, 2).flatten(2)  # (N, Q, W)
        mixed: Tensor = self.dropout(self.output(context))
        return mixed

    def _split(self, states: Tensor) -> Tensor:
        heads = states.reshape(*states.shape[:-1], self.heads, states.shape[-1] // self.heads)  # (N, L, H, its width)
        return heads.transpose(1, 2)  # (N, H, L, width of a head)

    def _finish(self, states: Tensor) -> Tensor:
        if self.feed_forward is None:
            return states
        forwarded: Tensor = self.feed_forward(states)
        return forwarded


class FeedForward(nn.Module):
    """The transformer's feed-forward sub-layer with residual and LayerNorm (paper reading only), four times as wide."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(width, 4 * width)
        self.outer = nn.Linear(4 * width, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        """States (N, L, W) -> (N, L, W)."""
        forwarded: Tensor = self.norm(states + self.dropout(self.outer(functional.relu(self.inner(states)))))
        return forwarded
