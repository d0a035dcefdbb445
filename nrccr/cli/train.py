"""`nrccr train`: a model, validated after every epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nrccr.cli.launch import in_processes
from nrccr.cli.options import ConfigFile, Devices, Overrides, Root
from nrccr.errors import UserError

if TYPE_CHECKING:
    from nrccr.config.schema import Config
    from nrccr.training.runfolder import RunFolder
    from nrccr.training.task import Task

Start = Literal["new", "overwrite", "resume"]


def train(
    config: ConfigFile,
    root: Root,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default: runs/<config name>-s<seed>.")] = None,
    device: Devices = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in the folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the run in the folder first.")] = False,
    test: Annotated[bool, typer.Option("--test", help="Test the best weights at the end.")] = False,
) -> None:
    """Train a model, validating after every epoch."""
    if resume and overwrite:
        raise UserError("--resume and --overwrite exclude each other; give one")

    from nrccr.cli.test import EvaluationOptions, test_run
    from nrccr.systems.settings import load_config
    from nrccr.training.runfolder import RunFolder

    def work() -> None:
        loaded = load_config(config, overrides or [])
        folder = RunFolder(out if out is not None else Path("runs") / f"{config.stem}-s{loaded.seed}")
        start: Start = "resume" if resume else "overwrite" if overwrite else "new"
        train_run(loaded, root, folder, device, start=start, test=test)
        if test:
            test_run(folder.path, root, EvaluationOptions(cache_of(loaded), device=device))

    in_processes(device, work)


def train_run(config: Config, root: Path, folder: RunFolder, device: str | None, *, start: Start, test: bool) -> None:
    """Train into a run folder.

    Args:
        config: of the run.
        root: folder of the collections.
        folder: what to write.
        device: see nrccr.distributed.choose_device.
        start: refuse an existing run, delete it, or resume it.
        test: check first that the test split can be read.

    Raises:
        UserError: damaged data, no such encoder, or a folder that cannot be used.
    """
    from nrccr.models.encoders import with_encoder
    from nrccr.processes import is_first, wait_for_all
    from nrccr.terminal import say

    config, note = with_encoder(config, root)  # and recorded so: the run's own folder of the encoder has no name
    if note:
        say(note)
    if not is_first():
        wait_for_all()
        _train(config, root, folder, device, resume=start == "resume", test=test)
        return
    if start == "resume":
        folder.require_resumable(config)
    else:
        folder.refuse(overwrite=start == "overwrite")
    with folder.held():
        wait_for_all()
        _train(config, root, folder, device, resume=start == "resume", test=test)


def require_parts(config: Config, task: Task, processes: int) -> None:
    """Make sure that every process has a part of every batch.

    Raises:
        UserError: fewer pairs than processes, or a system that trains in one.
    """
    if processes > 1 and not task.several:
        raise UserError(f"model={config.model}: trains in one process; give one device")
    for what, count in (("train.batch_size", config.train.batch_size), ("training pairs", len(task.pairs))):
        if count < processes:
            raise UserError(f"{what}: {count} for {processes} processes; give fewer devices, they share each batch")


def cache_of(config: Config) -> list[str]:
    """The override by which a test right after the training finds the training's cache; a run's own is not followed."""
    cache = json.dumps(config.image.cache, ensure_ascii=False)
    return [f"image.cache={cache}"] if config.visual.kind == "clip" else []


def _train(config: Config, root: Path, folder: RunFolder, device: str | None, *, resume: bool, test: bool) -> None:
    from nrccr.distributed import (
        Runtime,
        choose_device,
        keep_freed_memory,
        make_deterministic,
        make_different,
        peak_memory,
    )
    from nrccr.processes import is_first, wait_for_all, world
    from nrccr.report.screen import counts_line
    from nrccr.systems.base import system_of
    from nrccr.terminal import say
    from nrccr.training.features import describe_features
    from nrccr.training.loop import Trainer
    from nrccr.training.task import begin_alike
    from nrccr.training.trackers import require_trackers

    if is_first():
        require_trackers(config.train.report_to)
    chosen = choose_device(device)
    make_deterministic(config.seed)
    runtime = Runtime(chosen, config.train.precision)
    task = system_of(config.model).task(config, root, chosen, test=test)
    require_parts(config, task, world())
    begin_alike(task)
    keep_freed_memory(chosen)  # now: what reading the collection took is given back
    trainer = Trainer(config, task, runtime, folder)
    make_different(config.seed)
    for split, counts in task.counts.items():
        say(counts_line(split, counts))
    fingerprint = task.pairs.fingerprint()
    record = task.record | {"features": describe_features(task.places)}
    state = folder.load_state() if resume else None
    if state is not None:
        trainer.resume(state)
        folder.require_weights(trainer.progress.schedule.best_epoch)
        folder.require_log(trainer.log_bytes)
        wait_for_all()  # before the first writes: all have read the same state
        if is_first():
            for change in folder.record_resume(config, chosen, fingerprint, record, trainer.progress.step):
                say(f"note: {change}")
        say(f"{folder.path}: resumes after epoch {trainer.progress.epoch}, step {trainer.progress.step}")
    else:
        wait_for_all()
        if is_first():
            folder.begin(config, chosen, task.counts, fingerprint, record, task.save_models)
    best = trainer.run()
    if is_first():
        folder.finish(trainer.progress.step, best.best_epoch, peak_memory(chosen))
    wait_for_all()  # a test reads what the first has written
    if task.validate is None:
        say(f"{folder.path}: no validation split; epoch {best.best_epoch}, the last, was kept")
    else:
        say(f"{folder.path}: best validation score {best.best:.2f} in epoch {best.best_epoch}")
