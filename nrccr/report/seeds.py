"""Mean and deviation over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and the deviation of the sample where there is more than one value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def in_words(values: Sequence[float], digits: int = 1) -> str:
    """`mean ± deviation`, with so many decimals."""
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.{digits}f}" if deviation is None else f"{mean:.{digits}f} ± {deviation:.{digits}f}"
