"""What a run logs while it trains: metrics.jsonl, and the same numbers for tensorboard and other trackers."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from nrccr.config.schema import Config
from nrccr.errors import UserError, not_written
from nrccr.files import encodable, open_to_append
from nrccr.processes import mean_of_all
from nrccr.training.trackers import Trackers


class Window:
    """Means of named scalars since the last log line, summed on the device so that no step waits for them.

    A step that lacks one counts as 0 of it, so that the losses' means add up to that of their total.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add one step's scalars."""
        self.count += 1
        for name, value in values.items():
            value = value.detach().double()
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def means(self, step: int) -> dict[str, float]:
        """The means, over all processes; raises if one is not finite.

        Raises:
            UserError: a NaN or infinite loss, named with its step.
        """
        if not self.count:
            return {}
        names = list(self.sums)
        stacked = mean_of_all(torch.stack(list(self.sums.values())) / self.count)
        means = dict(zip(names, stacked.tolist(), strict=True))
        bad = [name for name, value in means.items() if not math.isfinite(value)]
        if bad:
            raise UserError(
                f"step {step}: {', '.join(bad)} is NaN or infinite within the last {self.count} steps; "
                "lower train.learning_rate or use train.precision=fp32"
            )
        return means

    def clear(self) -> None:
        """Start a new window."""
        self.sums, self.count = {}, 0


class Log:
    """metrics.jsonl, one JSON object a line, and the same numbers for the trackers of `train.report_to`.

    Args:
        folder: the run folder.
        kept: bytes of metrics.jsonl that a resumed run keeps; later lines are written again as it replays.
        step: the step it resumes from; tensorboard forgets later ones.
        config: names the trackers; tensorboard alone without it.
    """

    def __init__(self, folder: Path, kept: int = 0, step: int = 0, config: Config | None = None) -> None:
        self.path = folder / "metrics.jsonl"
        self._file = os.fdopen(open_to_append(self.path), "ab")
        self._file.truncate(kept)
        self._file.seek(kept)
        self._hook, threading.excepthook = threading.excepthook, self._in_thread
        self.board = folder / "tensorboard"
        self._names = ExitStack()
        self._board: SummaryWriter | None = None
        if config is None or "tensorboard" in config.train.report_to:
            with _naming(self.board):
                self.board.mkdir(exist_ok=True)
            board = self._names.enter_context(encodable(str(self.board)))
            self._board = SummaryWriter(board, purge_step=step + 1 if step else None)
        self._trackers = None if config is None else Trackers(config, folder, step)

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Write one line; `kind` is train or validation, `values` scalars or dicts of scalars."""
        with _naming(self.path):
            self._file.write(json.dumps({"kind": kind, "step": step, **values}).encode() + b"\n")
            self._file.flush()
        numbers = {f"{kind}/{name}": value for name, value in _flatten(values)}
        if self._board is not None:
            with _naming(self.board):
                for name, value in numbers.items():
                    self._board.add_scalar(name, value, step)
        if self._trackers is not None:
            self._trackers.write(step, numbers)

    def _in_thread(self, raised: threading.ExceptHookArgs) -> None:
        """Keep tensorboard's own thread from printing what the next call of its writer raises again in ours."""
        if not isinstance(raised.exc_value, OSError):
            self._hook(raised)

    def size(self) -> int:
        """Bytes written so far, safely on disk."""
        with _naming(self.path):
            os.fsync(self._file.fileno())
        if self._board is not None:
            with _naming(self.board):
                self._board.flush()
        return self._file.tell()

    def close(self) -> None:
        """Close all of it; what could not be written was said before."""
        for file in (self._file, self._board, self._trackers):
            with suppress(OSError):
                if file is not None:
                    file.close()
        self._names.close()
        threading.excepthook = self._hook


class NoLog:
    """The log of a process that leaves it to the first."""

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Write nothing."""

    def size(self) -> int:
        """No bytes."""
        return 0

    def close(self) -> None:
        """Nothing was opened."""


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn an error of writing, which names no file, into one line that does."""
    try:
        yield
    except OSError as error:
        raise not_written(path, error) from error


def _flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    flat: list[tuple[str, float]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat += _flatten(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)):
            flat.append((prefix + name, float(value)))
    return flat
