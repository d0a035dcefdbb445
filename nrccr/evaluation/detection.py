"""How well a number finds what is wrong.

N things, some of them wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Detection:
    """The wrong ones among the first of a list, the most suspicious first; all shares are 0..1.

    Attributes:
        first: (K,) how many are looked at, ascending; things of the same number are looked at together.
        precision: (K,) the share of those that are wrong.
        recall: (K,) the share of the wrong ones that are among them.
        average_precision: the mean of the precision over the recall's steps.
        base_rate: the share of all that are wrong, which is the precision of a list in any order.
        separation: the chance that a wrong one is more suspicious than another; 0.5 is guessing.
    """

    first: npt.NDArray[np.int64]
    precision: Floats
    recall: Floats
    average_precision: float
    base_rate: float
    separation: float

    def at(self, share: float) -> float:
        """The precision when a share of all, 0..1, is looked at, or as few more as ties allow."""
        return float(self.precision[np.searchsorted(self.first, share * self.first[-1])])


def detect(suspicion: npt.ArrayLike, wrong: npt.ArrayLike) -> Detection:
    """Precision and recall of a list that is ordered by suspicion.

    Args:
        suspicion: (N,) higher is more suspicious.
        wrong: (N,) booleans.

    Raises:
        ValueError: none is wrong, or all are, or a number is not finite.
    """
    from sklearn.metrics import average_precision_score

    numbers, truth = np.asarray(suspicion, dtype=np.float64), np.asarray(wrong, dtype=bool)
    if truth.all() or not truth.any():
        raise ValueError("detection needs wrong ones and others")
    order = np.argsort(-numbers, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(numbers[order])), len(numbers) - 1)  # (K,) the last of each tie
    found = np.cumsum(truth[order])[ends]  # (K,)
    return Detection(
        first=ends + 1,
        precision=found / (ends + 1),
        recall=found / truth.sum(),
        average_precision=float(average_precision_score(truth, numbers)),
        base_rate=float(truth.mean()),
        separation=separation(numbers[truth], numbers[~truth]),
    )


def separation(high: npt.ArrayLike, low: npt.ArrayLike) -> float:
    """The chance that a number of `high` exceeds one of `low` (the area under the ROC curve); ties count half.

    Raises:
        ValueError: one of them is empty, or a number is not finite.
    """
    from sklearn.metrics import roc_auc_score

    one, other = np.asarray(high, dtype=np.float64), np.asarray(low, dtype=np.float64)
    if not len(one) or not len(other):
        raise ValueError("separation needs numbers of both kinds")
    return float(roc_auc_score(np.repeat([1, 0], [len(one), len(other)]), np.concatenate([one, other])))
