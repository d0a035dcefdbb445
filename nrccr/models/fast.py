"""Linear layers and dropout in less of a processor's time than torch's own; elsewhere they are torch's own.

Torch computes products with MKL, which leaves AVX-512 unused on AMD's processors; oneDNN, another part of torch, uses
it. It is asked there alone: on Intel's processors, and on AMD's without AVX-512, MKL is the faster. Torch's dropout
draws a number for each entry where half of one will do.

N rows in all, K width of the input, M width of the output.
"""

from __future__ import annotations

import math
import platform
import re
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

Module = TypeVar("Module", bound=nn.Module)
HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # type: ignore[no-untyped-call]
_CPUINFO = Path("/proc/cpuinfo")
_ROWS = 1024  # oneDNN slows down in products over more rows, if these are the inner dimension
_WIDTH = 512  # from which a weight's turned copy pays


def maker() -> str:
    """Who made the processor, as it says itself: "AuthenticAMD", "GenuineIntel"; "" where it does not say."""
    try:
        found = re.search(r"^vendor_id\s*:\s*(\S+)", _CPUINFO.read_text(errors="replace"), re.MULTILINE)
    except OSError:  # another system than Linux
        return platform.processor().split(", ")[-1]  # Windows: "AMD64 Family 25 Model 33 Stepping 2, AuthenticAMD"
    return found[1] if found else ""


def asks_onednn() -> bool:
    """Whether oneDNN's products are the faster on this processor: AMD's with AVX-512."""
    return HAS_ONEDNN and maker() == "AuthenticAMD" and torch.backends.cpu.get_cpu_capability() == "AVX512"


ASKS_ONEDNN = asks_onednn()


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


def dropout(states: Tensor, rate: float) -> Tensor:
    """As functional.dropout in training: an entry is zero with probability `rate`, others grow by 1 / (1 - rate)."""
    if states.device.type != "cpu" or not 0 < rate < 1:
        return functional.dropout(states, rate)
    dropped: Tensor = _Dropout.apply(states, rate)  # type: ignore[no-untyped-call]
    return dropped


class Dropout(nn.Dropout):
    """Dropout by `dropout`."""

    def forward(self, states: Tensor) -> Tensor:
        """States of any shape."""
        return dropout(states, self.p) if self.training else states


def use_fast_layers(network: Module) -> Module:
    """Let all linear layers and dropout of a network be those above; names, weights and saved states stay."""
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear
        elif type(module) is nn.Dropout and not module.inplace:
            module.__class__ = Dropout
    return network


def _suits(states: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN is the faster for them: float32 on such a processor, and no precision asked for that is lower."""
    return (
        states.device.type == weight.device.type == "cpu"
        and states.dtype == weight.dtype == torch.float32
        and states.numel() > 0
        and ASKS_ONEDNN
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
            _states_gradient(gradient, weight) if of_states else None,  # (N, K)
            _weight_gradient(gradient, states) if of_weight else None,  # (M, K)
            gradient.sum(dim=0) if of_bias else None,  # (M,)
        )


def _states_gradient(gradient: Tensor, weight: Tensor) -> Tensor:
    """gradient (N, M) @ weight (M, K) -> (N, K)."""
    turned = weight.t()  # (K, M)
    if len(gradient) > _ROWS and weight.shape[0] > weight.shape[1] >= _WIDTH:
        turned = turned.contiguous()  # oneDNN takes several times as long to do so
    return product(gradient, turned)


def _weight_gradient(gradient: Tensor, states: Tensor) -> Tensor:
    """gradient (N, M)^T @ states (N, K) -> (M, K), summed over blocks of rows."""
    blocks = math.ceil(len(states) / _ROWS)
    parts = zip(gradient.chunk(blocks), states.chunk(blocks), strict=True)
    made = _transposed_product(*next(parts))
    for part in parts:
        made += _transposed_product(*part)
    return made


def _transposed_product(gradient: Tensor, states: Tensor) -> Tensor:
    """gradient (N, M)^T @ states (N, K) -> (M, K); oneDNN copies its first argument, so the narrower one is first."""
    if gradient.shape[1] <= states.shape[1]:
        return product(gradient.t(), states.t())
    return product(states.t(), gradient.t()).t()


class _Dropout(torch.autograd.Function):
    """Dropout from one 64-bit number for each two entries; the rate is exact to 32 bits."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, rate: float) -> Tensor:
        drawn = torch.empty((states.numel() + 1) // 2, dtype=torch.int64).random_(-(2**63), None)
        kept = drawn.view(torch.int32)[: states.numel()] >= round((rate - 0.5) * 2**32)
        ctx.rate = rate
        ctx.save_for_backward(kept.view(states.shape))
        return _scaled(states, kept.view(states.shape), rate)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _scaled(gradient, ctx.saved_tensors[0], ctx.rate), None


def _scaled(values: Tensor, kept: Tensor, rate: float) -> Tensor:
    return values * kept.to(values.dtype).mul_(1 / (1 - rate))
