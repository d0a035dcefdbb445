"""What happens to a run when its machine fails it: no space, no first state, lost weights, a dead worker."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from nrccr.safeload.unpickle import load_checkpoint
from nrccr.training.loop import Trainer
from nrccr.training.runfolder import RunFolder
from nrccr.training.workers import undisturbed
from tests.conftest import FullDisk

Train = Callable[..., Any]
Results = Callable[[Path], Any]


class Killed(BaseException):
    """In place of SIGKILL: nothing of ours catches it."""


@pytest.mark.parametrize("moment", ["begin", "run", "_finish_epoch", "save_state", "cut"])
def test_a_run_killed_before_its_first_state_begins_anew_with_the_same_bytes(
    train: Train, results: Results, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Before its first step, before its first weights, and after them."""
    run = tmp_path / "killed"

    def kill(*arguments: Any, **named: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        owner = RunFolder if moment in ("begin", "save_state", "cut") else Trainer
        patched.setattr(owner, "save_state" if moment == "cut" else moment, kill)
        with pytest.raises(Killed):
            train(run)
    assert (run / "model.safetensors").exists() == (moment in ("save_state", "cut"))
    if moment == "cut":  # the last line of the log was being written, the state too
        with (run / "metrics.jsonl").open("a") as file:
            file.write('{"kind": "tr')
        (run / "last").mkdir()
        (run / "last" / f".state.pt.{'0' * 16}.tmp").write_text("half")
    done = train(run, *(["--resume"] if moment != "begin" else []))
    assert done.code == 0, done.err
    assert results(run) == results(trained)
    assert [path.name for path in (run / "last").iterdir()] == ["state.pt"]


@pytest.mark.parametrize("change", ["finished", "second epoch", "resumed", "no log"])
def test_a_run_that_lost_its_state_later_is_not_begun_anew(train: Train, trained: Path, change: str) -> None:
    shutil.rmtree(trained / "last")
    run = json.loads((trained / "run.json").read_text())
    log = (trained / "metrics.jsonl").read_text().splitlines(keepends=True)
    first = [line for line in log if json.loads(line)["epoch"] == 1]
    finished = run.pop("finished") if change != "finished" else run["finished"]
    assert finished
    if change == "resumed":
        run["resumed"] = [{"after_step": 1}]
    (trained / "run.json").write_text(json.dumps(run))
    if change == "no log":
        (trained / "metrics.jsonl").unlink()
    else:
        (trained / "metrics.jsonl").write_text("".join(log if change == "second epoch" else first))
    if change == "no log":  # nothing says that it went beyond the first epoch, nor that it did not
        (trained / "metrics.jsonl").mkdir()
    weights = (trained / "model.safetensors").read_bytes()
    done = train(trained, "--resume")
    assert done.code == 2 and len(done.err.splitlines()) == 1
    assert (trained / "model.safetensors").read_bytes() == weights


def test_lost_weights_are_noticed_before_a_resume(train: Train, trained: Path) -> None:
    (trained / "model.safetensors").unlink()
    before = (trained / "run.json").read_bytes()
    done = train(trained, "--resume", "train.epochs=4")
    assert done.code == 2 and len(done.err.splitlines()) == 1
    assert "model.safetensors: missing, the weights of epoch" in done.err and "--overwrite" in done.err
    assert (trained / "run.json").read_bytes() == before


@pytest.mark.parametrize(("limit", "named"), [(1500, ""), (200_000, "model.safetensors"), (600_000, "last/state.pt")])
def test_a_full_disk_names_the_file(
    train: Train, tmp_path: Path, no_file_longer_than: FullDisk, limit: int, named: str
) -> None:
    with no_file_longer_than(limit):
        done = train(tmp_path / "run")
    assert done.code == 2 and len(done.err.splitlines()) == 1, done.err
    assert f"{tmp_path / 'run'}{'/' if named else ''}{named}: cannot be written (File too large)" in done.err
    assert "full" in done.err
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("limit", [200_000, 600_000, 2000])
def test_a_disk_that_fills_up_leaves_the_last_good_state(
    train: Train,
    results: Results,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_file_longer_than: FullDisk,
    limit: int,
) -> None:
    step, taken = Trainer.step, []
    log = ["train.log_every=1"] if limit == 2000 else []
    with monkeypatch.context() as patched, ExitStack() as stack:

        def step_on_less_space(self: Trainer, batch: Any) -> Any:
            taken.append(1)
            if len(taken) == 5:
                stack.enter_context(no_file_longer_than(limit))
            return step(self, batch)

        patched.setattr(Trainer, "step", step_on_less_space)
        done = train(tmp_path / "own", *log)
    assert done.code == 2 and len(done.err.splitlines()) == 1 and "full" in done.err, done.err
    assert ("metrics.jsonl" in done.err) == (limit == 2000)
    assert load_checkpoint(tmp_path / "own" / "last" / "state.pt")["position"]["step"] == 3
    assert train(tmp_path / "own", "--resume", *log).code == 0
    if limit != 2000:
        assert results(tmp_path / "own") == results(trained)


def test_a_reason_other_than_space_is_not_called_a_full_disk(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nrccr.files.os.replace", _refuse)
    done = train(tmp_path / "own")
    assert done.code == 2 and len(done.err.splitlines()) == 1
    assert "Permission denied" in done.err and "full" not in done.err


def _refuse(source: Path, target: Path) -> None:
    raise PermissionError(13, "Permission denied", str(source))


def test_features_that_change_are_noticed_by_a_resume(train: Train, trained: Path, tiny_collection: Path) -> None:
    features = tiny_collection / "vatex" / "FeatureData" / "i3d_kinetics" / "feature.bin"
    os.utime(features, ns=(1, 1))  # as a copy has it
    done = train(trained, "--resume", "train.epochs=4")
    assert done.code == 0 and "note: i3d_kinetics/feature.bin was written since" in done.out
    values = bytearray(features.read_bytes())
    values[len(values) // 2] ^= 1
    features.write_bytes(values)
    before = (trained / "run.json").read_bytes()
    done = train(trained, "--resume", "train.epochs=5")
    assert done.code == 2 and len(done.err.splitlines()) == 1
    assert "i3d_kinetics/feature.bin changed since" in done.err
    assert (trained / "run.json").read_bytes() == before
    run = json.loads(before)
    del run["features"]  # as earlier versions wrote it
    (trained / "run.json").write_text(json.dumps(run))
    assert train(trained, "--resume", "train.epochs=5").code == 0
    assert "i3d_kinetics/feature.bin" in json.loads((trained / "run.json").read_text())["features"]


def test_features_cut_while_they_are_read_are_one_line(
    train: Train, tiny_collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = tiny_collection / "vatex" / "FeatureData" / "i3d_kinetics" / "feature.bin"
    epoch = Trainer._epoch

    def cut_then_read(self: Trainer, *arguments: Any) -> None:
        os.truncate(features, 100)
        epoch(self, *arguments)

    monkeypatch.setattr(Trainer, "_epoch", cut_then_read)
    for name, workers in (("one", 0), ("two", 1)):
        content = features.read_bytes()
        done = train(tmp_path / name, f"data.workers={workers}")
        features.write_bytes(content)
        assert done.code == 2 and len(done.err.splitlines()) == 1, done.err
        assert f"{features}: truncated while it is read" in done.err
        assert not multiprocessing.active_children(), "they would keep the process from ending"


def test_a_dying_worker_is_one_line(
    train: Train, results: Results, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, taken = Trainer.step, []

    def step_then_kill(self: Trainer, batch: Any) -> Any:
        taken.append(1)
        if len(taken) == 4:
            (worker,) = multiprocessing.active_children()
            os.kill(worker.pid or 0, signal.SIGKILL)
            worker.join()
        return step(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", step_then_kill)
        done = train(tmp_path / "own", "data.workers=1", "train.batch_size=2", "train.save_minutes=1e-9")
    assert done.code == 2 and len(done.err.splitlines()) == 1, done.err
    assert "a process that reads data died" in done.err and "--resume" in done.err
    assert train(tmp_path / "own", "--resume", "data.workers=0", "train.batch_size=2").code == 0
    assert train(tmp_path / "whole", "train.batch_size=2").code == 0
    assert results(tmp_path / "own") == results(tmp_path / "whole")


def test_a_worker_that_dies_during_a_write_is_told_after_it() -> None:
    """torch raises at any line; its writer of archives would end the process."""
    told: list[int] = []
    before = signal.signal(signal.SIGCHLD, lambda number, _: told.append(number))
    try:
        with undisturbed():
            os.kill(os.getpid(), signal.SIGCHLD)
            assert told == []
        assert told == [signal.SIGCHLD]
        with undisturbed():
            pass
        assert told == [signal.SIGCHLD]
    finally:
        signal.signal(signal.SIGCHLD, before)
