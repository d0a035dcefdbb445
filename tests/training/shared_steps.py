"""Training steps of one process or of several, for comparison: run by tests/training/test_processes.py."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nrccr.data.sampling import epoch_batches
from nrccr.distributed import Runtime, make_deterministic
from nrccr.processes import joined, rank, world
from nrccr.systems.base import system_of
from nrccr.systems.settings import load_config
from nrccr.training.loop import Trainer
from nrccr.training.rows import UsedRows
from nrccr.training.runfolder import RunFolder
from nrccr.training.task import Shared

STEPS = 3


@dataclass(frozen=True)
class Job:
    """A training to begin: configuration, root of the collection, overrides; and which epoch's steps it takes."""

    name: str
    config: Path
    root: Path
    overrides: Sequence[str] = ()
    epoch: int = 0


def steps_of(job: Job) -> dict[str, Any]:
    """The first steps, without dropout: losses of each, gradients and weights after the first."""
    config = load_config(job.config, list(job.overrides))
    make_deterministic(config.seed)
    task = system_of(config.model).task(config, job.root, torch.device("cpu"), test=False)
    trainer = Trainer(config, task, Runtime(torch.device("cpu")), RunFolder(Path("unused")))
    modules = {"network": trainer.network, **{name: player.module for name, player in task.players.items()}}
    for module in modules.values():
        _without_dropout(module)
    trainer.network.train()
    batches = epoch_batches(len(task.pairs), config.train.batch_size, config.seed, job.epoch)
    reports: list[dict[str, float]] = []
    gradients: dict[str, Tensor] = {}
    weights: dict[str, Tensor] = {}
    for whole in batches[:STEPS]:
        report = trainer.step(Shared(task.pairs.at_epoch(job.epoch), rank(), world())[whole])
        reports.append({name: value.item() for name, value in report.items()})
        if not gradients:
            for name, module in modules.items():
                gradients |= {
                    f"{name}.{key}": value.grad.clone()
                    for key, value in module.named_parameters()
                    if value.grad is not None
                }
                # Used rows of a word table have their gradient apart from it.
                gradients |= {
                    f"{name}.{key}.weight": table.whole(table.own.grad)
                    for key, table in module.named_modules()
                    if isinstance(table, UsedRows) and table.own is not None and table.own.grad is not None
                }
                weights |= {f"{name}.{key}": value.clone() for key, value in module.state_dict().items()}
            for name, module in task.memory.items():
                weights |= {f"{name}.{key}": value.clone() for key, value in module.state_dict().items()}
    return {"reports": reports, "gradients": gradients, "weights": weights}


def _without_dropout(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def in_process(own: int, count: int, port: int, jobs: Sequence[Job], folder: Path) -> None:
    """One of `count` processes: what each of them finds of each job, as files."""
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(own), "LOCAL_RANK": str(own), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    with joined():
        for job in jobs:
            torch.save(steps_of(job), folder / f"{job.name}-{own}.pt")
