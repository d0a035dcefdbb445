"""Trackers of experiments: what they get, where it stays, and that a training outlives them."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from accelerate import PartialState

from nrccr.errors import UserError
from nrccr.systems.settings import build_config
from nrccr.training import trackers
from nrccr.training.log import Log
from nrccr.training.trackers import USUAL, require_trackers

Train = Callable[..., Any]
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
OTHERS = ("WANDB_", "MLFLOW_", "TRACKIO_", "NO_PROXY", "no_proxy")


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No environment of the user's, and a proxy that counts: nobody may ask it for anything."""
    asked: list[bytes] = []
    server = socket.create_server(("127.0.0.1", 0))

    def listen() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:  # closed at the end
                return
            asked.append(connection.recv(200))
            connection.close()

    threading.Thread(target=listen, daemon=True).start()
    for name in [name for name in os.environ if name.startswith(OTHERS)]:
        monkeypatch.delenv(name)
    for name in PROXIES:
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.getsockname()[1]}")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))  # without a login
    PartialState(cpu=True)
    yield
    server.close()
    assert asked == []


def tracking(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The library, which skips where it is missing; trackio reads its folder when it is imported."""
    for key in ("WANDB_ERROR_REPORTING", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(key, USUAL[key])  # as require_trackers has them while it imports
    library = pytest.importorskip(name, reason=f"{name}, of the extra trackers, is not installed")
    if name == "trackio":
        for module in (library, library.utils, library.sqlite_storage):
            monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "trackio")
    return library


def records(path: Path) -> Iterator[bytes]:
    """The records of a file of wandb, a log of LevelDB: a head, then blocks of 32 KB with parts in them."""
    content, place, whole = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if place % 32768 > 32768 - 7:  # no head fits into the rest of a block
            place += 32768 - place % 32768
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield whole
            whole = b""


def found_by(name: str, folder: Path, own: str, tmp_path: Path) -> list[tuple[int, str, float]]:
    """The numbers that a tracker's own files hold of a run: step, name, value."""
    if name == "mlflow":
        (path,) = (folder / "mlruns").glob(f"*/{own}")
        files = [file for file in (path / "metrics").rglob("*") if file.is_file()]
        lines = [(file, line.split()) for file in files for line in file.read_text().splitlines()]
        return [(int(line[2]), file.relative_to(path / "metrics").as_posix(), float(line[1])) for file, line in lines]
    if name == "trackio":
        with sqlite3.connect(tmp_path / "trackio" / "nrccr.db") as base:
            rows = base.execute("select step, metrics from metrics where run_name = ?", (own,)).fetchall()
        return [(step, key, value) for step, text in rows for key, value in json.loads(text).items()]
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for path in (folder / "wandb").glob(f"offline-run-*-{own}/*.wandb"):
        for data in records(path):
            record = Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "history":
                items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
                step = int(items.get("_step", record.history.step.num))
                found += [(step, key, json.loads(text)) for key, text in items.items() if key[0] != "_"]
    return found


@pytest.mark.parametrize("name", ["trackio", "wandb", "mlflow"])
def test_numbers_stay_here_and_a_resumed_run_goes_on(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tracking(name, monkeypatch, tmp_path)
    folder = tmp_path / "r\u00e9 n#1 %s: 'x'"
    folder.mkdir()
    config = build_config([], [f"train.report_to=[{name}]", "train.epochs=7"])
    log = Log(folder, config=config)
    log.write("train", 1, {"total": 2.5, "epoch": 1})
    log.write("validation", 2, {"text_to_visual": {"R@1": 3.0, "nDCG@10": 4.0}})
    kept = log.size()
    log.close()
    (own,) = (ids := json.loads((folder / "trackers.json").read_text())).values()
    assert capfd.readouterr().out == ""
    # Another length: mlflow would refuse a second value of a parameter.
    resumed = Log(folder, kept, 2, build_config([], [f"train.report_to=[{name}]", "train.epochs=9"]))
    resumed.write("train", 3, {"total": 1.5})
    resumed.close()
    assert json.loads((folder / "trackers.json").read_text()) == ids == {name: own}
    assert capfd.readouterr().out == f"{name}: tracked run {own} goes on\n"
    at = "_at_" if name == "mlflow" else "@"
    wanted = {
        (1, "train/total", 2.5), (1, "train/epoch", 1.0), (3, "train/total", 1.5),
        (2, f"validation/text_to_visual/R{at}1", 3.0), (2, f"validation/text_to_visual/nDCG{at}10", 4.0),
    }  # fmt: skip
    for _ in range(900):  # wandb's own process may still be writing
        found = set(found_by(name, folder, own, tmp_path))
        if found == wanted:
            break
        time.sleep(0.1)
    assert found == wanted
    assert not (folder / "tensorboard").exists()
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 3
    assert not {key for key in USUAL if key in os.environ} - {"WANDB_ERROR_REPORTING", "MLFLOW_DISABLE_TELEMETRY"}


def test_a_resumed_run_without_its_file_says_that_the_tracked_run_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tracking("mlflow", monkeypatch, tmp_path)
    config = build_config([], ["train.report_to=[tensorboard,mlflow]"])
    (tmp_path / "trackers.json").write_text('{"mlflow": "../../elsewhere", "other": 3}')
    Log(tmp_path, 0, 5, config).close()
    own = json.loads((tmp_path / "trackers.json").read_text())["mlflow"]
    assert capfd.readouterr().out == f"mlflow: tracked run {own} has a new one, from step 5\n"
    assert (tmp_path / "tensorboard").is_dir()


def test_a_server_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tracking("mlflow", monkeypatch, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # nobody listens there any more
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    log = Log(tmp_path, config=build_config([], ["train.report_to=[mlflow]"]))
    log.write("train", 1, {"total": 2.5})
    log.close()
    (line,) = capfd.readouterr().out.splitlines()
    assert line.startswith("note: mlflow: ") and line.endswith("goes on without it, metrics.jsonl is whole")
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["total"] == 2.5


def test_a_training_outlives_its_trackers_and_is_the_same(
    train: Train, results: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One fails in the second call, the other goes on; and the next training in this process begins anew."""
    mlflow = tracking("mlflow", monkeypatch, tmp_path)
    tracking("trackio", monkeypatch, tmp_path)
    assert train(tmp_path / "plain").code == 0
    log_metrics, calls = mlflow.log_metrics, []

    def fail(*arguments: Any, **options: Any) -> None:
        calls.append(options["step"])
        if len(calls) == 2:
            raise ConnectionError("the network is\ngone")
        log_metrics(*arguments, **options)

    monkeypatch.setattr(mlflow, "log_metrics", fail)
    done = train(tmp_path / "tracked", "train.report_to=[trackio,mlflow]")
    assert done.code == 0, done.err
    assert [line for line in done.out.splitlines() if "mlflow" in line] == [
        "note: mlflow: the network is; the training goes on without it, metrics.jsonl is whole"
    ]
    assert len(calls) == 2 and results(tmp_path / "tracked") == results(tmp_path / "plain")
    ids = json.loads((tmp_path / "tracked" / "trackers.json").read_text())
    steps = {step for step, _, _ in found_by("trackio", tmp_path / "tracked", ids["trackio"], tmp_path)}
    assert steps == {line["step"] for line in results(tmp_path / "plain")[1]}
    done = train(tmp_path / "again", "train.report_to=[mlflow]", "train.epochs=1")
    assert done.code == 0 and "note: mlflow" not in done.out


def test_an_absent_library_is_named_before_anything_is_written(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def need(module: str, extra: str) -> None:
        raise UserError(f"{module} is not installed; install it with `pip install 'nrccr[{extra}]'`")

    monkeypatch.setattr(trackers, "need", need)
    done = train(tmp_path / "run", "train.report_to=[tensorboard,wandb]")
    assert (done.code, done.out) == (2, "") and "wandb is not installed" in done.err and "nrccr[trackers]" in done.err
    assert not (tmp_path / "run").exists()
    require_trackers(["tensorboard"])  # needs nothing
    done = train(tmp_path / "run", "train.report_to=[wandbs]")
    assert done.code == 2 and "choose one of tensorboard, trackio, wandb, mlflow" in done.err
