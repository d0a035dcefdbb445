"""Normalisation of scores against hubs, the items that come out near the top for too many queries.

    is         inverted softmax: exp(beta s_qg) / Z_g, Z_g = sum_b exp(beta s_bg) over the query bank
               (Smith et al. 2017, "Offline bilingual word vectors", with a bank in place of the test queries)
    dis        dynamic inverted softmax, for the rows alone whose best item is one of the k best of a bank query; the
               others stay as they are (Bogolin et al. 2022, QB-Norm)
    dual_is    is with the query bank times is with the gallery bank (Wang et al. 2023, DBNorm, DualIS)
    dual_dis   dual_is for the rows alone whose best item is one of the k best of either bank (the same, DualDIS)
    csls       2 s_qg - r_q - r_g: r_q the mean of the query's k highest scores, r_g of the item's with the query bank
               (Conneau et al. 2018, "Word translation without parallel data")
    nnn        s_qg - alpha r_g (Chowdhury et al. 2024, nearest neighbour normalization)
    dsl        s_qg softmax_q(beta s_qg), the softmax over all test queries (Cheng et al. 2021, CAMoE)
    sinkhorn   exp(beta s_qg) scaled so that all rows have one sum and all columns another, by k rounds of columns, then
               rows (Cuturi 2013, algorithm 1)

dsl and sinkhorn are transductive: they look at all test queries together, where a search engine has one. All take raw
scores, such as mixed cosines, and compute in float64 in the log domain.

Q test queries, N items, M bank queries, P bank items.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nrccr.config.choices import Method
from nrccr.evaluation.blocks import (
    Blocks,
    DenseScores,
    Shaped,
    Transposed,
    as_matrix,
    dense,
    highest_columns,
    log_sum_exp,
    lowest_and_highest,
    mean_of_highest,
)

Scores: TypeAlias = npt.NDArray[Any] | Tensor
Rows: TypeAlias = Scores | Sequence[Sequence[float]]

METHODS: tuple[Method, ...] = get_args(Method)
TRANSDUCTIVE: tuple[Method, ...] = ("dsl", "sinkhorn")
DUAL: tuple[Method, ...] = ("dual_is", "dual_dis")
DYNAMIC: tuple[Method, ...] = ("dis", "dual_dis")
USES_BETA: tuple[Method, ...] = ("is", "dis", "dual_is", "dual_dis", "dsl", "sinkhorn")
USES_K: tuple[Method, ...] = ("dis", "dual_dis", "csls", "nnn", "sinkhorn")
ALPHA = 0.75  # among those that `tune` tries


def normalise(
    test_scores: Rows,
    bank_scores: Rows | None = None,
    *,
    gallery_bank_scores: Rows | None = None,
    method: Method = "dis",
    beta: float = 20.0,
    k: int = 1,
    alpha: float = ALPHA,
    log: bool = False,
    rankable: bool = False,
) -> Scores:
    """Normalised scores; see the head of this file for the methods.

    Args:
        test_scores: (Q, N) array, tensor or lists, queries x items, higher is better. Never changed. For the other
            direction give the transposed matrix, and banks of its kind.
        bank_scores: (M, N), bank queries x the same items. Not for dsl and sinkhorn.
        gallery_bank_scores: (P, N), bank items x the same items; for dual_is and dual_dis.
        method: `is`, `dis`, `dual_is`, `dual_dis`, `csls`, `nnn`, `dsl` or `sinkhorn`.
        beta: inverse temperature, for all but csls and nnn.
        k: items that a bank query activates (dis, dual_dis; 0 none), neighbours (csls, nnn), rounds (sinkhorn).
        alpha: weight of the bias, for nnn.
        log: the logarithm of what is described, finite and in its exact order at any beta. Rows that dis leaves alone
            stay raw. csls and nnn have no exponential and stay as they are. A product of dsl may be negative; its
            logarithm is shifted to be positive and given the product's sign, which keeps the order.
        rankable: for dis and dual_dis, whose rows are on two scales and so rank items for a query only. True returns
            scores that rank each row alike and share the scale of the raw ones: s_qg in rows left alone, else
            s_qg - (b_g - mean of b), where b_g = log Z_g / beta. Columns may then be ranked and matrices mixed.

    Returns:
        (Q, N), a new array or tensor like `test_scores`, in its floating type; float64 with `log` or `rankable`.

    Raises:
        ValueError: an unknown method, a bank that is missing or has other items, values out of range, NaN, a result
            that overflows.

    Examples:
        >>> import numpy as np
        >>> from nrccr.evaluation.normalise import normalise
        >>> scores = np.array([[0.6, 0.5], [0.9, 0.2]])  # two queries, two items; both rank item 0 first
        >>> bank = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])  # item 0 is a hub: every query of the bank likes it
        >>> normalise(scores, bank, method="dis", beta=20.0, k=1).argmax(axis=1).tolist()
        [1, 0]
    """
    test = DenseScores(as_matrix(test_scores, "test_scores"))
    given = {"bank_scores": bank_scores, "gallery_bank_scores": gallery_bank_scores}
    banks = [None if one is None else DenseScores(as_matrix(one, name)) for name, one in given.items()]
    settings = Settings(method, beta, k, alpha)
    made = dense(normalised(test, *banks, settings=settings, log=log, rankable=rankable))
    if not (log or rankable):
        made = made.to(test.block(range(1), range(1)).dtype)
    infinite = made.isinf()
    if made.isnan().any() or (infinite.any() and dense(test)[infinite].isfinite().any()):
        raise ValueError("test_scores hold NaN, or the result overflows: fix the scores, or give log=True")
    return made if isinstance(test_scores, Tensor) else made.numpy()


@dataclass(frozen=True)
class Settings:
    """A method and its parameters, as `normalise` takes them."""

    method: Method
    beta: float = 20.0
    k: int = 1
    alpha: float = ALPHA

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ValueError: an unknown method, a value out of range.
        """
        if self.method not in METHODS:
            raise ValueError(f"method is {self.method!r}: choose one of {', '.join(METHODS)}")
        for name, value in (("beta", self.beta), ("k", self.k), ("alpha", self.alpha)):
            if isinstance(value, bool) or not isinstance(value, Real):
                raise ValueError(f"{name} is of type {type(value).__name__}: give a number")
        if not (math.isfinite(self.beta) and self.beta > 0):
            raise ValueError(f"beta is {self.beta}: give a number above 0")
        least = 0 if self.method in DYNAMIC else 1
        if not isinstance(self.k, Integral) or self.k < least:
            raise ValueError(f"k is {self.k}: give a whole number, {least} or more for {self.method}")
        if not math.isfinite(self.alpha):
            raise ValueError(f"alpha is {self.alpha}: give a number")

    def used(self) -> dict[str, float]:
        """The parameters that the method looks at."""
        found: dict[str, float] = {}
        if self.method in USES_BETA:
            found["beta"] = self.beta
        if self.method in USES_K:
            found["k"] = self.k
        if self.method == "nnn":
            found["alpha"] = self.alpha
        return found


def normalised(
    test: Blocks,
    bank: Blocks | None = None,
    gallery_bank: Blocks | None = None,
    *,
    settings: Settings,
    log: bool = True,
    rankable: bool = False,
    memory_mb: float | None = None,
) -> Blocks:
    """`normalise` for matrices of any size: what it returns gives out blocks, in float64.

    Only vectors are kept: a bias an item, one a query, which rows are left alone. They are computed now, in passes over
    the banks and, for dis, dual_dis, csls, dsl and sinkhorn, over the test scores.

    Args:
        test: (Q, N).
        bank: (M, N).
        gallery_bank: (P, N).
        settings: the method and its parameters.
        log: as in `normalise`.
        rankable: as in `normalise`.
        memory_mb: what a block may take.

    Raises:
        ValueError: as `normalise`.
    """
    settings.check()
    method, beta, k = settings.method, settings.beta, settings.k
    bank, gallery_bank = _banks(test, bank, gallery_bank, method)
    if method == "dsl":
        return _DualSoftmax(test, beta, log, memory_mb)
    if method == "sinkhorn":
        item, query = _sinkhorn(test, beta, k, memory_mb)
        return _Biased(test, beta, item, query, exponential=not log)
    assert bank is not None
    if method == "nnn":
        return _Biased(test, 1.0, nearest_neighbour_bias(bank, k, settings.alpha, memory_mb))
    if method == "csls":
        item, query = mean_of_highest(bank, k, memory_mb), mean_of_highest(Transposed(test), k, memory_mb)
        return _Biased(test, 2.0, _finite(item), query)
    item, scale = log_sum_exp(bank, beta, memory_mb=memory_mb), beta
    if gallery_bank is not None:
        item, scale = item + log_sum_exp(gallery_bank, beta, memory_mb=memory_mb), 2 * beta
    item = _finite(item)
    active = None
    if method in DYNAMIC:
        known = torch.zeros(test.shape[1], dtype=torch.bool, device=test.device)
        for one in (bank, gallery_bank):
            if one is not None:
                known[highest_columns(one, k, memory_mb).flatten()] = True
        active = known[highest_columns(test, 1, memory_mb)[:, 0]]
        if rankable:
            bias = item / scale
            return _Biased(test, 1.0, bias - bias.mean(), active=active)
    return _Biased(test, scale, item, active=active, exponential=not log)


def nearest_neighbour_bias(bank: Blocks, k: int, alpha: float, memory_mb: float | None = None) -> Tensor:
    """alpha r_g, the bias of nnn: `alpha` times the mean of every item's k highest bank scores, (N,) float64."""
    return _finite(alpha * mean_of_highest(bank, k, memory_mb))


def fold_bias(items: Scores, bias: Scores) -> npt.NDArray[np.float32]:
    """Items with a bias as one more dimension, so that an index of inner products ranks by s_qg - b_g.

    Args:
        items: (N, D) vectors.
        bias: (N,), such as `nearest_neighbour_bias`, or log Z_g / beta for `is`.

    Returns:
        (N, D + 1) float32; queries get a 1 at the end.
    """
    vectors, last = (np.asarray(values, dtype=np.float32) for values in (items, bias))
    return np.concatenate([vectors, -last[:, None]], axis=1)


class _Biased(Shaped):
    """scale s_qg - item_g - query_q, or its exponential; rows that are not active stay raw."""

    def __init__(
        self,
        scores: Blocks,
        scale: float,
        item: Tensor,
        query: Tensor | None = None,
        active: Tensor | None = None,
        exponential: bool = False,
    ) -> None:
        super().__init__(scores.shape, scores.device)
        self._scores, self._scale, self._item, self._query = scores, scale, item, query
        self._active, self._exponential = active, exponential

    def block(self, rows: range, columns: range) -> Tensor:
        raw = self._scores.block(rows, columns).double()
        made = self._scale * raw - self._item[columns.start : columns.stop]
        if self._query is not None:
            made -= self._query[rows.start : rows.stop, None]
        if self._exponential:
            made = made.exp()
        if self._active is None:
            return made
        return torch.where(self._active[rows.start : rows.stop, None], made, raw)


class _DualSoftmax(Shaped):
    """s_qg softmax_q(beta s_qg), or with `log` its shifted logarithm with its sign."""

    def __init__(self, scores: Blocks, beta: float, log: bool, memory_mb: float | None) -> None:
        super().__init__(scores.shape, scores.device)
        self._scores, self._beta, self._log = scores, beta, log
        self._item = _finite(log_sum_exp(scores, beta, memory_mb=memory_mb), "test_scores")
        lowest, _ = lowest_and_highest(scores, memory_mb)
        # No logarithm of a float64 is below -745, and none of a softmax below beta lowest - log Z.
        self._shift = 746.0 - (beta * lowest - float(self._item.max()))

    def block(self, rows: range, columns: range) -> Tensor:
        raw = self._scores.block(rows, columns).double()
        softmax = self._beta * raw - self._item[columns.start : columns.stop]  # its logarithm
        if not self._log:
            return raw * softmax.exp()
        return torch.where(raw == 0, 0.0, raw.sign() * (raw.abs().log() + softmax + self._shift))


def _sinkhorn(test: Blocks, beta: float, rounds: int, memory_mb: float | None) -> tuple[Tensor, Tensor]:
    """What to subtract from beta s_qg: of every item (N,) and of every query (Q,)."""
    queries, items = test.shape
    query = torch.zeros(queries, dtype=torch.float64, device=test.device)
    for _ in range(rounds):
        sums = log_sum_exp(test, beta, -query, memory_mb)
        item = _finite(sums + math.log(items), "test_scores")  # columns sum to 1 / N
        query = log_sum_exp(Transposed(test), beta, -item, memory_mb) + math.log(queries)  # rows sum to 1 / Q
    return item, query


def _banks(
    test: Blocks, bank: Blocks | None, gallery_bank: Blocks | None, method: Method
) -> tuple[Blocks | None, Blocks | None]:
    """The banks that the method uses, checked."""
    if test.ndim != 2 or 0 in test.shape:
        raise ValueError(f"test_scores have shape {test.shape}: give a matrix of at least one query and one item")
    used = (bank if method not in TRANSDUCTIVE else None, gallery_bank if method in DUAL else None)
    for name, given, needed in (
        ("bank_scores", used[0], method not in TRANSDUCTIVE),
        ("gallery_bank_scores", used[1], method in DUAL),
    ):
        if needed and given is None:
            raise ValueError(f"{method} needs {name}: give bank entries x items")
        if given is not None and (given.shape[0] == 0 or given.shape[1] != test.shape[1]):
            raise ValueError(f"{name} have shape {given.shape}: give at least one row, of {test.shape[1]} items")
    return used


def _finite(bias: Tensor, what: str = "the bank's scores") -> Tensor:
    if not bias.isfinite().all():
        raise ValueError(f"{what} hold NaN or an infinity: fix the embeddings they come from")
    return bias
