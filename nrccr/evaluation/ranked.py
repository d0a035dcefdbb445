"""One language's scores in both directions, and their ranks.

Q queries, N items, M items that have a query.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nrccr.evaluation.blocks import Blocks, Columns, DenseScores, Transposed, dense, fits
from nrccr.evaluation.counting import Ties
from nrccr.evaluation.metrics import Placed, geometric_mean, ranks_and_precision, recall_sum, summarise


@dataclass(frozen=True)
class Scored:
    """Scores of both directions; items without a query are in the gallery, but search nothing.

    Attributes:
        forward: (Q, N), text to visual.
        backward: (M, Q), visual to text.
        item_of: (Q,) each query's item.
        queried: (M,) positions of the items that have a query.
    """

    forward: Blocks
    backward: Blocks
    item_of: npt.NDArray[np.int64]
    queried: npt.NDArray[np.int64]

    @classmethod
    def of(
        cls, directions: tuple[Blocks, Blocks], item_of: npt.NDArray[np.int64], memory_mb: float | None = None
    ) -> Scored:
        """Scores (Q, N) and (N, Q), the latter reduced to the items that have a query."""
        forward, backward = directions
        queried = np.unique(item_of)
        if len(queried) < forward.shape[1]:
            backward = Transposed(Columns(Transposed(backward), queried))
            if memory_mb is not None and fits(backward.shape, memory_mb):
                backward = DenseScores(dense(backward, memory_mb))
        return cls(forward, backward, item_of, queried)

    def ranked(self, ties: Ties = "index", memory_mb: float | None = None) -> Ranked:
        """How both directions place what is relevant."""
        place = {item: row for row, item in enumerate(self.queried.tolist())}
        captions_of: list[list[int]] = [[] for _ in place]
        for query, item in enumerate(self.item_of.tolist()):
            captions_of[place[item]].append(query)
        return Ranked(
            ranks_and_precision(self.forward, self.item_of, ties, memory_mb),
            ranks_and_precision(self.backward, captions_of, ties, memory_mb),
        )


@dataclass(frozen=True)
class Ranked:
    """How Q queries place their items, and M items that have a query their queries."""

    text_to_visual: Placed
    visual_to_text: Placed

    def metrics(self) -> dict[str, Any]:
        """Metrics of both directions, SumR and mean recall."""
        forward, backward = summarise(self.text_to_visual), summarise(self.visual_to_text)
        total = recall_sum(forward, backward)
        return {"text_to_visual": forward, "visual_to_text": backward, "SumR": total, "mean_recall": total / 6}

    def language_metrics(self) -> dict[str, Any]:
        """Metrics of both directions, each with the geometric mean of its recalls, and SumR."""
        forward, backward = (
            summary | {"geometric_mean": geometric_mean(summary)}
            for summary in (summarise(self.text_to_visual), summarise(self.visual_to_text))
        )
        return {"text_to_visual": forward, "visual_to_text": backward, "SumR": recall_sum(forward, backward)}
