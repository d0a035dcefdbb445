"""Overrides that switch every part of Quartet on."""

from __future__ import annotations

EVERYTHING = (
    *("quartet.pooling=attention", "text.width=32", "text.heads=4", "quartet.video=both", "visual.width=32"),
    *("visual.heads=4", "quartet.dropped_frames=0.3", "quartet.trust_from=2", "train.backbone_learning_rate=1e-4"),
    *("loss.similarity=0.4", "loss.feature=0.1", "loss.cycle=0.5", "loss.adversary=0.001", "train.warmup=3"),
    *("quartet.words=16", "quartet.words_learning_rate=4e-3", "quartet.words_decay=3"),
)
