"""Names that a configuration or an option chooses among; each is defined here once."""

from __future__ import annotations

from typing import Literal, TypeAlias

Reading: TypeAlias = Literal["released", "paper", "corrected"]

# Switches.
Pooling: TypeAlias = Literal["padded", "masked"]
AttentionMask: TypeAlias = Literal["outer", "key"]
AttentionScale: TypeAlias = Literal["value_width", "key_width"]
Tracker: TypeAlias = Literal["tensorboard", "trackio", "wandb", "mlflow"]
TeacherKind: TypeAlias = Literal["cross_and_target", "cross"]
SimilarityKind: TypeAlias = Literal["soft_cross_entropy", "kl"]
FeatureKind: TypeAlias = Literal["smooth_l1", "l1"]
AdversaryKind: TypeAlias = Literal["non_saturating", "minimax"]
ScoreKind: TypeAlias = Literal["minmax", "raw"]
EnglishCleaning: TypeAlias = Literal["source", "all"]
FrameSampling: TypeAlias = Literal["first", "uniform"]
PoolMask: TypeAlias = Literal["labse", "own"]
Pixels: TypeAlias = Literal["stored", "shown"]

Scenario: TypeAlias = Literal["parallel", "translate", "unparallel"]
ValidationEnglish: TypeAlias = Literal["human", "translated"]
Freeze: TypeAlias = Literal["frozen", "all_frozen", "none"]
VisualKind: TypeAlias = Literal["video", "vectors", "clip"]
Strength: TypeAlias = Literal["weak", "not-so-weak", "strong"]
LearningRates: TypeAlias = Literal["published", "cosine"]
Precision: TypeAlias = Literal["fp32", "bf16"]
TEXT_TO_TEXT = "text-to-text"  # the other task of `nrccr test`, and `task` in its metrics.json
Method: TypeAlias = Literal["is", "dis", "dual_is", "dual_dis", "csls", "nnn", "dsl", "sinkhorn"]
