"""The matrix products of a training step alone, on the operands that the step gave them: the floor of its time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from nrccr.models import fast

PLAIN = {
    f"{namespace}.{name}"
    for namespace, names in {
        "aten": ("mm", "addmm", "bmm", "baddbmm", "linear", "convolution", "convolution_backward"),
        "mkldnn": ("_linear_pointwise",),
    }.items()
    for name in names
}
ATTENTION, GRADIENT = "_scaled_dot_product_", "_backward"  # each kernel of torch's has a name of its own
VARLEN = "torch_attn._varlen_attn"  # captions one after the other, without padding

Call = tuple[Callable[..., Any], Sequence[Any], dict[str, Any]]


class Products(TorchDispatchMode):
    """Keeps every matrix product that is computed inside, with its operands, to compute it once more.

    Attention counts with its products alone, two forwards and four backwards, without the softmax between them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Take an operation, and keep what is a product of it."""
        made = func(*args, **(kwargs or {}))
        name = str(func.overloadpacket)
        if name in PLAIN:
            self.calls.append((func, args, kwargs or {}))
        elif ATTENTION in name:
            # Gradients come before queries, keys and values in the backward's arguments.
            gradient = args[0] if name.endswith(GRADIENT) else None
            queries, keys, values = args[:3] if gradient is None else args[1:4]
            self._attention(queries, keys, values, gradient)
        elif name.startswith(VARLEN):
            self._by_caption(args, name.endswith(GRADIENT))
        return made

    def _attention(self, queries: Tensor, keys: Tensor, values: Tensor, gradient: Tensor | None) -> None:
        """Products of queries (B, H, L, W) with keys and values (B, H, S, W), and of their gradients."""
        shares = queries.new_full((*queries.shape[:3], keys.shape[2]), 1 / keys.shape[2])  # (B, H, L, S)
        pairs = [(queries, keys.mT), (shares, values)]
        if gradient is not None:
            pairs = [(gradient, values.mT), (shares.mT, gradient), (shares, keys), (shares.mT, queries)]
        # In one piece each, so that a copy is no part of the product.
        flat = [[part.flatten(0, 1).contiguous() for part in pair] for pair in pairs]
        self.calls += [(torch.bmm, pair, {}) for pair in flat]

    def _by_caption(self, args: Sequence[Any], backward: bool) -> None:
        """As `_attention`, of heads (T, H, W) of captions one after the other; those of one length count together."""
        # The backward has the gradient before them, and the output and its normalisers behind.
        heads, bounds = ((*args[1:4], args[0]), args[6]) if backward else (args[:3], args[3])
        begin = 0
        for length, group in groupby(bounds.diff().tolist()):
            captions = len(list(group))
            end = begin + captions * length
            queries, keys, values, *gradient = (
                of[begin:end].unflatten(0, (captions, length)).transpose(1, 2) for of in heads
            )
            self._attention(queries, keys, values, gradient[0] if gradient else None)
            begin = end

    def run(self) -> None:
        """Every product once."""
        with torch.no_grad():
            for func, args, kwargs in self.calls:
                func(*args, **kwargs)

    def operations(self) -> int:
        """Multiplications and additions of all products, counted singly."""
        known = {torch.ops.mkldnn._linear_pointwise: _of_linear} if fast.HAS_ONEDNN else {}
        with FlopCounterMode(display=False, custom_mapping=known) as counted:
            self.run()
        return int(counted.get_total_flops())


def _of_linear(states: Sequence[int], weight: Sequence[int], *others: Any, **named: Any) -> int:
    """Operations of (N, K) @ (M, K)^T, from their shapes."""
    return 2 * states[0] * states[1] * weight[0]
