"""How a split is encoded, scored and ranked."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from nrccr.config.choices import Precision, ScoreKind
from nrccr.config.schema import Config
from nrccr.evaluation.choice import Choice
from nrccr.evaluation.directions import Normalisation


@dataclass(frozen=True)
class Rule:
    """How a split is encoded, scored and ranked.

    Attributes:
        batch_size: captions or items encoded together.
        device: where the network is.
        target_weight: w_T, the weight of the query itself; its translation, if it has one, gets the rest.
        kind: how similarities are scaled before mixing, unless they are normalised.
        memory_mb: what a block of scores may take; larger matrices are never held whole.
        normalisation: of the scores against hubs, with its bank.
        by_length: also recalls by the query's length.
        save_scores: also write `scores.npz`.
        trec: folder that gets TREC files, those of several languages in folders of their own; none: no such files.
        precision: of the network's products while it encodes; embeddings and scores are float32.
        choices: by query language, weight and normalisation that were chosen on another split; they replace the above.
    """

    batch_size: int
    device: torch.device
    target_weight: float = 1.0
    kind: ScoreKind = "raw"
    memory_mb: float = 2000.0
    normalisation: Normalisation | None = None
    by_length: bool = False
    save_scores: bool = False
    precision: Precision = "fp32"
    trec: Path | None = None
    choices: Mapping[str, Choice] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Config, device: torch.device) -> Rule:
        """The rule of a configuration; normalisation, which may need a bank, is added by the caller."""
        own = config.evaluation
        kind: ScoreKind = config.switch("score")
        return cls(
            own.batch_size,
            device,
            own.target_weight,
            kind,
            own.memory_mb,
            save_scores=own.save_scores,
            precision=own.precision,
        )

    def encoding(self) -> AbstractContextManager[None]:
        """The context in which the network encodes."""
        context: AbstractContextManager[None] = torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.precision == "bf16"
        )
        return context
