"""Two runs on a small generated collection with noisy translations, the basic model and NRCCR, trained once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from nrccr.data.generated.collection import Recipe, generate
from nrccr.report.finished import ReportRun, read

BASIC = ("loss.similarity=0", "loss.feature=0", "loss.cycle=0", "loss.adversary=0")


def generated_runs(base: Path, command: Callable[..., Any], tiny_config: Path) -> list[ReportRun]:
    """The runs `basic` and `nrccr` below a folder that all tests of the session share."""
    place = base / "report_generated"
    if not (place / "nrccr" / "run.json").exists():
        generate(place, Recipe(rates=(0.4,), videos=(10, 4, 6), captions=2))
        values: dict[str, Any] = {
            "extends": str(tiny_config),
            "reading": "corrected",
            "data": {"collection": "generated", "target": "de", "translator": "noise40"},
            "text": {"model": "generated/backbone"},
            "train": {"epochs": 1},
        }
        (place / "small.yaml").write_text(yaml.safe_dump(values))
        for name, overrides in (("basic", BASIC), ("nrccr", ())):
            done = command(
                "train", place / "small.yaml", "--root", place, "--out", place / name, "--device", "cpu", *overrides
            )
            assert done.code == 0, done.err
    return read([place / "basic", place / "nrccr"], place, "cpu")
