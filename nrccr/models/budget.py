"""A limit on the memory that a network takes while it is built, from the weights that it will be given.

A configuration of a few bytes can ask for any size. What trained weights do not fill is not built.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nrccr.errors import UserError
from nrccr.models.statedicts import Trained

SPARE = 32 * 2**20  # bytes: tables of positions, buffers
TIMES = 4  # weights saved in half precision, and what initialising takes
_SIZED = {"empty", "zeros", "ones", "full", "rand", "randn", "empty_strided", "randint", "randperm", "arange", "eye"}


class Budget(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, tensors are made only as long as they fit the budget together.

    Args:
        trained: the weights that replace what is built.
    """

    def __init__(self, trained: Trained) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.place = trained.place
        held = sum(tensor.numel() * max(4, tensor.element_size()) for tensor in trained.weights.values())
        self.left = TIMES * held + SPARE

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count what a function that makes a tensor would take, before it does."""
        name = str(func.overloadpacket.__name__)
        if name in _SIZED and args:
            self.left -= _bytes(args, (kwargs or {}).get("dtype"))
            if self.left < 0:
                raise UserError(
                    f"{self.place}: its weights are far smaller than what its configuration and encoder describe; "
                    "give what they were trained with"
                )
        return func(*args, **(kwargs or {}))


def _bytes(args: Any, dtype: torch.dtype | None) -> int:
    first = args[0]
    width = (dtype or torch.get_default_dtype()).itemsize
    if isinstance(first, Sequence):
        return math.prod(int(size) for size in first) * width
    return max((int(abs(value)) for value in args if isinstance(value, int | float)), default=0) * width
