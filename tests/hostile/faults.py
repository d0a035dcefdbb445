"""Runs of `nrccr` and of small programs in processes of their own, with what they took.

A forked process has torch and transformers already, so a case takes as long as its work; its peak memory includes them.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import resource
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
ADDRESS_SPACE = 8_000_000 * 1024  # as `ulimit -v 8000000`
SECONDS = 60  # for a case, before it counts as one without end
_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(["nrccr.cli.app", "nrccr.systems.nrccr.system", "nrccr.training.loop"])


@dataclass(frozen=True)
class Outcome:
    """What a process left.

    Attributes:
        code: its exit code, negative for a signal.
        out: what it printed.
        err: what it printed on standard error.
        seconds: wall-clock time without the start of Python.
        peak: largest resident memory in MB, libraries included.
    """

    code: int
    out: str
    err: str
    seconds: float
    peak: int


def run(
    action: Callable[[], object],
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    limited: bool = False,
) -> Outcome:
    """Call a function of a module in a process forked with all libraries loaded.

    Args:
        action: the function, which can be pickled.
        folder: where it runs.
        environment: variables to set before.
        limited: allow it 8 GB of addresses.
    """
    receiver, sender = _FORKING.Pipe(duplex=False)
    process = _FORKING.Process(target=_inside, args=(action, folder, dict(environment or {}), limited, sender))
    began = time.monotonic()
    process.start()
    sender.close()
    lost = Outcome(-signal.SIGKILL, "", f"no end within {SECONDS} seconds", SECONDS, 0)
    found = None
    if receiver.poll(SECONDS):
        try:
            found = receiver.recv()
        except EOFError:
            found = None
    else:
        process.kill()
        found = lost
    process.join()
    receiver.close()
    return found or Outcome(process.exitcode or -1, "", "died without a word", time.monotonic() - began, 0)


@dataclass(frozen=True)
class Command:
    """`nrccr ARGUMENTS`, to be run in a process of its own."""

    arguments: Sequence[str]

    def __call__(self) -> None:
        from nrccr.cli.app import main

        sys.argv = ["nrccr", *self.arguments]
        main()


@dataclass(frozen=True)
class Program:
    """A program of one file with its arguments, to be run in a process of its own."""

    path: str
    arguments: Sequence[str] = ()

    def __call__(self) -> None:
        sys.argv = [self.path, *self.arguments]
        runpy.run_path(self.path, run_name="__main__")


def _inside(action, folder, environment, limited, sender):  # type: ignore[no-untyped-def]
    os.chdir(folder)
    os.environ.update(environment)
    # Written where they belong, below Python too; read back as a file.
    files = [os.memfd_create("out"), os.memfd_create("err")]
    sys.stdin = io.StringIO()
    for number, file in zip((1, 2), files, strict=True):
        os.dup2(file, number)
    if limited:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    began, code = time.monotonic(), 0
    try:
        action()
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    seconds = time.monotonic() - began
    sys.stdout.flush()
    sys.stderr.flush()
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) // 1024
    texts = []
    for file in files:
        os.lseek(file, 0, os.SEEK_SET)
        texts.append(os.fdopen(file, "rb").read().decode("utf-8", errors="surrogateescape"))
    sender.send(Outcome(code, texts[0], texts[1], seconds, peak))
    sender.close()
    os._exit(0)
