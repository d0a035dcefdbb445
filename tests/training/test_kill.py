"""Kill training at seeded moments, resume until done: the weights are those of a run that nothing disturbed.

`NRCCR_KILLS=100 pytest -m slow tests/training/test_kill.py` takes hours: 100 moments for each system; by default
there are three. SIGKILL and SIGTERM take turns.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("NRCCR_KILLS", "3"))
KILLS_A_RUN = 4
Start = Callable[..., subprocess.Popen[bytes]]

# `nrccr` that does to itself what the environment says, when its log has a number of lines.
SUICIDE = """
import os, random, signal
from nrccr.training.log import Log
from nrccr.training.runfolder import RunFolder
import nrccr.files as files
write, replace, count = Log.write, os.replace, [0]
wanted, number, inside = int(os.environ["AT"]), int(os.environ["SIGNAL"]), os.environ["INSIDE"] == "1"
def die():
    os.kill(os.getpid(), number)
def write_then_die(self, *arguments):
    write(self, *arguments)
    count[0] += 1
    if count[0] == wanted and not inside:
        die()
def die_before_rename(source, target):  # half-way through a write
    if inside and count[0] >= wanted > 0:
        die()
    replace(source, target)
Log.write, files.os.replace = write_then_die, die_before_rename
from nrccr.cli.app import main
main()
"""


@pytest.fixture(params=["nrccr", "mlcmr", "c2kd"])
def system(request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """Configuration and root of each system, small."""
    config, root = {
        "nrccr": ("tiny_config", "tiny_collection"),
        "mlcmr": ("mlcmr_config", "both_languages"),
        "c2kd": ("c2kd_config", "tiny_languages"),
    }[request.param]
    return request.getfixturevalue(config), request.getfixturevalue(root)


def starter(config: Path, root: Path, epochs: int) -> Start:
    """A function of a run folder, a moment (0: never), a signal and options: a training in a process of its own."""

    def start(out: Path, *options: str, at: int = 0, number: int = 9, inside: bool = False) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", SUICIDE, "train", str(config), "--root", str(root), "--out", str(out)]
        lengths = ["train.log_every=1", f"train.epochs={epochs}", f"train.patience={epochs}"]
        moment = {"AT": str(at), "SIGNAL": str(int(number)), "INSIDE": str(int(inside))}
        return subprocess.Popen(
            [*command, "--device", "cpu", *options, *lengths],
            cwd=root.parent,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", **moment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    return start


def test_killed_in_a_write_and_stopped_once(
    tiny_config: Path, tiny_collection: Path, tmp_path: Path, trained: Path, results: Callable[[Path], Any]
) -> None:
    """The short version: SIGKILL while the first weights are written, SIGTERM in the second epoch."""
    start, killed, whole = starter(tiny_config, tiny_collection, 3), tmp_path / "killed", tmp_path / "whole"
    run = start(killed, at=3, inside=True)
    assert run.wait() == -signal.SIGKILL
    assert not (killed / "model.safetensors").exists() and list(killed.glob(".model.safetensors.*.tmp"))
    run = start(killed, "--resume", at=5, number=signal.SIGTERM)
    assert run.wait() == 130 and (killed / "last" / "state.pt").is_file()
    assert start(killed, "--resume").wait() == 0
    assert start(whole).wait() == 0
    assert results(killed) == results(whole)
    assert not list(killed.rglob("*.tmp"))


@pytest.mark.slow
def test_killed_at_seeded_moments(
    system: tuple[Path, Path], tmp_path: Path, results: Callable[[Path], Any], request: pytest.FixtureRequest
) -> None:
    start, whole = starter(*system, epochs=6), tmp_path / "whole"
    assert start(whole).wait() == 0
    expected = results(whole)
    lines = len(expected[1])
    choose = random.Random(request.node.name)
    done = 0
    while done < KILLS:
        killed, moments = tmp_path / f"killed{done}", []
        for attempt in range(min(KILLS_A_RUN, KILLS - done)):
            # States every few milliseconds: most kills fall between two steps of an epoch, some into a write.
            at, number, inside = choose.randint(1, lines // KILLS_A_RUN), signal.SIGKILL, choose.random() < 0.5
            if choose.random() < 0.4:
                number, inside = signal.SIGTERM, False
            moments.append((at, number.name, inside))
            options = ["train.save_minutes=1e-4", *(["--resume"] if attempt else [])]
            run = start(killed, *options, at=at, number=number, inside=inside)
            _, said = run.communicate()
            assert run.returncode == (130 if number is signal.SIGTERM else -number), (moments, said.decode())
            done += 1
        run = start(killed, "--resume")
        assert run.wait() == 0, (moments, run.stderr.read().decode() if run.stderr else "")
        assert results(killed) == expected, moments
        assert not list(killed.rglob("*.tmp")), moments


@pytest.mark.slow
def test_killed_from_outside_at_any_time(
    tiny_config: Path, tiny_collection: Path, tmp_path: Path, results: Callable[[Path], Any]
) -> None:
    """The moment is the clock's: it may fall into any line of ours or of a library."""
    start, whole, killed = starter(tiny_config, tiny_collection, 60), tmp_path / "whole", tmp_path / "killed"
    assert start(whole).wait() == 0
    choose = random.Random(time.time_ns())
    log = killed / "metrics.jsonl"
    moments = sorted(choose.uniform(0.05, 0.95) * (whole / "metrics.jsonl").stat().st_size for _ in range(3))
    for attempt, moment in enumerate(moments):
        run = start(killed, "train.save_minutes=1e-4", *(["--resume"] if attempt else []))
        while run.poll() is None and (not log.exists() or log.stat().st_size < moment):
            time.sleep(0.001)
        time.sleep(choose.uniform(0, 0.05))
        assert run.poll() is None, "the run ended before it was killed"
        run.kill()
        run.wait()
    assert start(killed, "--resume").wait() == 0
    assert results(killed) == results(whole), moments
