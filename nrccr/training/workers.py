"""Processes that read data beside the training."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
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
