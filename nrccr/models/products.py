"""Linear layers by the faster of torch's two libraries.

On a processor torch computes products with MKL, which leaves AVX-512 unused on AMD; oneDNN, another part of torch,
uses it.

N rows in all, K width of the input, M width of the output.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

Module = TypeVar("Module", bound=nn.Module)
HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # type: ignore[no-untyped-call]


def product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """left (N, K) @ right (M, K)^T + bias (M,) -> (N, M), by oneDNN; float32 on a processor, no gradients."""
    made: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")
    return made


def linear(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As functional.linear: states (..., K), weight (M, K), bias (M,) -> (..., M)."""
    if not _suits(states, weight):
        return functional.linear(states, weight, bias)
    made: Tensor = _Linear.apply(states.reshape(-1, states.shape[-1]), weight, bias)  # type: ignore[no-untyped-call]
    return made.reshape(*states.shape[:-1], -1)


class Linear(nn.Linear):
    """A linear layer that computes with `linear`."""

    def forward(self, states: Tensor) -> Tensor:
        """States (..., K) -> (..., M)."""
        return linear(states, self.weight, self.bias)


def use_fast_products(network: Module) -> Module:
    """Let all linear layers of a network compute with `linear`; names, weights and saved states stay as they are."""
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear
    return network


def _suits(states: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN takes them: float32 on a processor, and no precision asked for that is lower."""
    return (
        states.device.type == weight.device.type == "cpu"
        and states.dtype == weight.dtype == torch.float32
        and states.numel() > 0
        and HAS_ONEDNN
        and not torch.is_autocast_enabled("cpu")
    )


class _Linear(torch.autograd.Function):
    """`product` with its gradients, each a product again."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(states, weight)
        return product(states, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        states, weight = ctx.saved_tensors
        of_states, of_weight, of_bias = ctx.needs_input_grad
        return (
            product(gradient, weight.t()) if of_states else None,  # (N, K)
            _transposed_product(gradient, states) if of_weight else None,  # (M, K)
            gradient.sum(dim=0) if of_bias else None,  # (M,)
        )


def _transposed_product(gradient: Tensor, states: Tensor) -> Tensor:
    """gradient (N, M)^T @ states (N, K) -> (M, K); oneDNN copies its first argument, so the narrower one is first."""
    if gradient.shape[1] <= states.shape[1]:
        return product(gradient.t(), states.t())
    return product(states.t(), gradient.t()).t()
