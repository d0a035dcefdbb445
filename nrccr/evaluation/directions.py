"""Scores of both directions at any weight of the languages, normalised or not, from the embeddings of a split.

Q queries, N items, M bank queries, P bank items, D joint-space width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nrccr.config.choices import ScoreKind
from nrccr.evaluation.blocks import Blocks, Cosines, DenseScores, Transposed, dense, fits
from nrccr.evaluation.encode import Embeddings
from nrccr.evaluation.normalise import DUAL, TRANSDUCTIVE, Settings, normalised
from nrccr.evaluation.score import MinMax, Mixed


@dataclass(frozen=True)
class Bank:
    """A query bank: embeddings of captions, none of them a test query unless it is transductive, and of their items.

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
        """Its entry in metrics.json; null for what the method does not use."""
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
    """Text to visual and visual to text; cosines are kept where they fit in memory, else computed anew.

    Args:
        embeddings: of the split.
        kind: how similarities are scaled before mixing. Normalisation always takes raw ones.
        memory_mb: what a block, and a whole matrix, may take.
        bank: for normalisation.
    """

    def __init__(self, embeddings: Embeddings, kind: ScoreKind, memory_mb: float, bank: Bank | None = None) -> None:
        self._memory_mb, self._kind = memory_mb, kind
        self._made: dict[str, Blocks] = {}
        self._embeddings = {"own": embeddings} | ({"bank": bank.embeddings} if bank is not None else {})
        self._sides = ("target",) if embeddings.source is None else ("source", "target")
        self._scaled: dict[str, Blocks] | None = None

    def plain(self, target_weight: float) -> tuple[Blocks, Blocks]:
        """Scaled and mixed: (Q, N) and (N, Q)."""
        if self._scaled is None:
            raw = {side: self._cosines("own", side, "own", "visual") for side in self._sides}
            minmax = self._kind == "minmax"
            self._scaled = {side: MinMax(part, self._memory_mb) if minmax else part for side, part in raw.items()}
        forward = self._mixed(self._scaled, target_weight)
        return forward, Transposed(forward)

    def normalised(self, target_weight: float, settings: Settings) -> tuple[Blocks, Blocks]:
        """Each direction normalised with banks of its own kind: (Q, N) and (N, Q), in the log domain.

        Text to visual takes bank captions, visual to text bank items, for queries; the dual methods also take bank
        items and bank captions for items of the gallery.
        """

        def mixed(texts: str, visual: str) -> Blocks:
            return self._mixed(
                {side: self._cosines(texts, side, visual, "visual") for side in self._sides}, target_weight
            )

        forward = mixed("own", "own")
        banks: list[Blocks | None] = [None] * 4
        if settings.method not in TRANSDUCTIVE:
            banks[:2] = mixed("bank", "own"), Transposed(mixed("own", "bank"))
        if settings.method in DUAL:
            texts = {side: self._cosines("bank", side, "own", side) for side in self._sides}
            banks[2:] = self._cosines("bank", "visual", "own", "visual"), self._mixed(texts, target_weight)
        return (
            normalised(forward, banks[0], banks[2], settings=settings, rankable=True, memory_mb=self._memory_mb),
            normalised(
                Transposed(forward), banks[1], banks[3], settings=settings, rankable=True, memory_mb=self._memory_mb
            ),
        )

    @staticmethod
    def _mixed(sides: dict[str, Blocks], target_weight: float) -> Blocks:
        """Both sides mixed; queries without translations as they are."""
        if "source" not in sides:
            return sides["target"]
        return Mixed(sides["source"], sides["target"], target_weight)

    def _cosines(self, rows: str, row_side: str, columns: str, column_side: str) -> Blocks:
        name = f"{rows} {row_side} {columns} {column_side}"
        if name not in self._made:
            made: Blocks = Cosines(
                getattr(self._embeddings[rows], row_side), getattr(self._embeddings[columns], column_side)
            )
            self._made[name] = DenseScores(dense(made)) if fits(made.shape, self._memory_mb) else made
        return self._made[name]
