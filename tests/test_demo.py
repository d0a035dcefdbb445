"""`scripts/demo.sh` from nothing to the page, in a toy size: everything but the installation."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.search.serving import ask, wait_for

DEMO = Path(__file__).resolve().parents[1] / "scripts" / "demo.sh"
SIZES = {"VIDEOS": "10,3,3", "CAPTIONS": "2", "STEPS": "4", "EPOCHS": "1", "PORT": "0", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment whose Python is this one and installs nothing."""
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    for name in ("python", "python3"):
        path = tmp_path / "venv" / "bin" / name
        path.write_text(f'#!/bin/sh\nif [ "$2" = pip ]; then exit 0; fi\nexec "{sys.executable}" "$@"\n')
        path.chmod(0o755)
    source = os.pathsep.join([str(DEMO.parents[1]), os.environ.get("PYTHONPATH", "")])
    return os.environ | SIZES | {"VIRTUAL_ENV": str(tmp_path / "venv"), "PYTHONPATH": source}


@pytest.mark.slow
def test_from_nothing_to_a_page(environment: dict[str, str], tmp_path: Path) -> None:
    """Once to its end; rerun it keeps what is done, and serves until Ctrl-C."""
    for extra in ("av", "faiss", "gradio", "sentencepiece"):
        pytest.importorskip(extra, reason="needs the extras extract, search, serve and translate")
    folder = tmp_path / "demo"
    once = subprocess.run(
        [DEMO, "--no-serve", folder], env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert once.returncode == 0, once.stdout + once.stderr
    assert "== done" in once.stdout and "serving" not in once.stdout
    assert once.stdout.count("unseen sentences exact") == 2 and "3 items in" in once.stdout
    metrics = json.loads((folder / "nrccr" / "test" / "metrics.json").read_text())
    assert (metrics["items"], metrics["queries"]) == (3, 6)
    found = re.findall(r"test0000\d", once.stdout[once.stdout.index("== a German query") :])
    assert sorted(found) == ["test00000", "test00001", "test00002"]
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}

    again = subprocess.Popen([DEMO, folder], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert again.stdout is not None
    try:
        said = ""
        for line in again.stdout:
            said += line
            address = re.search(r"http://127\.0\.0\.1:(\d+)", line)
            if address is not None:
                break
        else:
            raise AssertionError(said)
        wait_for(int(address[1]))
        status, film = ask(int(address[1]), "GET", "/media/test00001", headers={"Range": "bytes=0-99"})
        assert status == 206 and film[4:8] == b"ftyp"
    finally:
        os.killpg(again.pid, signal.SIGINT)  # as the terminal does on Ctrl-C
        rest, _ = again.communicate(timeout=60)
    assert again.returncode == 0 and "unseen sentences" not in said and "epoch" not in said, said + rest
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_an_unknown_option_is_one_line() -> None:
    done = subprocess.run([DEMO, "--serve"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith("usage: scripts/demo.sh")
