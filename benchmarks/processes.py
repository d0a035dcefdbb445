"""The same batches by one process and by several that share each of them: seconds a step, and the ratio.

Cores are divided: one process has as many threads as all of the others together. Rounds alternate, medians are given.

    python benchmarks/processes.py CONFIG --root ROOT [--processes 2] [--steps N] [--rounds 3] [key=value ...]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.multiprocessing

from nrccr.data.sampling import epoch_batches
from nrccr.distributed import Runtime, make_deterministic
from nrccr.processes import is_first, joined, rank, wait_for_all, world
from nrccr.systems.base import system_of
from nrccr.systems.settings import load_config
from nrccr.training.loop import Trainer
from nrccr.training.runfolder import RunFolder
from nrccr.training.task import Shared


def measure(given: argparse.Namespace) -> dict[str, float]:
    """Median seconds of a step, its loss, and seconds of processor time of this process."""
    config = load_config(given.config, given.overrides)
    make_deterministic(config.seed)
    device = torch.device("cpu")
    task = system_of(config.model).task(config, given.root, device, test=False)
    trainer = Trainer(config, task, Runtime(device, config.train.precision), RunFolder(Path("unused")))
    trainer.network.train()
    batches = epoch_batches(len(task.pairs), config.train.batch_size, config.seed, 0)[: given.steps + 1]
    pairs, walls, used = Shared(task.pairs.at_epoch(0), rank(), world()), [], []
    for whole in batches:
        part = pairs[whole]
        wait_for_all()
        begun, processor = time.perf_counter(), time.process_time()
        loss = trainer.step(part)["total"].item()
        walls.append(time.perf_counter() - begun)
        used.append(time.process_time() - processor)
    return {"seconds": statistics.median(walls[1:]), "processor": statistics.median(used[1:]), "loss": loss}


def one_of(own: int, port: int, threads: int, given: argparse.Namespace, result: Path) -> None:
    """One process of several; the first writes what it measured."""
    torch.set_num_threads(threads)
    count = str(given.processes)
    os.environ |= {"RANK": str(own), "LOCAL_RANK": str(own), "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with joined():
        found = measure(given)
        if is_first():
            result.write_text(json.dumps(found))


def alone(_: int, threads: int, given: argparse.Namespace, result: Path) -> None:
    """All of the batch in one process."""
    torch.set_num_threads(threads)
    result.write_text(json.dumps(measure(given)))


def main() -> None:
    """Print what was measured, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_intermixed_args()
    cores = len(os.sched_getaffinity(0))
    found: dict[str, list[dict[str, float]]] = {"one": [], "several": []}
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        for _ in range(given.rounds):
            torch.multiprocessing.spawn(alone, (cores, given, result))
            found["one"].append(json.loads(result.read_text()))
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            threads = max(1, cores // given.processes)
            torch.multiprocessing.spawn(one_of, (port, threads, given, result), nprocs=given.processes)
            found["several"].append(json.loads(result.read_text()))
    medians = {name: statistics.median(run["seconds"] for run in runs) for name, runs in found.items()}
    report = {"seconds a step": medians, "one : several": medians["one"] / medians["several"], "rounds": found}
    print(json.dumps(report | {"processes": given.processes, "cores": cores, "load": os.getloadavg()}, indent=2))


if __name__ == "__main__":
    main()
