"""The language discriminator: which language are these backbone states?

N captions, L tokens, H backbone width, C logits (two in the released reading, one in the paper's).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from nrccr.config.choices import Pooling, Strength
from nrccr.models.layers import mean_over_positions

CHANNELS = 128


class ResidualConvolution(nn.Module):
    """relu(x) + 0.3 conv(relu(conv(relu(x)))), kernels of five positions.

    The published block's first ReLU works in place, so its skip connection carries relu(x), not x.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(CHANNELS, CHANNELS, kernel_size=5, padding=2)
        self.second = nn.Conv1d(CHANNELS, CHANNELS, kernel_size=5, padding=2)

    def forward(self, states: Tensor, keep: Tensor | None) -> Tensor:
        """States (N, 128, L) -> (N, 128, L); `keep` (N, 1, L) silences padding before each convolution."""
        start = _silence(functional.relu(states), keep)
        changed: Tensor = self.second(_silence(functional.relu(self.first(start)), keep))
        return start + 0.3 * changed


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
        """Backbone states (N, L, H) with their token mask (N, L) -> logits (N, C)."""
        if self.strength != "strong":
            return mean_over_positions(self.classify(states), mask, self.pooling)  # (N, L, C) -> (N, C)
        keep = mask.to(states.dtype).unsqueeze(1) if self.pooling == "masked" else None  # (N, 1, L)
        hidden = self.reduce(states.transpose(1, 2))  # (N, 128, L)
        for convolution in self.convolutions:
            hidden = convolution(hidden, keep)
        pooled = mean_over_positions(hidden.transpose(1, 2), mask, self.pooling)  # (N, 128)
        logits: Tensor = self.classify(pooled)
        return logits


def _silence(states: Tensor, keep: Tensor | None) -> Tensor:
    return states if keep is None else states * keep
