"""Overrides of Quartet: every part on, the triplet for contrast, small sizes of each kind of video."""

from __future__ import annotations

from nrccr.systems.quartet.settings import VARIANTS

LEVELS, TRANSFORMER = ("visual.gru=8", "visual.maps=6"), ("visual.width=32", "visual.heads=4")
VIDEOS: dict[str, tuple[str, ...]] = {
    "mean": ("quartet.video=mean",),
    "levels": ("quartet.video=levels", *LEVELS),
    "transformer": ("quartet.video=transformer", *TRANSFORMER),
    "both": ("quartet.video=both", *LEVELS, *TRANSFORMER),
}
EVERYTHING = (
    *("quartet.pooling=attention", "text.width=32", "text.heads=4", "quartet.video=both", *LEVELS, *TRANSFORMER),
    *("quartet.dropped_frames=0.3", "quartet.trust_from=2", "train.backbone_learning_rate=1e-4"),
    *("loss.similarity=0.4", "loss.feature=0.1", "loss.cycle=0.5", "loss.adversary=0.001", "train.warmup=3"),
    *(
        "quartet.views=true",
        "quartet.words=16",
        "quartet.word_pairs=8",
        "quartet.words_learning_rate=4e-3",
        "quartet.words_decay=3",
    ),
)
TRIPLET = VARIANTS["triplet"]
