"""NRCCR's objective (section 3.3): ranking, two distillations, cycle consistency, language adversary.

N pairs in the batch, D joint-space width.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nrccr.config.schema import Config
from nrccr.losses.adversarial import (
    accuracy,
    discriminator_loss,
    discriminator_terms,
    minimax_encoder_loss,
    non_saturating_encoder_loss,
)
from nrccr.losses.distill import SimilarityDistillation
from nrccr.losses.feature import FeatureDistillation
from nrccr.losses.triplet import TripletLoss
from nrccr.processes import gather
from nrccr.systems.nrccr.network import PairOutput
from nrccr.training.task import Player


class NRCCRObjective:
    """L = L_tri + 0.4 L_sim + 0.1 L_feat + 0.5 L_cyc + 0.001 L_adv with the published weights.

    A term of weight zero is left out of the sum, and the branch that only it needs out of the network: the basic model
    of the paper's tables is this objective with the four extra weights at zero.
    """

    def __init__(self, config: Config) -> None:
        self.weights = config.loss
        self.adversary = config.switch("adversary")
        self.rank = TripletLoss(config.loss.margin)
        self.distill = SimilarityDistillation(config.loss.temperature, config.switch("similarity"))
        self.feature = FeatureDistillation(config.switch("feature"))

    def __call__(self, out: PairOutput, discriminator: nn.Module | None) -> dict[str, Tensor]:
        """The encoder's losses, weights applied.

        Args:
            out: the network's output for the batch.
            discriminator: already updated on this batch; none where the adversary's weight is zero.

        Returns:
            Scalars by name; the total is the sum of those that end in `_loss`.
        """
        w = self.weights
        same = out.items[:, None] == out.items if w.mask_same_item else None  # (N, N)
        losses = {
            "source_loss": self.rank(out.source, out.visual, same),
            "target_loss": w.target * self.rank(out.target, out.visual, same),
        }
        if out.teacher is not None and w.similarity:
            losses["similarity_loss"] = w.similarity * self.distill(out.teacher, out.target, out.visual)
        if out.teacher is not None and w.feature:
            losses["feature_loss"] = w.feature * self.feature(out.teacher, out.target)
        if out.back is not None:
            losses["cycle_loss"] = w.cycle * self.rank(out.source, out.back, same)
        if discriminator is not None:
            losses["adversary_loss"] = w.adversary * self._confuse(out, discriminator)
        return losses

    def discriminate(self, out: PairOutput, discriminator: nn.Module) -> dict[str, Tensor]:
        """The discriminator's loss on detached backbone states, and how often it is right in either language."""
        source, target = gather(  # each (N, 2) or (N, 1)
            *(
                torch.cat([discriminator(part.states.detach(), part.mask) for part in states])
                for states in (out.source_states, out.target_states)
            )
        )
        real, fake = discriminator_terms(source, target)
        source_accuracy, target_accuracy = accuracy(source, target)
        return {
            "discriminator_loss": discriminator_loss(source, target),
            "discriminator_source": real.detach(),
            "discriminator_target": fake.detach(),
            "discriminator_source_accuracy": source_accuracy,
            "discriminator_target_accuracy": target_accuracy,
        }

    def _confuse(self, out: PairOutput, discriminator: nn.Module) -> Tensor:
        target = torch.cat([discriminator(part.states, part.mask) for part in out.target_states])  # (n, 2 or 1)
        if self.adversary == "non_saturating":
            return non_saturating_encoder_loss(*gather(target))
        source = torch.cat([discriminator(part.states, part.mask) for part in out.source_states])
        return minimax_encoder_loss(*gather(source, target))


def adversary(objective: NRCCRObjective, discriminator: nn.Module | None, learning_rate: float) -> dict[str, Player]:
    """The discriminator as a player that steps before the network; none without a discriminator."""
    if discriminator is None:
        return {}
    return {
        "discriminator": Player(
            discriminator, learning_rate, partial(objective.discriminate, discriminator=discriminator)
        )
    }
