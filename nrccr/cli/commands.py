"""What the commands do, once their arguments are read; the command line imports this when a command runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from nrccr.config.schema import Config, resolved_switches
from nrccr.data.check import Report, check_collection, check_languages, nrccr_groups
from nrccr.data.collections import Collection
from nrccr.data.items import Images, Videos, Visuals
from nrccr.data.languages import LanguageCollection
from nrccr.distributed import Runtime, choose_device, make_deterministic
from nrccr.errors import UserError
from nrccr.evaluation.banks import bank_folder
from nrccr.evaluation.encode import encode_videos
from nrccr.evaluation.text_to_text import TASK
from nrccr.report.screen import counts_line, ranked_table
from nrccr.systems.c2kd import system as c2kd
from nrccr.systems.mlcmr import system as mlcmr
from nrccr.systems.mlcmr.data import ViewReader, locate_both, view_groups
from nrccr.systems.nrccr import system as nrccr
from nrccr.systems.nrccr.data import locate_data
from nrccr.systems.retriever import load_retriever
from nrccr.terminal import say
from nrccr.training.loop import Task, Trainer
from nrccr.training.runfolder import RunFolder


def train_run(
    config: Config, root: Path, folder: RunFolder, device: str | None, *, resume: bool, overwrite: bool, test: bool
) -> None:
    """Train into a run folder; with `test`, make sure first that the test split can be read."""

    chosen = choose_device(device)
    if resume:
        folder.require_resumable(config)
    else:
        folder.refuse(overwrite=overwrite)
    make_deterministic(config.seed)
    runtime = Runtime(chosen, config.train.precision)
    task = prepare(config, root, chosen, test=test)
    trainer = Trainer(config, task, runtime, folder)
    for split, found in task.counts.items():
        say(counts_line(split, found))
    fingerprint = task.pairs.fingerprint()
    state = folder.load_state() if resume else None
    if state is not None:
        trainer.resume(state)
        for change in folder.take_up(config, chosen, fingerprint, task.record, trainer.progress.step):
            say(f"note: {change}")
        say(f"{folder.path}: goes on after epoch {trainer.progress.epoch}, step {trainer.progress.step}")
    else:
        folder.begin(config, chosen, task.counts, fingerprint, task.record, task.save_models)
    best = trainer.run()
    folder.finish(trainer.progress.step, best.best_epoch)
    if task.validate is None:
        say(f"{folder.path}: no validation split; epoch {best.best_epoch}, the last, was kept")
    else:
        say(f"{folder.path}: best validation score {best.best:.2f} in epoch {best.best_epoch}")


def prepare(config: Config, root: Path, device: torch.device, *, test: bool) -> Task:
    """What the configuration's system brings to its training; with `test`, the test split is looked at first.

    Raises:
        UserError: no such collection or backbone, or damaged data.
    """
    systems = {"nrccr": nrccr.prepare, "mlcmr": mlcmr.prepare, "c2kd": c2kd.prepare}
    return systems[config.model](config, root, device, test=test)


def look_over(config: Config, root: Path) -> tuple[Collection | LanguageCollection, Report]:
    """The collection that a configuration names, and all that is wrong with what its system reads of it.

    Raises:
        UserError: no such collection under `root`.
    """
    if config.model == "c2kd":
        spoken = c2kd.locate_data(config, root)
        return spoken, check_languages(spoken, config)
    if config.model == "mlcmr":
        collection = locate_both(config, root)
        groups = view_groups(config, collection)
    else:
        collection = locate_data(config, root)
        groups = nrccr_groups(collection)
    tolerance, raw = config.data.mismatch_tolerance, config.visual.kind == "clip"
    return collection, check_collection(collection, groups, mismatch_tolerance=tolerance, pictures=raw)


def test_run(
    path: Path,
    root: Path,
    overrides: list[str],
    split: Literal["test", "val"],
    out: Path | None,
    device: str | None,
    *,
    among_texts: bool = False,
    by_length: bool = False,
    bank: Path | None = None,
    tune: bool = False,
) -> None:
    """Test a run or a checkpoint: tables, and files in `out` or the folder of the split.

    Args:
        path: run folder or checkpoint.
        root: folder of the collections.
        overrides: `key=value`, over the configuration found there.
        split: what to test on.
        out: where to write.
        device: see nrccr.distributed.choose_device.
        among_texts: rank the queries' translations, not the items.
        by_length: also recalls by the query's length.
        bank: folder of the bank for `evaluation.normalise`, by default the run's.
        tune: choose the normalisation's parameters on the validation split.

    Raises:
        UserError: no model or no such split there, features or a bank that do not fit, a folder that cannot be written.
    """

    retriever = load_retriever(path, overrides, device)
    config = retriever.config
    if among_texts and (tune or config.evaluation.normalise != "none"):
        raise UserError("--task text-to-text: scores among texts are not normalised; leave out evaluation.normalise")
    name = f"{split}-{TASK}" if among_texts else split
    folder = out if out is not None else (path if path.is_dir() else path.parent) / name
    _require_writable(folder)
    how: dict[str, Any] = {
        "batch_size": config.evaluation.batch_size,
        "device": retriever.device,
        "header": {
            "split": split,
            "checkpoint": str(retriever.checkpoint),
            "switches": resolved_switches(config),
        },
        "folder": folder,
    }
    if config.model == "nrccr":
        place = bank_folder(path, bank)
        nrccr.test_network(
            retriever, root, split, how, among_texts=among_texts, by_length=by_length, bank=place, tune=tune
        )
    else:
        given = {
            "--task text-to-text": among_texts,
            "--by-length": by_length,
            "--bank": bank is not None,
            "--tune": tune,
            "evaluation.normalise": config.evaluation.normalise != "none",
        }
        for option in (option for option, is_given in given.items() if is_given):
            raise UserError(f"{option}: not offered for model={config.model}; leave it out")
        (mlcmr if config.model == "mlcmr" else c2kd).test_network(retriever, root, split, how)
    say(f"written: {folder}")


def _require_writable(folder: Path) -> None:
    """Find out before hours of encoding that results cannot be kept."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UserError(f"{folder}: cannot be written; give another folder with --out")


def rank_videos(
    path: Path,
    root: Path,
    queries: Sequence[str],
    split: Literal["test", "val"],
    top: int,
    right: Sequence[str] | None,
    picture: Path | None,
    device: str | None,
) -> None:
    """Rank a split's videos for queries by their cosines: a table, and a picture where the features are pixels.

    Args:
        path: run folder or published checkpoint.
        root: folder of the collections.
        queries: captions in the target language.
        split: whose videos.
        top: how many to show.
        right: the video that each query means, to be marked.
        picture: where to write the PNG.
        device: see nrccr.distributed.choose_device.

    Raises:
        UserError: no model or no videos there, a video in `right` that the split does not have.
    """
    from nrccr.report.strips import Strip, draw_strips

    retriever = load_retriever(path, [], device)
    config = retriever.config
    videos: Visuals
    if config.model == "c2kd":
        videos = c2kd.open_reader(config, root).queries(split, retriever.tokenizer).videos
        retriever.require_fitting(videos)
    elif config.model == "mlcmr":
        videos = ViewReader.open(config, root, retriever.tokenizer).queries(split, config.data.target).videos
    else:
        videos = retriever.reader(root).queries(split).videos
    if picture is not None and not isinstance(videos, Videos):
        raise UserError(f"--picture {picture}: draws videos; leave it out for images")
    missing = [video for video in right or () if video not in videos.ids]
    if missing:
        raise UserError(f"--right {missing[0]}: no such video in split {split}")
    visual = encode_videos(retriever.network, videos, config.evaluation.batch_size, retriever.device).cpu().numpy()
    scores = retriever.encode_text(queries) @ visual.T  # (queries, videos)
    order = np.argsort(-scores, axis=1, kind="stable")
    ranked: list[tuple[str, list[Strip]]] = []
    for row, query in enumerate(queries):
        best = [int(index) for index in order[row, :top]]
        strips = [
            Strip(
                video=videos.ids[index],
                score=float(scores[row, index]),
                frames=videos.batch([index]).frames[0].numpy() if isinstance(videos, Videos) else np.empty((0, 0)),
                right=right is not None and videos.ids[index] == right[row],
            )
            for index in best
        ]
        ranked.append((query, strips))
    places = None
    if right is not None:
        wanted = [videos.ids.index(video) for video in right]
        places = [1 + int(np.flatnonzero(order[row] == index)[0]) for row, index in enumerate(wanted)]
    kind = "images" if isinstance(videos, Images) else "videos"
    say(ranked_table(ranked, places, f"{len(videos)} {kind} of {config.data.collection} {split}"))
    if picture is not None:
        draw_strips(picture, ranked)
        say(f"written: {picture}")
