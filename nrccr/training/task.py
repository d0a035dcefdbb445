"""Each paper's objective: the sum of its losses, one line a term, returned by name."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def total(losses: Mapping[str, Tensor]) -> Tensor:
    """Sum of the entries that end in `_loss`; weights are already in them."""
    parts = [value for name, value in losses.items() if name.endswith("_loss")]
    summed = parts[0]
    for part in parts[1:]:
        summed = summed + part
    return summed
