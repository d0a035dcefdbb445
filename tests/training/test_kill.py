"""Kill -9 at random moments, resume until done: the weights are those of a run that nothing disturbed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
EPOCHS = 60
OPTIONS = ["train.log_every=1", f"train.epochs={EPOCHS}", f"train.patience={EPOCHS}"]


@pytest.mark.slow
def test_killed_three_times(
    tiny_config: Path, tiny_collection: Path, tmp_path: Path, results: Callable[[Path], Any]
) -> None:
    def started(out: Path, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "nrccr", "train", str(tiny_config), "--root", str(tiny_collection)]
        return subprocess.Popen(
            [*command, "--out", str(out), "--device", "cpu", *options, *OPTIONS],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
        )

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert started(whole).wait() == 0

    choose = random.Random(time.time_ns())
    log = killed / "metrics.jsonl"
    moments = sorted(choose.uniform(0.05, 0.95) * (whole / "metrics.jsonl").stat().st_size for _ in range(3))
    for attempt, moment in enumerate(moments):
        # States every few milliseconds: most kills fall between two steps of an epoch, some into a write.
        run = started(killed, "train.save_minutes=1e-4", *(["--resume"] if attempt else []))
        while run.poll() is None and (not log.exists() or log.stat().st_size < moment):
            time.sleep(0.001)
        time.sleep(choose.uniform(0, 0.05))
        assert run.poll() is None, "the run ended before it was killed"
        run.kill()
        run.wait()
    assert started(killed, "--resume").wait() == 0
    assert results(killed) == results(whole), moments
