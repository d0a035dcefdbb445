"""One pure loss per file: functions of embeddings or logits, without model, device or logger."""

from __future__ import annotations

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

__all__ = [
    "FeatureDistillation",
    "SimilarityDistillation",
    "TripletLoss",
    "accuracy",
    "discriminator_loss",
    "discriminator_terms",
    "minimax_encoder_loss",
    "non_saturating_encoder_loss",
]
