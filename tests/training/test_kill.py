"""Kill training at seeded moments, resume until done: the weights are those of a run that nothing disturbed.

`NRCCR_KILLS=100 pytest -m slow tests/training/test_kill.py` takes an hour: 100 moments for each system; by default six,
one of each kind.
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
KILLS = int(os.environ.get("NRCCR_KILLS", "6"))
KILLS_A_RUN = 4
Start = Callable[..., subprocess.Popen[bytes]]

# What happens to a run at a moment -> its exit code and words of its one line.
KINDS = {
    "killed": (-signal.SIGKILL, ""),
    "killed in a write": (-signal.SIGKILL, ""),
    "stopped": (130, "resume with --resume"),
    "no space": (2, "full"),
    "worker killed": (2, "a process that reads data died"),
    "nan": (2, "NaN or infinite"),
}

# `nrccr` to which that happens, once its log has a number of lines.
DISTURBED = """
import multiprocessing, os, resource, signal, torch
from nrccr.training.log import Log
import nrccr.files as files
import nrccr.training.loop as loop
kind, wanted, lines = os.environ["KIND"], int(os.environ["AT"]), [0]
write, replace, step, begin = Log.write, os.replace, loop.Trainer.step, loop.ignore_signals
def due():
    return 0 < wanted <= lines[0]
def write_then_suffer(self, *arguments):
    write(self, *arguments)
    lines[0] += 1
    if not due():
        return
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "stopped" and lines[0] == wanted:
        os.kill(os.getpid(), signal.SIGTERM)
    elif kind == "no space":
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
    elif kind == "worker killed":
        for worker in multiprocessing.active_children():
            worker.kill()
def die_before_rename(source, target):
    if kind == "killed in a write" and due():
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
def step_from_nan(self, batch):
    if kind == "nan" and due():
        with torch.no_grad():
            self.trainable[0].fill_(float("nan"))
    return step(self, batch)
def begin_and_die(worker):
    if kind == "worker killed" and due():
        os.kill(os.getpid(), signal.SIGKILL)
    begin(worker)
Log.write, files.os.replace = write_then_suffer, die_before_rename
loop.Trainer.step, loop.ignore_signals = step_from_nan, begin_and_die
from nrccr.cli.app import main
main()
"""


@pytest.fixture(params=["nrccr", "mlcmr", "c2kd", "quartet"])
def system(request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """Configuration and root of each system, small."""
    config, root = {
        "nrccr": ("tiny_config", "tiny_collection"),
        "mlcmr": ("mlcmr_config", "both_languages"),
        "c2kd": ("c2kd_config", "tiny_languages"),
        "quartet": ("quartet_config", "tiny_collection"),
    }[request.param]
    return request.getfixturevalue(config), request.getfixturevalue(root)


def starter(config: Path, root: Path, epochs: int) -> Start:
    """A function of a run folder, what happens, when (0: never) and options: a training in a process of its own."""

    def start(out: Path, *options: str, kind: str = "killed", at: int = 0) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", DISTURBED, "train", str(config), "--root", str(root), "--out", str(out)]
        lengths = ["train.log_every=1", f"train.epochs={epochs}", f"train.patience={epochs}"]
        if kind == "worker killed":
            lengths.append("data.workers=1")
        return subprocess.Popen(
            [*command, "--device", "cpu", *options, *lengths],
            cwd=root.parent,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", "KIND": kind, "AT": str(at)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    return start


def test_killed_in_a_write_and_stopped_once(
    tiny_config: Path, tiny_collection: Path, tmp_path: Path, trained: Path, results: Callable[[Path], Any]
) -> None:
    """The short version: SIGKILL while the first weights are written, SIGTERM in the second epoch."""
    start, killed, whole = starter(tiny_config, tiny_collection, 3), tmp_path / "killed", tmp_path / "whole"
    run = start(killed, kind="killed in a write", at=3)
    assert run.wait() == -signal.SIGKILL
    assert not (killed / "model.safetensors").exists() and list(killed.glob(".model.safetensors.*.tmp"))
    run = start(killed, "--resume", kind="stopped", at=5)
    assert run.wait() == 130 and (killed / "last" / "state.pt").is_file()
    assert start(killed, "--resume").wait() == 0
    assert start(whole).wait() == 0
    assert results(killed) == results(whole)
    assert not list(killed.rglob("*.tmp"))


@pytest.mark.slow
def test_disturbed_at_seeded_moments(
    system: tuple[Path, Path], tmp_path: Path, results: Callable[[Path], Any], request: pytest.FixtureRequest
) -> None:
    start, whole = starter(*system, epochs=6), tmp_path / "whole"
    assert start(whole).wait() == 0
    expected = results(whole)
    latest = (len(expected[1]) - 2) // KILLS_A_RUN  # of an attempt: there is a step to go after all of them
    choose = random.Random(request.node.name)
    kinds = [kind for _ in range(-(-KILLS // len(KINDS))) for kind in choose.sample(list(KINDS), len(KINDS))][:KILLS]
    for first in range(0, KILLS, KILLS_A_RUN):
        disturbed, moments = tmp_path / f"disturbed{first}", []
        for attempt, kind in enumerate(kinds[first : first + KILLS_A_RUN]):
            moments.append((kind, choose.randint(1, latest)))
            # States every few milliseconds: most moments fall between two steps of an epoch, some into a write.
            options = ["train.save_minutes=1e-4", *(["--resume"] if attempt else [])]
            run = start(disturbed, *options, kind=kind, at=moments[-1][1])
            said = run.communicate()[1].decode()
            code, words = KINDS[kind]
            assert run.returncode == code and words in said, (moments, said)
            assert code < 0 or len([line for line in said.splitlines() if line.startswith("nrccr:")]) == 1, said
        run = start(disturbed, "--resume")
        assert run.wait() == 0, (moments, run.stderr.read().decode() if run.stderr else "")
        assert results(disturbed) == expected, moments
        assert not list(disturbed.rglob("*.tmp")), moments


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
