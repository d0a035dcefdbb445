"""Commands in several processes: started by --device, ended together, resumed by another number of them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nrccr.cli.launch import LOST, _explained, leave
from nrccr.cli.train import require_parts
from nrccr.config.schema import Config
from nrccr.distributed import choose_device, choose_devices
from nrccr.errors import Interrupted, PeerLostError, UserError
from nrccr.safeload.unpickle import load_checkpoint
from nrccr.training.task import Task

CHECKOUT = Path(__file__).resolve().parents[2]
Command = Callable[..., Any]


def started(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    """`nrccr` with these arguments, in a process of its own."""
    command = [sys.executable, "-m", "nrccr", *map(str, arguments)]
    env = os.environ | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"} | environment
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def processes_of(parent: int) -> list[int]:
    """The processes that a process has started, in their order."""
    return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def wait_for_steps(out: Path, running: subprocess.Popen[str]) -> None:
    log = out / "metrics.jsonl"
    while not (log.exists() and log.stat().st_size):
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc to find processes")
def test_two_processes_end_together_and_one_goes_on(
    tiny_config: Path, tiny_collection: Path, tmp_path: Path, nrccr_command: Command
) -> None:
    out = tmp_path / "run"
    command = ("train", tiny_config, "--root", tiny_collection, "--out", out)
    first = started(*command, "--device", "cpu,cpu", "train.epochs=100000", "train.patience=null")
    wait_for_steps(out, first)
    os.kill(processes_of(first.pid)[1], signal.SIGTERM)
    _, said = first.communicate(timeout=300)
    assert first.returncode == 130 and len(said.splitlines()) == 1 and "resume with --resume" in said, said
    assert json.loads((out / "run.json").read_text())["processes"] == 2
    steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    epochs = steps[-1]["epoch"] + 1
    alone = nrccr_command(*command, "--device", "cpu", "--resume", f"train.epochs={epochs}", "train.patience=null")
    assert alone.code == 0 and "another number of processes" in alone.out, alone
    assert json.loads((out / "run.json").read_text())["finished"]["step"] == 3 * epochs


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc to find processes")
def test_a_process_that_is_killed_ends_all_with_one_line(
    tiny_config: Path, tiny_collection: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    running = started(
        "train", tiny_config, "--root", tiny_collection, "--out", out, "--device", "cpu,cpu", "train.epochs=100000",
        "train.patience=null",
    )  # fmt: skip
    wait_for_steps(out, running)
    os.kill(processes_of(running.pid)[0], signal.SIGKILL)
    _, said = running.communicate(timeout=300)
    assert running.returncode == 2 and len(said.splitlines()) == 1, said
    assert "process 1 of 2 was ended by signal 9" in said and "--resume" in said


def test_a_sharded_test_has_the_ranks_of_one_process(
    trained: Path, tiny_collection: Path, tmp_path: Path, nrccr_command: Command
) -> None:
    there = ("test", trained, "--root", tiny_collection)
    shared = started(*there, "--device", "cpu,cpu,cpu", "--out", tmp_path / "shared")
    assert nrccr_command(*there, "--device", "cpu", "--out", tmp_path / "alone").code == 0
    told, said = shared.communicate(timeout=300)
    assert shared.returncode == 0 and said == "", said
    assert told.count("written: ") == 1
    for name in ("metrics.json", "ranks.tsv", "ranks_visual.tsv"):
        assert (tmp_path / "shared" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


@pytest.mark.slow
def test_two_processes_go_on_to_the_byte(tiny_config: Path, tiny_collection: Path, tmp_path: Path) -> None:
    def train(out: Path, *options: str) -> dict[str, Any]:
        there = ("--root", tiny_collection, "--out", out, "--device", "cpu,cpu")
        done = started("train", tiny_config, *there, *options)
        _, said = done.communicate(timeout=300)
        assert done.returncode == 0, said
        return load_checkpoint(out / "last" / "state.pt")

    whole = train(tmp_path / "whole")
    train(tmp_path / "cut", "train.epochs=1")
    resumed = train(tmp_path / "cut", "--resume")
    assert list(whole["random"]) == ["cpu", "cpu.1"]
    for part in ("network", "random"):
        assert all(torch.equal(whole[part][name], resumed[part][name]) for name in whole[part])
    best = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert best[0] == best[1]


@pytest.mark.slow
def test_processes_share_the_image_cache(
    tiny_images: Path, tiny_bert: Path, tiny_clip: Path, tmp_path: Path, nrccr_command: Command
) -> None:
    def arguments(name: str) -> list[object]:
        return [
            "train", "nrccr/multi30k-small", "--root", tiny_images, "--out", tmp_path / name, f"text.model={tiny_bert}",
            "text.backbone.hidden_size=32", "text.backbone.intermediate_size=64", "text.width=32", "text.heads=4",
            "visual.width=32", "joint.width=24", "train.epochs=1", "evaluation.batch_size=5", "visual.kind=clip",
            f"image.model={tiny_clip}", "image.pretrained=false", f"image.cache={tmp_path / name}-cache",
        ]  # fmt: skip

    shared = started(*arguments("shared"), "--device", "cpu,cpu")
    alone = nrccr_command(*arguments("alone"), "--device", "cpu")
    _, said = shared.communicate(timeout=300)
    assert (shared.returncode, alone.code) == (0, 0), (said, alone.err)
    for place in (tmp_path / "alone-cache").iterdir():
        for file in place.iterdir():
            assert (tmp_path / "shared-cache" / place.name / file.name).read_bytes() == file.read_bytes()
    assert len(list((tmp_path / "shared-cache").iterdir())) == 2


@pytest.mark.slow
def test_processes_share_the_cache_of_frozen_layers(
    tiny_config: Path, tiny_collection: Path, tmp_path: Path, nrccr_command: Command
) -> None:
    def arguments(name: str) -> list[object]:
        frozen = ("reading=corrected", "text.freeze=frozen", "text.trainable_layers=[1]", "train.epochs=1")
        there = ("--root", tiny_collection, "--out", tmp_path / name, f"text.cache={tmp_path / name}-cache")
        return ["train", tiny_config, *there, *frozen]

    shared = started(*arguments("shared"), "--device", "cpu,cpu")
    alone = nrccr_command(*arguments("alone"), "--device", "cpu")
    _, said = shared.communicate(timeout=300)
    assert (shared.returncode, alone.code) == (0, 0), (said, alone.err)
    places = list((tmp_path / "alone-cache").iterdir())
    assert len(places) == len(list((tmp_path / "shared-cache").iterdir())) == 5
    for place in places:
        for file in place.iterdir():
            assert (tmp_path / "shared-cache" / place.name / file.name).read_bytes() == file.read_bytes()


@pytest.mark.slow
def test_an_error_of_all_processes_is_one_line(tiny_config: Path, tiny_collection: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("")
    done = started(
        "train", tiny_config, "--root", tiny_collection, "--device", "cpu,cpu", "--out", tmp_path / "taken"
    )  # fmt: skip
    told, said = done.communicate(timeout=300)
    assert (done.returncode, told) == (2, "") and len(said.splitlines()) == 1 and "not a run folder" in said, said


@pytest.mark.parametrize(
    ("devices", "says"),
    [
        ("cpu,", "unknown device"),
        ("cpu,gpu", "--device gpu: unknown device"),
        ("cpu,cuda:97", "this machine has"),
        ("97,98", "--device cuda:97: this machine has"),
    ],
)
def test_devices_that_are_not_there_are_refused(start: Command, devices: str, says: str) -> None:
    done = start("--device", devices)
    assert done.code == 2 and len(done.err.splitlines()) == 1 and says in done.err, done.err


def test_several_devices_need_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [device.type for device in choose_devices("cpu,cpu")] == ["cpu", "cpu"]
    with pytest.raises(UserError, match="only train, test and bank take several"):
        choose_device("cpu,cpu")
    monkeypatch.setattr("nrccr.distributed._gpus", lambda: 2)
    assert [device.index for device in choose_devices("1,cuda:0")] == [1, 0]
    for twice in ("0,0", "cpu,0"):
        with pytest.raises(UserError, match="each GPU once"):
            choose_devices(twice)


def test_every_process_needs_a_part_of_every_batch() -> None:
    nothing: Any = None
    task = Task(nothing, nothing, {}, range(3), nothing, {}, nothing, several=True)  # type: ignore[arg-type]
    config = Config()
    require_parts(config, task, 3)
    with pytest.raises(UserError, match="training pairs: 3 for 4 processes"):
        require_parts(config, task, 4)
    small = config.model_copy(update={"train": config.train.model_copy(update={"batch_size": 2})})
    with pytest.raises(UserError, match="train.batch_size: 2 for 3 processes"):
        require_parts(small, task, 3)
    require_parts(config, replace(task, several=False), 1)
    with pytest.raises(UserError, match="model=nrccr: trains in one process"):
        require_parts(config, replace(task, several=False), 2)


@pytest.mark.parametrize(
    ("codes", "says"),
    [
        ({0: LOST, 1: -9}, "process 2 of 2 was ended by signal 9"),
        ({0: -15, 1: -9}, "process 2 of 2 was ended by signal 9"),
        ({0: LOST, 1: LOST}, "lost each other"),
    ],
)
def test_how_processes_ended(codes: dict[int, int], says: str) -> None:
    ended = _explained(codes, 2)
    assert isinstance(ended, UserError) and says in str(ended)


def test_what_a_process_has_said_is_not_said_again() -> None:
    for codes, code in (({0: 2, 1: -15}, 2), ({0: 130, 1: 130}, 130), ({0: LOST, 1: 2}, 2)):
        ended = _explained(codes, 2)
        assert isinstance(ended, SystemExit) and ended.code == code


LAUNCHERS = {  # as in docs/scaling.md
    "torchrun": ["torch.distributed.run", "--nproc-per-node", "2", "--master-port"],
    "accelerate": [
        "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--num_processes", "2", "--mixed_precision",
        "no", "--dynamo_backend", "no", "--main_process_port",
    ],
}  # fmt: skip


def launched(launcher: str, *arguments: object) -> subprocess.Popen[str]:
    """`nrccr` with these arguments in two processes of a launcher that users know."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", *LAUNCHERS[launcher], str(port), "-m", "nrccr", *map(str, arguments)]
    env = os.environ | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_launchers_that_users_know_train_as_we_do(tiny_config: Path, tiny_collection: Path, tmp_path: Path) -> None:
    there = ("train", tiny_config, "--root", tiny_collection, "train.epochs=1")
    ours = started(*there, "--device", "cpu,cpu", "--out", tmp_path / "ours")
    _, said = ours.communicate(timeout=300)
    assert ours.returncode == 0, said
    for launcher in LAUNCHERS:
        running = launched(launcher, *there, "--device", "cpu", "--out", tmp_path / launcher)
        told, said = running.communicate(timeout=300)
        assert running.returncode == 0, said
        assert told.count("val: ") == 1, told  # the first process alone speaks
        assert json.loads((tmp_path / launcher / "run.json").read_text())["processes"] == 2
        weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("ours", launcher)]
        assert weights[0] == weights[1]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc to find processes")
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_launchers_process_that_is_killed_ends_all(
    launcher: str, tiny_config: Path, tiny_collection: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    running = launched(
        launcher, "train", tiny_config, "--root", tiny_collection, "--out", out, "--device", "cpu",
        "train.epochs=100000", "train.patience=null",
    )  # fmt: skip
    wait_for_steps(out, running)
    os.kill(processes_of(running.pid)[1], signal.SIGKILL)
    _, said = running.communicate(timeout=300)
    ours = [line for line in said.splitlines() if line.startswith("nrccr: ")]  # the launcher has its own report
    assert running.returncode != 0 and len(ours) <= 1, said
    assert not ours or ("another process of this run has ended" in ours[0] and "--resume" in ours[0])


@pytest.mark.parametrize(
    ("error", "world", "left"),
    [(Interrupted("stopped"), 2, 1), (Interrupted("stopped"), 1, 0), (UserError("no such file"), 2, 0)],
)
def test_the_group_is_left_where_all_were_stopped(
    error: Exception, world: int, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may not be there after an error; who waits for them when all were stopped may lose them too."""
    calls = []

    def lose() -> None:
        calls.append(world)
        raise PeerLostError("gone")

    monkeypatch.setitem(sys.modules, "nrccr.processes", SimpleNamespace(world=lambda: world, leave=lose))
    leave(error)
    assert len(calls) == left


@pytest.mark.parametrize("several", [True, False])
def test_one_of_several_ends_without_the_end_of_python(several: bool) -> None:
    """Its output is written and what is registered is done; an object that lives to the end is not taken down."""
    code = (
        "import atexit, sys\n"
        "from nrccr.cli.launch import end_of_several\n"
        "class Late:\n"
        "    def __del__(self, write=sys.stdout.write):\n"
        "        write('late ')\n"
        "late = Late()\n"
        "atexit.register(sys.stdout.write, 'registered ')\n"
        "sys.stdout.write('said ')\n"
        "end_of_several(3)\n"
        "sys.stdout.write('went on ')\n"
    )
    places = {"RANK": "0", "WORLD_SIZE": "2" if several else "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | places, capture_output=True, text=True, check=False
    )
    wanted = (3, "said registered ") if several else (0, "said went on registered late ")
    assert (done.returncode, done.stdout) == wanted, done.stderr
