"""Every file that nrccr reads, damaged in the ways of a table: one line or a result, nothing half-written."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CHECKOUT
from tests.hostile import damage_table, stage
from tests.hostile.damage import GENERAL
from tests.hostile.damage_table import EITHER, READ, REFUSED, TARGETS, Case, Target

Command = Callable[..., Any]
SECONDS = 20
ENDS = {REFUSED: (2,), READ: (0,), EITHER: (0, 2)}
MEMORY = 2**30  # bytes that a command may take besides what the process has


def tree_of(folder: Path) -> dict[str, object]:
    """Every file below a folder with its content; links with what they lead to."""
    found: dict[str, object] = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            regular = path.is_file() and not path.is_symlink() and os.access(path, os.R_OK)
            found[str(path.relative_to(folder))] = path.read_bytes() if regular else os.lstat(path).st_mode
    return found


class TooLongError(BaseException):
    """A command takes too long; no `except Exception` is to take it for damage."""


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_config: Path) -> Path:
    """The stage, whole again for every test; made once."""
    folder = tmp_path_factory.getbasetemp() / "stage"
    whole = folder.with_name("stage_whole")
    if not whole.exists():
        folder.mkdir()
        command = request.getfixturevalue("nrccr_command")
        shutil.copytree(request.getfixturevalue("tiny_bert"), folder / "bert")
        shutil.copytree(request.getfixturevalue("tiny_collection"), folder / "root")
        shutil.copytree(request.getfixturevalue("tiny_images"), folder / "images")
        stage.write_configurations(folder, CHECKOUT / "configs", tiny_config)
        stage.write_scores(folder)
        stage.write_pieces(folder / "pieces")
        where = ("--root", folder / "root", "--device", "cpu")
        for words in (
            ("train", folder / "tiny.yaml", *where, "--out", folder / "run"),
            ("test", folder / "run", *where, "evaluation.save_scores=true"),
            ("bank", folder / "run", *where, "--size", 10),
        ):
            done = command(*words)
            assert done.code == 0, done.err
        shutil.copytree(folder / "run" / "test", folder / "tested")
        stage.write_published(folder)
        stage.write_encoders(folder)
        shutil.copytree(folder, whole)
    shutil.rmtree(folder)
    shutil.copytree(whole, folder)
    return folder


@contextmanager
def bounded() -> Iterator[None]:
    """A limit of time and of memory."""

    def stop(number: int, frame: object) -> None:
        raise TooLongError(f"no end within {SECONDS} s")

    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    handler = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, before[1]))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGALRM, handler)


CASES = list(damage_table.cases())
assert len({case.name for case in CASES}) == len(CASES)


def test_the_table_is_as_large_as_it_says() -> None:
    usual = [case for case in CASES if case.usual]
    assert len(CASES) > 700 and {case.target.file for case in usual} == {target.file for target in TARGETS}
    assert set(GENERAL) <= {case.damage for case in usual}


@pytest.mark.parametrize("target", {target.command: target for target in TARGETS}.values(), ids=lambda t: t.file)
def test_what_is_whole_is_read(target: Target, place: Path, nrccr_command: Command) -> None:
    with bounded():
        done = nrccr_command(*target.command.format(s=place).split())
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.name, marks=[] if case.usual else [pytest.mark.slow]) for case in CASES],
)
def test_damage(case: Case, place: Path, nrccr_command: Command) -> None:
    if case.damage == "unreadable" and os.geteuid() == 0:
        pytest.skip("root reads every file")
    case.change(place / case.target.file)
    before = tree_of(place)
    with bounded():
        done = nrccr_command(*case.target.command.format(s=place).split())
    shown = (done.code, done.err)
    assert "Traceback" not in done.err + done.out, shown
    assert done.code in ENDS[case.end], shown
    if done.code:
        shown_lines = [line for line in done.err.splitlines() if line and "Loading weights" not in line]  # a bar
        assert len(shown_lines) == 1 and shown_lines[0].startswith("nrccr: "), shown
        for words in case.says:
            assert words.format(s=place) in done.err, shown
        assert tree_of(place) == before
