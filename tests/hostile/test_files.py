"""Small files that would take much: each is refused in one line, soon, and without memory."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nrccr.data.images import Vectors
from nrccr.errors import UserError
from nrccr.safeload.unpickle import load_records
from nrccr.systems.loading import load_retriever
from tests.hostile import corpus

# Reads every file of a folder; prints what is no refusal in one line, and how many MiB it took at most.
PROGRAM = """
import resource, sys, time
from pathlib import Path
from nrccr.errors import UserError
from nrccr.safeload import unpickle

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

unpickle.torch.zeros(3).sum()
before = peak()
for path in sorted(Path(sys.argv[2]).iterdir()):
    began, had = time.process_time(), peak()
    try:
        getattr(unpickle, sys.argv[1])(path)
        print(f"{path.name}: read")
    except UserError as error:
        if "\\n" in str(error) or str(path) not in str(error):
            print(f"{path.name}: {error}")
    if time.process_time() - began > 10 or peak() - had > 64:
        print(f"{path.name}: {time.process_time() - began:.1f} s, {peak() - had} MiB")
print("peak", peak() - before)
"""
CASES = {
    "load_checkpoint": corpus.write_checkpoints,
    "load_array": corpus.write_arrays,
    "load_weights": corpus.write_weights,
}


@pytest.mark.parametrize("door", CASES)
def test_hostile_files_are_refused_at_once(door: str, tmp_path: Path) -> None:
    paths = CASES[door](tmp_path)
    assert len(paths) == len(set(paths)) == len(list(tmp_path.iterdir())) >= 10
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, door, str(tmp_path)], capture_output=True, text=True, check=False, timeout=300
    )
    *wrong, last = done.stdout.splitlines() or [""]
    assert done.returncode == 0 and wrong == [], (done.returncode, wrong, done.stderr[-500:])
    assert last.startswith("peak ") and int(last.split()[1]) < 128


def test_hostile_records_are_refused(tmp_path: Path) -> None:
    for case, content in corpus.PICKLES.items():
        (tmp_path / "r.pkl").write_bytes(content)
        with pytest.raises(UserError) as caught:
            load_records(tmp_path / "r.pkl")
        assert "\n" not in str(caught.value), case


@pytest.mark.parametrize("options", [{}, {"model_type": ["img"]}])
def test_numbers_as_names_of_tensors_are_refused(options: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "model_best.pth.tar"
    torch.save({"model": [{1: torch.zeros(2)}] * 5, "opt": options}, path)
    with pytest.raises(UserError, match=re.escape(str(path)) + ".*published"):
        load_retriever(path, [], "cpu")


@pytest.mark.parametrize("content", [b"PK\x03\x04" + b"\0" * 99, b"\x93NUMPY\x01\x00\x0c\x00{'descr': (\n", b""])
def test_hostile_vectors_of_images_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "v.npy").write_bytes(content)
    (tmp_path / "ids.txt").write_text("a\n")
    with pytest.raises(UserError, match="not a .npy file of numbers"):
        Vectors(tmp_path / "v.npy", tmp_path / "ids.txt")
