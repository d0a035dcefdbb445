"""Scores of both directions at any weight of the languages, normalised or not, from the embeddings of a split.

Q queries, N items, M bank queries, P bank items, D joint-space width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nrccr.config.choices import ScoreKind
from nrccr.evaluation.blocks import Blocks, Cosines, Matrix, Transposed, dense, fits
from nrccr.evaluation.normalise import DUAL, TRANSDUCTIVE, Settings, normalised
from nrccr.evaluation.score import MinMax, Mixed


@dataclass(frozen=True)
class Embeddings:
    """A split in the joint space: queries' translations (Q, D), queries (Q, D), items (N, D), all of unit length."""

    source: Tensor
    target: Tensor
    visual: Tensor


@dataclass(frozen=True)
class Bank:
    """Embeddings that no test query is among, or all of them, if it is transductive.

    Attributes:
        embeddings: of M captions and their P items.
        query_ids: the captions' ids.
        split: where they come from.
        seed: of the draw.
        transductive: whether test queries were allowed.
    """

    embeddings: Embeddings
    query_ids: list[str]
    split: str
    seed: int
    transductive: bool


@dataclass(frozen=True)
class Normalisation:
    """How scores are normalised; the bank may be left out where the method uses none."""

    settings: Settings
    bank: Bank | None = None
    tuned_on: str | None = None

    def record(self, kind: ScoreKind) -> dict[str, Any]:
        """What metrics.json says about it; null is what the method does not use."""
        bank = self.bank
        used = self.settings.used()
        return {
            "method": self.settings.method,
            "scores": "raw",
            "minmax_skipped": kind == "minmax",
            **{name: used.get(name) for name in ("beta", "k", "alpha")},
            "bank": bank and bank.split,
            "size": bank and len(bank.query_ids),
            "bank_items": bank and len(bank.embeddings.visual),
            "bank_seed": bank and bank.seed,
            "transductive": bank.transductive if bank else True,
            "tuned_on": self.tuned_on,
        }


class Directions:
    """Text to visual and visual to text; cosines are kept where all of them fit, else computed whenever asked for.

    Args:
        embeddings: of the split.
        kind: how similarities are prepared before mixing. Normalisation takes raw ones whatever it is.
        memory_mb: what a block, and a whole matrix, may take.
        bank: for normalisation.
    """

    def __init__(self, embeddings: Embeddings, kind: ScoreKind, memory_mb: float, bank: Bank | None = None) -> None:
        self._memory_mb, self._kind, self._bank = memory_mb, kind, bank
        self._made: dict[str, Blocks] = {}
        self._embeddings = {"own": embeddings} | ({"bank": bank.embeddings} if bank is not None else {})
        self._prepared: tuple[Blocks, Blocks] | None = None

    def plain(self, target_weight: float) -> tuple[Blocks, Blocks]:
        """Prepared and mixed: (Q, N) and (N, Q)."""
        if self._prepared is None:
            raw = self._cosines("own", "source", "own", "visual"), self._cosines("own", "target", "own", "visual")
            both = [MinMax(part, self._memory_mb) if self._kind == "minmax" else part for part in raw]
            self._prepared = (both[0], both[1])
        forward = Mixed(*self._prepared, target_weight)
        return forward, Transposed(forward)

    def normalised(self, target_weight: float, settings: Settings) -> tuple[Blocks, Blocks]:
        """Each direction normalised with banks of its own kind: (Q, N) and (N, Q), in the log domain.

        Text to visual takes bank captions, visual to text bank items, for queries; the dual methods also take bank
        items and bank captions for items of the gallery.
        """

        def mixed(texts: str, visual: str) -> Blocks:
            source, target = (self._cosines(texts, side, visual, "visual") for side in ("source", "target"))
            return Mixed(source, target, target_weight)

        forward = mixed("own", "own")
        banks: list[Blocks | None] = [None] * 4
        if settings.method not in TRANSDUCTIVE:
            banks[:2] = mixed("bank", "own"), Transposed(mixed("own", "bank"))
        if settings.method in DUAL:
            source, target = (self._cosines("bank", side, "own", side) for side in ("source", "target"))
            banks[2:] = self._cosines("bank", "visual", "own", "visual"), Mixed(source, target, target_weight)
        return (
            normalised(forward, banks[0], banks[2], settings=settings, rankable=True, memory_mb=self._memory_mb),
            normalised(
                Transposed(forward), banks[1], banks[3], settings=settings, rankable=True, memory_mb=self._memory_mb
            ),
        )

    def _cosines(self, rows: str, row_side: str, columns: str, column_side: str) -> Blocks:
        name = f"{rows} {row_side} {columns} {column_side}"
        if name not in self._made:
            made: Blocks = Cosines(
                getattr(self._embeddings[rows], row_side), getattr(self._embeddings[columns], column_side)
            )
            self._made[name] = Matrix(dense(made)) if fits(made.shape, self._memory_mb) else made
        return self._made[name]
