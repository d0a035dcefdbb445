"""Cosine scores at full precision, whatever precision the networks ran in."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """`values` as float32, or unchanged where they are float64."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def similarity(rows: Tensor, columns: Tensor) -> Tensor:
    """Cosines of every row vector with every column vector.

    Args:
        rows: (N, D), unit length.
        columns: (M, D), unit length.

    Returns:
        (N, M) in float32 or better. Under autocast a plain product would be rounded to 8 bits, about 0.002 on a
        cosine, which a temperature of 0.07 makes 0.03 on a logit.
    """
    with torch.autocast(device_type=rows.device.type, enabled=False):
        return at_least_float32(rows) @ at_least_float32(columns).T
