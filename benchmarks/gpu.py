"""Everything that needs a GPU, in one go where one is lent: tests, steps in bf16 beside plain fp32, several GPUs.

    python benchmarks/gpu.py [--devices 0 | 0,1,2,3] [CONFIG --root ROOT] [--steps N] [--ours key=value] [key=value ...]

1. `pytest -m gpu`, where the device is one.
2. NRCCR's training step: the plain way of `step.py` in fp32 beside ours in bf16, with further keys of `--ours`; their
   ratio, memory of the device, and the share of the highest rate of bf16 products that this device reaches.
3. Each of several devices beside one: `nrccr train` of one epoch with a test by NCCL, and the seconds of both.

`--devices cpu,cpu` rehearses all of it without a GPU. One record: benchmarks/results/gpu.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, alternating, record, wait
from step import CONFIGS, PlainBatches, plain_step, prepare, torchs_products
from torch.utils.flop_counter import FlopCounterMode

from nrccr.config.schema import Config
from nrccr.data.generated.collection import Recipe, generate
from nrccr.data.sampling import epoch_batches
from nrccr.data.tokens import CaptionTokenizer
from nrccr.distributed import choose_devices
from nrccr.systems.nrccr.data import Reader
from nrccr.systems.settings import load_config

CHECKOUT = Path(__file__).resolve().parents[1]
SIDE = {"cuda": 8192, "cpu": 256}  # of the square matrices whose product gives the highest rate


def step_figures(config: Config, ours: Config, root: Path, device: torch.device, steps: int) -> dict[str, Any]:
    """The plain way as `config` says beside ours as `ours` says, in turns; losses agree as well as bf16 lets them."""
    reader = Reader.open(config, root, CaptionTokenizer(config.text.model, config.text.max_tokens))
    pairs = reader.pairs()
    chosen = epoch_batches(len(pairs), config.train.batch_size, config.seed, 0)[: steps + 1]
    plain_batches = PlainBatches(reader, pairs)
    batches = {
        "plain": [plain_batches(own).to(device) for own in chosen],
        "ours": [pairs[own].to(device) for own in chosen],
    }
    plain, trainer = (
        prepare(config, reader, pairs, device, plain=True),
        prepare(ours, reader, pairs, device, plain=False),
    )
    discriminator = plain.players["discriminator"]
    optimizers = [
        torch.optim.Adam(plain.trainable, lr=config.train.learning_rate, foreach=False),
        torch.optim.Adam(discriminator.module.parameters(), lr=discriminator.learning_rate, foreach=False),
    ]
    takes = {
        "plain": lambda batch: plain_step(plain, optimizers, batch),
        "ours": lambda batch: trainer.step(batch)["total"].detach(),
    }
    losses: dict[str, list[float]] = {name: [] for name in takes}
    device_mb = dict.fromkeys(takes, 0.0)

    def one(name: str) -> Callable[[], None]:
        def run() -> None:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            with torchs_products():
                losses[name].append(float(takes[name](batches[name][len(losses[name])])))
            if device.type == "cuda":
                device_mb[name] = max(device_mb[name], torch.cuda.max_memory_allocated(device) / 2**20)

        return run

    ways = {name: one(name) for name in takes}
    with FlopCounterMode(display=False) as counted:
        ways["ours"]()
    ways["plain"]()  # memory of optimisers and kernels is there afterwards
    wait(device)
    measured = alternating(ways, steps)
    rate = product_rate(device)
    seconds = measured["ours"].median
    return {
        "batch_size": config.train.batch_size,
        "precision": {"plain": config.train.precision, "ours": ours.train.precision},
        "seconds": {name: own.figures() for name, own in measured.items()},
        "ratio": measured["plain"].median / seconds,
        "device_mb": device_mb,
        "losses": {name: [own[0], own[-1]] for name, own in losses.items()},
        "flop": counted.get_total_flops(),
        "bf16_flop_per_second": rate,
        "share_of_peak": counted.get_total_flops() / seconds / rate,
    }


def product_rate(device: torch.device) -> float:
    """Operations a second of bf16 products, the best of some."""
    side = SIDE[device.type]
    matrix, best = torch.randn(side, side, device=device, dtype=torch.bfloat16), 0.0
    for _ in range(10):
        wait(device)
        begun = time.perf_counter()
        matrix @ matrix
        wait(device)
        best = max(best, 2 * side**3 / (time.perf_counter() - begun))
    return best


def trained(devices: str, config: Path, root: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """One epoch and a test by `nrccr train` on some devices: exit code, seconds, what it says last, SumR."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        options = ["--root", root, "--out", out, "--device", devices, "--test", "train.epochs=1", *overrides]
        begun = time.perf_counter()
        done = nrccr_or_pytest("nrccr", "train", config, *options)
        metrics = out / "test" / "metrics.json"
        return {
            "exit": done.returncode,
            "seconds": time.perf_counter() - begun,
            "says": (done.stderr or done.stdout).strip().splitlines()[-1:],
            "SumR": json.loads(metrics.read_text())["SumR"] if metrics.exists() else None,
        }


def nrccr_or_pytest(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A module of this checkout as a command."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)


def main() -> int:
    """Run all, print and record it; 1 where a test or a training failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, nargs="?")
    parser.add_argument("--root", type=Path, help="of the collection; without one it is generated")
    parser.add_argument("--devices", default="0")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--ours", action="append", default=[], metavar="key=value", help="of our way alone")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_intermixed_args()
    if (given.config is None) != (given.root is None):
        parser.error("give CONFIG and --root together, or neither")
    names, devices = given.devices.split(","), choose_devices(given.devices)
    figures: dict[str, Any] = {}
    if devices[0].type == "cuda":
        tests = nrccr_or_pytest("pytest", "-q", "-m", "gpu")
        figures["tests"] = {"exit": tests.returncode, "says": tests.stdout.strip().splitlines()[-5:]}
        print(f"tests: {figures['tests']}")
    with tempfile.TemporaryDirectory() as folder:
        path, root, overrides = given.config or CONFIGS / "generated.yaml", given.root, given.overrides
        if root is None:
            root = Path(folder)
            overrides = [f"text.model={generate(root, Recipe()) / 'backbone'}", *overrides]
        config = load_config(path, [*overrides, "train.precision=fp32"])
        ours = load_config(path, [*overrides, "train.precision=bf16", *given.ours])
        figures["step"] = step_figures(config, ours, root, devices[0], given.steps)
        print(f"step: {json.dumps(figures['step'], indent=1)}")
        if len(names) > 1:
            figures["devices"] = {each: trained(each, path, root, overrides) for each in (names[0], given.devices)}
            print(f"devices: {json.dumps(figures['devices'], indent=1)}")
    print(record("gpu", figures, given.out))
    exits = [own["exit"] for own in (figures.get("tests", {"exit": 0}), *figures.get("devices", {}).values())]
    return int(any(exits))


if __name__ == "__main__":
    sys.exit(main())
