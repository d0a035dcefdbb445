"""The language discriminator: which language are these backbone states?

N captions, L tokens, H backbone width, C logits (two in the released reading, one in the paper's). Convolutions run
over one row of R positions, in which T of the batch's N L stand, one caption after the other; W channels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from nrccr.config.choices import Pooling, Strength
from nrccr.models.fast import linear
from nrccr.models.layers import mean_over_positions

CHANNELS = 128
REACH = 2  # positions on each side of its own that a convolution reads
SHARE = 0.3  # of a block's convolutions beside its skip connection


@dataclass(frozen=True)
class CaptionRow:
    """Captions in one row, REACH empty positions before, between and behind them; make one with `in_a_row`.

    Attributes:
        counted: (1, 1, R) 1 at positions that count, 0 elsewhere.
        places: (T,) where in the row each position stands.
        own: (T,) where among the batch's N L each of them comes from; none: all of these stand in the row, in order.
        starts: (N,) where in the row each caption begins.
        lengths: (N,) how many of its positions count.
        length: L, of the batch.
    """

    counted: Tensor
    places: Tensor
    own: Tensor | None
    starts: Tensor
    lengths: Tensor
    length: int

    def put(self, states: Tensor) -> Tensor:
        """States at what `taken` gives (T, W) -> (1, W, R), zero between captions."""
        row = states.new_zeros(self.counted.shape[2], states.shape[1]).index_copy(0, self.places, states)
        return row.t().contiguous().unsqueeze(0)

    def taken(self, states: Tensor) -> Tensor:
        """Of the batch's states (N, L, W) those that stand in the row, (T, W)."""
        flat = states.flatten(0, 1)
        return flat if self.own is None else flat.index_select(0, self.own)

    def silence(self, row: Tensor) -> Tensor:
        """A row (1, W, R) with zeros where nothing counts."""
        return row * self.counted.to(row.dtype)

    def total(self, row: Tensor) -> Tensor:
        """The sum over each caption's positions of a silenced row (1, W, R) -> (N, W)."""
        if self.own is None:
            spans = row[0, :, REACH:].reshape(row.shape[1], len(self.lengths), self.length + REACH)  # (W, N, L + 2)
            return spans.sum(dim=2).t()
        rows = row[0].t().index_select(0, self.places)  # (T, W)
        whole = rows.new_zeros(len(self.lengths) * self.length, rows.shape[1]).index_copy(0, self.own, rows)
        return whole.reshape(len(self.lengths), self.length, whole.shape[1]).sum(dim=1)

    def shifted_totals(self, row: Tensor) -> Tensor:
        """What each of a convolution's taps reads of a silenced row (1, W, R), summed over captions: (N, W, 5).

        The tap that reads two positions ahead meets all of a caption but its first two, and so on. Of a caption shorter
        than two the positions left out are empty ones around it. Written out for a REACH of two.
        """
        total = self.total(row)
        ends = self.starts + self.lengths
        edges = torch.cat([self.starts, self.starts + 1, ends - 1, ends - 2])
        first, second, last, before = row[0].t().index_select(0, edges).chunk(4)  # (N, W) each
        return torch.stack([total - last - before, total - last, total, total - first, total - first - second], dim=2)


def in_a_row(mask: Tensor, pooling: Pooling, *, real_only: bool | None = None) -> CaptionRow:
    """Where captions with a token mask (N, L), padded at the end, stand in a row; one without a token takes no place.

    Args:
        mask: true or 1 at real tokens.
        pooling: "padded" counts all positions, "masked" real tokens.
        real_only: whether under "masked" nothing but real tokens stands in the row. None: on a processor alone, since
            another device would have to be waited for until their number is known.

    Raises:
        ValueError: with nothing but real tokens, where a caption is not padded at its end.
    """
    count, length = mask.shape
    counts = mask.bool() if pooling == "masked" else torch.ones_like(mask, dtype=torch.bool)
    lengths = counts.sum(dim=1)  # (N,)
    if pooling == "masked" and (mask.device.type == "cpu" if real_only is None else real_only):
        if not torch.equal(counts, torch.arange(length, device=mask.device) < lengths[:, None]):
            raise ValueError("the mask has padding before a token; captions are padded at their end")
        starts = REACH + (lengths + REACH).cumsum(0) - (lengths + REACH)
        width, own = int(lengths.sum()) + REACH * (count + 1), counts.flatten().nonzero().squeeze(1)
    else:
        starts = REACH + torch.arange(count, device=mask.device) * (length + REACH)
        width, own = count * (length + REACH) + REACH, None
    places = (starts[:, None] + torch.arange(length, device=mask.device)).flatten()  # (N L,)
    shown = counts.flatten()
    if own is not None:
        places, shown = places[own], shown[own]
    counted = torch.zeros(width, device=mask.device).index_copy(0, places, shown.float())
    return CaptionRow(counted.view(1, 1, -1), places, own, starts, lengths, length)


class ResidualConvolution(nn.Module):
    """relu(x) + 0.3 conv(relu(conv(relu(x)))), kernels of five positions.

    The published block's first ReLU works in place, so its skip connection carries relu(x), not x.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(CHANNELS, CHANNELS, kernel_size=2 * REACH + 1, padding=REACH)
        self.second = nn.Conv1d(CHANNELS, CHANNELS, kernel_size=2 * REACH + 1, padding=REACH)

    def forward(self, states: Tensor, row: CaptionRow) -> Tensor:
        """States (1, 128, R) -> (1, 128, R); what does not count is silenced before each convolution."""
        start, inner = self._inner(states, row)
        changed: Tensor = self.second(inner)
        return start + SHARE * changed

    def mean(self, states: Tensor, row: CaptionRow) -> Tensor:
        """The mean of `forward` over each caption's positions that count: (1, 128, R) -> (N, 128).

        A convolution is linear, so that its mean is that of what its taps read: one product a caption in place of one
        a position.
        """
        start, inner = (part.to(torch.promote_types(part.dtype, torch.float32)) for part in self._inner(states, row))
        lengths = row.lengths.to(start.dtype)[:, None]  # (N, 1)
        read = row.shifted_totals(inner).flatten(1)  # (N, 128 x 5)
        assert self.second.bias is not None
        changed = functional.linear(read, self.second.weight.flatten(1)) + lengths * self.second.bias
        return (row.total(start) + SHARE * changed) / lengths.clamp(min=1)

    def _inner(self, states: Tensor, row: CaptionRow) -> tuple[Tensor, Tensor]:
        """relu(x) and relu(conv(relu(x))), silenced, (1, 128, R) each."""
        start = row.silence(functional.relu(states))
        return start, row.silence(functional.relu(self.first(start)))


class Discriminator(nn.Module):
    """Backbone states (N, L, H) -> logits (N, C), averaged over positions after its layers.

    Args:
        width: backbone width H.
        strength: "weak" one linear layer; "not-so-weak" H-256-128-C with tanh; "strong" convolutions along positions.
        logits: C.
        pooling: "padded" averages over the padded width (released), "masked" over real tokens, which also keeps
            padding out of the convolutions.
    """

    def __init__(self, width: int, strength: Strength, logits: int = 2, pooling: Pooling = "padded") -> None:
        super().__init__()
        self.pooling = pooling
        self.strength = strength
        if strength == "strong":
            self.reduce = nn.Conv1d(width, CHANNELS, kernel_size=1)
            self.convolutions = nn.ModuleList(ResidualConvolution() for _ in range(3))
            self.classify: nn.Module = nn.Linear(CHANNELS, logits)
        elif strength == "not-so-weak":
            self.classify = nn.Sequential(
                nn.Linear(width, 256), nn.Tanh(), nn.Linear(256, 128), nn.Tanh(), nn.Linear(128, logits)
            )
        else:
            self.classify = nn.Linear(width, logits)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Backbone states (N, L, H) with their token mask (N, L), padded at the end -> logits (N, C)."""
        if self.strength != "strong":
            return mean_over_positions(self.classify(states), mask, self.pooling)  # (N, L, C) -> (N, C)
        row = in_a_row(mask, self.pooling)
        # A convolution of one position is a linear layer.
        hidden = row.put(linear(row.taken(states), self.reduce.weight.squeeze(2), self.reduce.bias))  # (1, 128, R)
        *others, last = cast("Iterable[ResidualConvolution]", self.convolutions)
        for convolution in others:
            hidden = convolution(hidden, row)
        logits: Tensor = self.classify(last.mean(hidden, row))  # of (N, 128)
        return logits
