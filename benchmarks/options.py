"""What the options of a training cost and save, in turns in one run: seconds of a step and how far memory rises.

    python benchmarks/options.py CONFIG --root ROOT [--device cpu|cuda:0] [--steps N] [--name NAME] [key=value ...]

Each option trains a network of its own from the same weights, on the same batches. Before the rounds every one takes a
step without dropout, whose loss in fp32 must be that of no option; the measured steps have dropout as they are given.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, alternating, record, step_parser, wait
from torch import nn

from nrccr.config.schema import Config
from nrccr.data.sampling import epoch_batches
from nrccr.distributed import Runtime, choose_device, keep_freed_memory, make_deterministic
from nrccr.systems.base import system_of
from nrccr.systems.settings import load_config
from nrccr.training.loop import Trainer
from nrccr.training.runfolder import RunFolder


class Way:
    """Steps of one option, one after the other."""

    def __init__(self, config: Config, root: Path, device: torch.device) -> None:
        make_deterministic(config.seed)
        task = system_of(config.model).task(config, root, device, test=False)
        self.trainer = Trainer(config, task, Runtime(device, config.train.precision), RunFolder(Path("unused")))
        self.trainer.network.train()
        pairs = task.pairs.at_epoch(0)
        order = epoch_batches(len(pairs), config.train.batch_size, config.seed, 0)
        self.batches = (pairs[indices].to(device) for indices in order)
        with without_dropout(self.trainer.network):
            self.loss = self.step()

    def step(self) -> float:
        """Take a step, to its end; returns the loss."""
        return self.trainer.step(next(self.batches))["total"].item()


@contextmanager
def without_dropout(network: nn.Module) -> Iterator[None]:
    """The network without dropout inside."""
    layers = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    rates = [layer.p for layer in layers]
    for layer in layers:
        layer.p = 0.0
    yield
    for layer, rate in zip(layers, rates, strict=True):
        layer.p = rate


def options_of(config: Config) -> dict[str, tuple[str, ...]]:
    """Overrides by option; micro-batches are a quarter of a batch."""
    micro, checkpointing = f"train.micro_batch={config.train.batch_size // 4}", "train.checkpointing=true"
    return {
        "none": (),
        "micro_batch": (micro,),
        "checkpointing": (checkpointing,),
        "both": (micro, checkpointing),
        "bf16": ("train.precision=bf16",),
        "bf16 and both": ("train.precision=bf16", micro, checkpointing),
    }


def main() -> None:
    """Measure, print, write the record."""
    parser = step_parser(__doc__)
    parser.add_argument("--name", default="options", help="of the record")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_intermixed_args()
    device, config = choose_device(given.device), load_config(given.config, given.overrides)
    options = options_of(config)
    ways = {
        name: Way(load_config(given.config, [*given.overrides, *overrides]), given.root, device)
        for name, overrides in options.items()
    }
    for name, way in ways.items():
        np.testing.assert_allclose(way.loss, ways["none"].loss, rtol=1e-2 if "bf16" in name else 1e-5, err_msg=name)
    wait(device)
    keep_freed_memory(device)
    measured = alternating({name: way.step for name, way in ways.items()}, given.steps, repeated=True)
    plain = measured["none"]
    figures: dict[str, Any] = {
        "reading": str(config.reading),
        "device": str(device),
        "batch_size": config.train.batch_size,
        "options": {name: list(overrides) for name, overrides in options.items()},
        "ways": {name: own.figures() | {"first_loss": ways[name].loss} for name, own in measured.items()},
        "processor_time_of_none": {name: own.processor / plain.processor for name, own in measured.items()},
    }
    for name, own in measured.items():
        print(
            f"{name:14s} {own.median:8.3f} s ({own.processor:.3f} of the processor, "
            f"{own.processor / plain.processor:.2f} times none)   peak memory +{own.peak_mb:.0f} MB"
        )
    print(record(given.name, figures, given.out))


if __name__ == "__main__":
    main()
