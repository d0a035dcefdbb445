"""Processes that read data beside the training."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from nrccr.data.batch import Parts


def ignore_signals(worker: int) -> None:
    """Signals may reach all processes of a group; the loop decides when its workers end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextmanager
def stopped(batches: Iterator[Parts[Any]]) -> Iterator[Iterator[Parts[Any]]]:
    """End the workers, also on an error: its traceback would keep them, and they ignore the signal to end at exit."""
    try:
        yield batches
    finally:
        end = getattr(batches, "_shutdown_workers", None)  # torch does it when the iterator is collected, no sooner
        if end is not None:
            end()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put off what torch raises when a worker dies, at any line, until a write is whole."""
    number = getattr(signal, "SIGCHLD", None)
    if number is None:
        yield
        return
    deaths: list[FrameType | None] = []
    before = signal.signal(number, lambda _, frame: deaths.append(frame))
    try:
        yield
    finally:
        signal.signal(number, before)
        if deaths and callable(before):
            before(number, deaths[0])
