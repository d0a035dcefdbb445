"""The weight and the normalisation of a test, as they were chosen on another split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nrccr.evaluation.directions import Bank, Normalisation
from nrccr.evaluation.normalise import Settings


@dataclass(frozen=True)
class Choice:
    """What was chosen for the queries of one language, and from what.

    Attributes:
        split: where it was chosen; never the tested one.
        configured: w_T of the configuration.
        weights: every w_T that was tried without normalisation, with its SumR; ascending.
        target_weight: the best of them.
        methods: every normalisation that was tried at that weight, with its SumR; none is plain scores, the first.
        settings: the best of them; none where none was better than plain scores.
        bank: of all of them; none where there is none, and the weight alone was chosen.
    """

    split: str
    configured: float
    weights: Sequence[tuple[float, float]]
    target_weight: float
    methods: Sequence[tuple[Settings | None, float]]
    settings: Settings | None
    bank: Bank | None

    @property
    def normalisation(self) -> Normalisation | None:
        """How test scores are normalised; none where they stay as they are."""
        return None if self.settings is None else Normalisation(self.settings, self.bank, tuned_on=self.split)

    @property
    def before(self) -> float:
        """SumR at the configured weight, not normalised."""
        return dict(self.weights)[self.configured]

    @property
    def at_weight(self) -> float:
        """SumR at the chosen weight, not normalised."""
        return dict(self.weights)[self.target_weight]

    @property
    def best(self) -> float:
        """SumR of the choice."""
        return dict(self.methods)[self.settings]

    def record(self) -> dict[str, Any]:
        """Its entry in metrics.json."""
        return {
            "split": self.split,
            "target_weight": {
                "configured": self.configured,
                "chosen": self.target_weight,
                "SumR": self.at_weight,
                "tried": [{"target_weight": weight, "SumR": total} for weight, total in self.weights],
            },
            "normalisation": {
                "chosen": described(self.settings),
                "SumR": self.best,
                "tried": [{**described(settings), "SumR": total} for settings, total in self.methods],
            },
            "bank": self.bank and {"split": self.bank.split, "size": len(self.bank.query_ids), "seed": self.bank.seed},
        }


def described(settings: Settings | None) -> dict[str, Any]:
    """A normalisation as plain values: its method and the parameters that it looks at."""
    return {"method": "none"} if settings is None else {"method": settings.method, **settings.used()}
