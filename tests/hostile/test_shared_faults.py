"""Every case of ../shared/faults as its README runs it: a command in a process of its own, on a copy of the folder.

`pytest -m slow -s tests/hostile/test_shared_faults.py` prints of each: exit code, seconds, peak memory, last line.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
MOST_MEMORY = 8_000_000 * 1024  # of addresses, as `ulimit -v 8000000`
MOST_RESIDENT = 1024  # MiB
MOST_SECONDS = 300
pytestmark = pytest.mark.slow

SEES_ALIKE = """
import sys, nrccr
model = nrccr.load(sys.argv[1], device="cpu")
one, other = model.encode_image(["5/up.png", "5/phone.png"])
print(f"cosine {one @ other:.2f}")
"""
TEST = ["--root", "base/root", "--device", "cpu"]
BERT = "text.model=base/bert"
IMAGES = ["visual.kind=clip", "image.model=base/clip", BERT]
SMALL_IMAGES = "configs/nrccr/multi30k-small.yaml"


@dataclass(frozen=True)
class Case:
    """A command of a folder of cases.

    Attributes:
        command: arguments of `nrccr`, or of the interpreter where they begin with a script or `-c`.
        code: how it ends.
        words: parts of what it prints.
        before: a command of the shell that goes before.
        environment: variables that it gets besides.
        limited: whether its addresses are limited.
    """

    command: list[str]
    code: int = 2
    words: tuple[str, ...] = ()
    before: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    limited: bool = False


def train(config: str, root: str, out: str, *options: str) -> list[str]:
    """The command line of a training."""
    return ["train", config, "--root", root, "--out", out, "--device", "cpu", *options]


def odd_names(**environment: str) -> Case:
    """A root and a run folder named in GBK bytes."""
    root, out = (os.fsdecode(b"\xca\xd3\xc6\xb5" + ending) for ending in (b"/root", b"/out"))
    return Case(train("common/tiny.yaml", root, out), 0, (), "bash 4/make.sh", environment)


REPORTS = {
    "1 half": Case(train("1/half.yaml", "common/VS", "half"), 2, ("1/half", "encoder.layer.1.")),
    "1 wrong": Case(train("1/wrong.yaml", "common/VS", "wrong"), 2, ("1/wrong",)),
    "2": Case(["check", "common/tiny.yaml", "--root", "2/cr_only"], 0, ("12 │       24",)),
    "3": Case(train("3/c.yaml", "3/VS", "v"), 2, ("3/bert", "vocabulary")),
    "4": odd_names(),
    "4 in the C locale": odd_names(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"),
    "5": Case(["-c", SEES_ALIKE, "images"], 0, ("cosine 1.00",)),
    "7": Case(["7/overflow.py"], 1, ("ValueError", "overflows", "log=True")),
    "8": Case(["8/texts.py", "run"], 0, ("(2, ", "(1, ", "UserError", "1")),
}
HOSTILE = {
    "1": Case(
        [
            "train",
            "base/tiny.yaml",
            "--root",
            "base/root",
            "--out",
            "1/run",
            "--device",
            "cpu",
            "--resume",
            "train.epochs=4",
        ],
        2,
        ("1/run/last/state.pt",),
    ),
    "2": Case(["test", "2/run", *TEST], 0, (), "ln -s ../../victim.txt 2/run/test/.ranks.tsv.tmp"),
    "3 bytearray": Case(["test", "3/bytearray", *TEST, BERT], limited=True),
    "3 memo": Case(["qbnorm", "--sims_test_path", "3/memo.pkl", "--method", "dsl"], limited=True),
    "3 memo c2kd": Case(["convert", "c2kd", "3/msrvtt_train.pkl", "OUT"], limited=True),
    "3 st": Case(["test", "3/st", *TEST], limited=True),
    "3 ext": Case(["test", "3/ext", *TEST], limited=True),
    "4": Case(["test", "4/run", *TEST], 2, ("4/run/config.yaml",)),
    "5": Case(
        train(SMALL_IMAGES, "5/iroot", "eps", *IMAGES, "image.pretrained=false"),
        environment={"PATH": f"5/bin:{os.environ.get('PATH', '')}"},
    ),
    "5 check": Case(
        ["check", SMALL_IMAGES, "--root", "5/iroot", *IMAGES],
        environment={"PATH": f"5/bin:{os.environ.get('PATH', '')}"},
    ),
    "7 bomb": Case(["check", "7/bomb.yaml", "--root", "base/root"], limited=True),
    "7 ck": Case(["test", "7/ck", *TEST, BERT], limited=True),
    "7 hash": Case(["qbnorm", "--sims_test_path", "7/hash.pkl", "--method", "dsl"], limited=True),
    "8": Case(["qbnorm", "--sims_test_path", "8/nest.pkl", "--method", "dsl"], limited=True),
    "12 bigint": Case(["check", "12/bigint.yaml", "--root", "base/root"], 2, ("12/bigint.yaml",)),
    "12 booltag": Case(["check", "12/booltag.yaml", "--root", "base/root"], 2, ("12/booltag.yaml",)),
    "12 listkey": Case(["check", "12/listkey.yaml", "--root", "base/root"], 2, ("12/listkey.yaml",)),
    "12 recursive": Case(["check", "12/recursive.yaml", "--root", "base/root"], 2, ("12/recursive.yaml",)),
    "12 integers as keys": Case(["test", "12/ck_intkeys", *TEST, BERT]),
    "12 vectors, a parenthesis": Case(["check", SMALL_IMAGES, "--root", "12/vec/openparen", BERT]),
    "12 vectors, a zip": Case(["check", SMALL_IMAGES, "--root", "12/vec/zip", BERT]),
}


@dataclass(frozen=True)
class Outcome:
    """How a process ended, after how many seconds, with how many MiB at most; what it printed."""

    code: int
    seconds: float
    mebibytes: int
    out: str
    err: str


def run(case: Case, folder: Path) -> Outcome:
    """Run a case in a folder."""
    if case.before:
        subprocess.run(case.before, shell=True, cwd=folder, check=True)
    script = case.command[0] == "-c" or case.command[0].endswith(".py")
    command = [sys.executable, *([] if script else ["-m", "nrccr"]), *case.command]
    limit = (lambda: resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))) if case.limited else None
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", **case.environment}
    began = time.monotonic()
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=err, preexec_fn=limit)
        signal.signal(signal.SIGALRM, lambda *_: process.kill())
        signal.alarm(MOST_SECONDS)
        _, status, usage = os.wait4(process.pid, 0)
        signal.alarm(0)
    said = [(folder / name).read_text(encoding="utf-8", errors="replace") for name in ("stdout", "stderr")]
    process.returncode = os.waitstatus_to_exitcode(status)
    return Outcome(process.returncode, time.monotonic() - began, usage.ru_maxrss // 1024, *said)


def judge(name: str, case: Case, done: Outcome) -> None:
    """Print a row, and hold the outcome against the case."""
    last = (done.err.strip() or done.out.strip() or "-").splitlines()[-1]
    row = f"| {name} | {done.code} | {done.seconds:.0f} | {done.mebibytes} | {last[:300]} |"
    sys.stdout.write("\n" + row.encode("ascii", "backslashreplace").decode() + "\n")
    assert done.code == case.code, done
    assert "Traceback" not in done.err or case.command[0].endswith(".py"), done
    if case.code == 2:
        assert len(done.err.splitlines()) == 1, done
    assert done.mebibytes < MOST_RESIDENT
    for words in case.words:
        assert words in done.out + done.err, (words, done)


@pytest.fixture
def faults(shared: Path) -> Path:
    """The folder of cases; skips where there is none."""
    folder = shared / "faults"
    if not folder.is_dir():
        pytest.skip("needs the folder ../shared/faults, which this machine lacks")
    return folder


@pytest.fixture
def reports(faults: Path, tmp_path: Path) -> Iterator[Path]:
    """A writable copy of the reports, with this checkout's configurations."""
    folder = tmp_path / "reports"
    shutil.copytree(faults / "reports", folder, copy_function=shutil.copyfile)
    for path in folder.rglob("*.yaml"):
        path.write_text(path.read_text(encoding="utf-8").replace("CHECKOUT", str(CHECKOUT)), encoding="utf-8")
    shutil.copytree(faults / "hostile" / "base" / "clip", folder / "common" / "clip", copy_function=shutil.copyfile)
    yield folder


@pytest.mark.parametrize("name", REPORTS)
def test_reported(name: str, reports: Path) -> None:
    if name == "5":
        assert run(Case(train("common/img.yaml", "common/IS", "images", "train.epochs=1")), reports).code == 0
    if name == "8":
        assert run(Case(train("common/tiny.yaml", "common/VS", "run", "train.epochs=1")), reports).code == 0
    judge(name, REPORTS[name], run(REPORTS[name], reports))
    if REPORTS[name].code == 2:
        assert not any((reports / out).exists() for out in ("half", "wrong", "v"))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name: str, faults: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hostile"
    shutil.copytree(faults / "hostile", folder, copy_function=shutil.copyfile)
    (folder / "5" / "bin" / "gs").chmod(0o755)
    (folder / "configs").symlink_to(CHECKOUT / "configs")
    victim = (folder / "2" / "victim.txt").read_bytes()
    done = run(HOSTILE[name], folder)
    judge(name, HOSTILE[name], done)
    assert (folder / "2" / "victim.txt").read_bytes() == victim
    assert not (folder / "5" / "bin" / "gs_ran").exists()
    home = os.environ.get("HOME", "")
    assert not home or f"'{home}'" not in done.out + done.err
    assert not (folder / "OUT").exists() and not (folder / "eps").exists()
