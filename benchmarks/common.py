"""What the benchmarks share: arguments, ways that take turns, peak memory, floors, and a record of all that."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nrccr.data.batch import TextBatch

RESULTS = Path(__file__).parent / "results"
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def step_parser(description: str | None) -> argparse.ArgumentParser:
    """Arguments of a benchmark of steps: config, root, device, number of steps, overrides."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--device")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("overrides", nargs="*")
    return parser


def padded_plainly(rows: Sequence[Sequence[int]]) -> TextBatch:
    """Token ids of captions as the plain way pads them, one row after the other."""
    tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    mask = torch.zeros(tokens.shape, dtype=torch.bool)
    for index, row in enumerate(rows):
        tokens[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = True
    return TextBatch(tokens, mask)


def wait(device: torch.device) -> None:
    """Wait until a CUDA device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass
class Measured:
    """One way: seconds and processor seconds of each round, how far memory rose (MB), what it returned.

    Processor seconds leave out the time that other programs of a loaded machine took.
    """

    seconds: list[float] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)
    peak_mb: float = 0.0
    result: Any = None

    @property
    def median(self) -> float:
        """Seconds of the median round."""
        return statistics.median(self.seconds)

    @property
    def processor(self) -> float:
        """Processor seconds of the median round, of all threads."""
        return statistics.median(self.processor_seconds)

    def figures(self) -> dict[str, Any]:
        """What of it is recorded."""
        return {
            "median": self.median,
            "processor": self.processor,
            "seconds": self.seconds,
            "peak_mb": round(self.peak_mb, 1),
        }


def alternating(
    ways: Mapping[str, Callable[[], Any]],
    rounds: int,
    device: torch.device | None = None,
    *,
    repeated: bool = False,
) -> dict[str, Measured]:
    """Run the ways in turn, `rounds` times each, so that a load of the machine falls on all of them.

    Args:
        ways: what to run, by name.
        rounds: how often.
        device: on a CUDA device memory is the device's, and a way ends when the device has.
        repeated: a way keeps what it had freed, as the steps of a training do: memory is measured in a last round,
            without clock, since freed memory is given back to the system for it and has to be got anew.
    """
    gpu = device if device is not None and device.type == "cuda" else None
    measured = {name: Measured() for name in ways}
    for index in range(rounds + repeated):
        for name, run in ways.items():
            own = measured[name]
            own.result = None
            timed, watched = index < rounds, not repeated or index == rounds
            watch = nullcontext([0.0]) if not watched else peak_memory() if gpu is None else device_peak(gpu)
            with watch as peak:
                start, used = time.perf_counter(), time.process_time()
                own.result = run()
                if gpu is not None:
                    wait(gpu)
                if timed:
                    own.seconds.append(time.perf_counter() - start)
                    own.processor_seconds.append(time.process_time() - used)
            own.peak_mb = max(own.peak_mb, peak[0])
    return measured


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """How far resident memory rises inside, in MB, as the list's only entry; NaN where the system does not say."""
    found = [float("nan")]
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what the way before has freed, and glibc holds, would hide a rise
    with suppress(OSError):
        RESET.write_text("5")  # the high-water mark falls to what is held now
    before = _status("VmHWM")
    yield found
    found[0] = _status("VmHWM") - before


@contextmanager
def device_peak(device: torch.device) -> Iterator[list[float]]:
    """As peak_memory, of a CUDA device's tensors."""
    wait(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    found = [float("nan")]
    yield found
    found[0] = (torch.cuda.max_memory_allocated(device) - before) / 2**20


def _status(name: str) -> float:
    """A line of the process's status, in MB."""
    with suppress(OSError):
        match = re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text())
        if match:
            return int(match[1]) / 2**10
    return float("nan")


def best_seconds(run: Callable[[], Any], rounds: int = 9) -> float:
    """Processor seconds of the fastest of some calls, for floors: what the machine can do when it is let."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def read_rate() -> float:
    """Bytes a second that one thread reads from memory: the highest of 256 MB of float32."""
    values = np.ones(2**26, dtype=np.float32)
    return values.nbytes / best_seconds(values.max)


def copy_rate() -> float:
    """Bytes a second that one thread copies from memory to memory, each byte counted once."""
    values, copied = np.ones(2**25, dtype=np.float32), np.ones(2**25, dtype=np.float32)
    return values.nbytes / best_seconds(lambda: np.copyto(copied, values))


def record(name: str, figures: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Write what was measured, with the machine, its load now and the versions, to `folder`/NAME.json."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **figures}, indent=1) + "\n")
    return path


def machine() -> dict[str, Any]:
    """Processor, cores, load, threads and versions."""
    processor, flags = platform.processor() or platform.machine(), ""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text()
        processor = (re.search(r"model name\s*:\s*(.+)", text) or ["", processor])[1]
        flags = (re.search(r"flags\s*:\s*(.+)", text) or ["", ""])[1]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": processor,
        "extensions": [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags.split()],
        "cores": os.cpu_count(),
        "load": [round(load, 1) for load in os.getloadavg()],
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
