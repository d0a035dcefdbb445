"""Runs on the tiny collection, and what of them must be equal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TIMING = {"data_seconds", "step_seconds", "seconds"}
Train = Callable[..., Any]


@pytest.fixture
def train(tiny_config: Path, tiny_collection: Path, nrccr_command: Callable[..., Any]) -> Train:
    """A function of a run folder and options: `nrccr train` on the tiny collection."""

    def run(out: Path, *options: str) -> Any:
        return nrccr_command("train", tiny_config, "--root", tiny_collection, "--out", out, "--device", "cpu", *options)

    return run


@pytest.fixture
def results() -> Callable[[Path], tuple[bytes, list[dict[str, Any]]]]:
    """A function of a run folder: the bytes of its weights, and its log without timing."""

    def of(folder: Path) -> tuple[bytes, list[dict[str, Any]]]:
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        log = [{key: value for key, value in line.items() if key not in TIMING} for line in lines]
        return (folder / "model.safetensors").read_bytes(), log

    return of


@pytest.fixture
def places(
    tiny_config: Path, tiny_collection: Path, mlcmr_config: Path, c2kd_config: Path, quartet_config: Path,
    both_languages: Path, tiny_languages: Path,
) -> dict[str, tuple[Path, Path]]:  # fmt: skip
    """Configuration and root of every system."""
    return {
        "nrccr": (tiny_config, tiny_collection),
        "mlcmr": (mlcmr_config, both_languages),
        "c2kd": (c2kd_config, tiny_languages),
        "quartet": (quartet_config, tiny_collection),
    }
