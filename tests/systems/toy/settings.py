"""What a configuration may say to the toy."""

from __future__ import annotations

from typing import Any

from nrccr.config.keys import Section, key
from nrccr.config.schema import Config, Refuse


class ToySection(Section):
    """The toy's own."""

    temperature: float = key(0.1, "of its contrast", gt=0)


SECTIONS: dict[str, type[Section]] = {"toy": ToySection}
READS = frozenset(
    {
        *("data.target", "data.mismatch_tolerance", "switches.english_cleaning"),
        *(f"evaluation.{name}" for name in ("target_weight", "save_scores", "normalise", "beta", "k", "alpha")),
    }
)
SWITCHES: dict[str, Any] = {"score": "raw", "pooling": "masked"}
NOTES: dict[str, str] = {}
FOLDERS: dict[str, str] = {}
VARIANTS: dict[str, tuple[str, ...]] = {}


def check(config: Config, refuse: Refuse) -> None:
    """Refuse images."""
    if config.visual.kind != "video":
        refuse("visual.kind: the toy takes videos", "visual.kind")
