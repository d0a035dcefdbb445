"""Runs of C2KD on the tiny collection."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


@pytest.fixture
def learn(nrccr_command: Command, c2kd_config: Path, tiny_languages: Path) -> Command:
    """A function of a run folder and options: `nrccr train` on the tiny collection."""

    def run(out: Path, *options: object) -> Any:
        where = ("--root", tiny_languages, "--out", out, "--device", "cpu")
        return nrccr_command("train", c2kd_config, *where, *options)

    return run


@pytest.fixture
def teachers(learn: Command, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> list[Path]:
    """Two trained teachers that differ, trained once for all tests."""
    kept = tmp_path_factory.getbasetemp() / "c2kd_teachers"
    if not kept.exists():
        for name, options in {"a": ["seed=1"], "b": ["seed=2", "joint.width=20", "visual.width=8"]}.items():
            done = learn(kept / name, "train.epochs=1", *options)
            assert done.code == 0, done.err
    shutil.copytree(kept, tmp_path / "teachers")
    return [tmp_path / "teachers" / "a", tmp_path / "teachers" / "b"]
