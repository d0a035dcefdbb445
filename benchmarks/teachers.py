"""A step of C2KD's distillation with teachers in the loop and with precomputed ones: the same loss, seconds a step.

The teachers are those of the configuration, or with --fresh N as many of the student's own size from random weights:
how long a step takes does not depend on what they have learned.

    python benchmarks/teachers.py CONFIG --root ROOT [--device cpu|cuda:0] [--steps N] [--fresh N] [key=value ...]
"""

from __future__ import annotations

import statistics
import time
from functools import partial
from pathlib import Path

import torch
from common import step_parser, wait

from nrccr.config.schema import Config
from nrccr.data.sampling import epoch_batches
from nrccr.distributed import Runtime, choose_device, make_deterministic
from nrccr.systems.c2kd.system import network, task_with
from nrccr.systems.c2kd.teacher_runs import Teacher, load_teachers
from nrccr.systems.c2kd.tokens import language_tokenizer
from nrccr.systems.settings import load_config
from nrccr.training.loop import Trainer
from nrccr.training.runfolder import RunFolder


def fresh_teachers(config: Config, root: Path, device: torch.device, width: int, count: int) -> list[Teacher]:
    """Teachers like the student, from random weights."""
    random = config.model_copy(update={"text": config.text.model_copy(update={"pretrained": False})})
    models = [network(random, width) for _ in range(count)]
    tokenizer = language_tokenizer(config, config.text.max_tokens, root)
    return [Teacher(f"fresh {at}", model.network.to(device), tokenizer) for at, model in enumerate(models, start=1)]


def measure(
    config: Config, root: Path, device: torch.device, steps: int, fresh: int | None
) -> tuple[float, float, float]:
    """Seconds to prepare, median seconds of a step after two, and the loss of the first step without dropout."""
    make_deterministic(config.seed)
    started = time.perf_counter()
    teachers_of = load_teachers if fresh is None else partial(fresh_teachers, count=fresh)
    task = task_with(teachers_of, config, root, device, test=False)
    prepared = time.perf_counter() - started
    trainer = Trainer(config, task, Runtime(device, config.train.precision), RunFolder(Path("unused")))
    for module in trainer.network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    trainer.network.train()
    batches = epoch_batches(len(task.pairs), config.train.batch_size, config.seed, 0)[: steps + 2]
    first, seconds = float("nan"), []
    for number, indices in enumerate(batches):
        started = time.perf_counter()
        report = trainer.step(task.pairs[indices].to(device))
        if not number:
            first = float(report["total"].detach())
        wait(device)
        seconds.append(time.perf_counter() - started)
    return prepared, statistics.median(seconds[2:]), first


def main() -> None:
    """Measure and print."""
    parser = step_parser(__doc__)
    parser.add_argument("--fresh", type=int)
    arguments = parser.parse_intermixed_args()
    device = choose_device(arguments.device)
    found = {}
    for ready in ("false", "true"):
        config = load_config(arguments.config, [*arguments.overrides, f"c2kd.precompute={ready}"])
        found[ready] = measure(config, arguments.root, device, arguments.steps, arguments.fresh)
    looped, ready_made = found["false"], found["true"]
    print(f"{arguments.config.stem}, {config.train.precision}, {device}, torch {torch.__version__}")
    print(f"first loss    in the loop {looped[2]:.6f}   precomputed {ready_made[2]:.6f}")
    ratio = looped[1] / ready_made[1]
    print(f"seconds/step  in the loop {looped[1]:.3f}   precomputed {ready_made[1]:.3f}   ratio {ratio:.2f}")
    print(f"seconds to prepare  in the loop {looped[0]:.1f}   precomputed {ready_made[0]:.1f}")
    assert abs(looped[2] - ready_made[2]) < (1e-5 if config.train.precision == "fp32" else 1e-3) * max(1, looped[2])


if __name__ == "__main__":
    main()
