"""Parts that several systems share.

N sequences in the batch, L positions, W width, D joint-space width.
Masks are true (or 1) at real positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from nrccr.config.choices import Pooling

LENGTH_EPS = 1e-8  # of vectors, in cosines


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode and without gradients, then in the mode it was in."""
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(training)


def mean_over_positions(states: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Mean over positions (N, L, W) -> (N, W): over the padded width ("padded", released) or over real positions."""
    if pooling == "padded":
        return states.mean(dim=1)
    weights = mask.to(states.dtype).unsqueeze(-1)  # (N, L, 1)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def unit(vectors: Tensor) -> Tensor:
    """Vectors (N, D) at unit length, float32 in any precision."""
    return functional.normalize(vectors.float(), dim=-1, eps=LENGTH_EPS)


class JointMapping(nn.Module):
    """Into the joint space: Linear (Xavier-uniform, zero bias) -> BatchNorm -> dropout -> unit length."""

    def __init__(self, inputs: int, width: int, dropout: float = 0.2) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, width)
        self.norm = nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors (N, inputs) -> (N, D), unit length, float32 in any precision.

        In training fewer than two have no statistics of their own: they take the running ones, and leave them alone.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            linear = self.linear(vectors.float())  # (N, D)
            normed = self._by_running(linear) if self.training and len(linear) < 2 else self.norm(linear)
            return functional.normalize(self.dropout(normed), dim=-1)

    def _by_running(self, linear: Tensor) -> Tensor:
        """Normalised by the running statistics: copies, since later calls change these before the backward pass."""
        norm = self.norm
        assert norm.running_mean is not None and norm.running_var is not None
        mean, variance = norm.running_mean.clone(), norm.running_var.clone()
        return functional.batch_norm(linear, mean, variance, norm.weight, norm.bias, eps=norm.eps)
