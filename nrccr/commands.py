"""What the commands do, once their arguments are read; the command line imports this when a command runs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nrccr.banks import bank_folder, normalisation_of
from nrccr.config import Config, load_config, resolved_switches
from nrccr.data.collections import GENERATED, find_backbone
from nrccr.data.datasets import Reader
from nrccr.data.tokens import CaptionTokenizer
from nrccr.distributed import Runtime, choose_device, make_deterministic
from nrccr.errors import UserError
from nrccr.evaluation.encode import encode_videos
from nrccr.evaluation.evaluator import evaluate
from nrccr.files import write_text
from nrccr.models.nrccr import build_discriminator, build_network
from nrccr.models.text import backbone_config, build_backbone
from nrccr.retriever import load_retriever
from nrccr.tables import counts_line, metrics_table, noise_table, ranked_table, say
from nrccr.training.checkpoint import RunFolder
from nrccr.training.loop import Trainer


def train_run(
    config: Config, root: Path, folder: RunFolder, device: str | None, *, resume: bool, overwrite: bool, test: bool
) -> None:
    """Train into a run folder; with `test`, make sure first that the test split can be read."""

    chosen = choose_device(device)
    model = find_backbone(root, config.text.model)
    if resume:
        folder.require_resumable(config)
    else:
        folder.refuse(overwrite=overwrite)
    make_deterministic(config.seed)
    runtime = Runtime(chosen, config.train.precision)
    tokenizer = CaptionTokenizer(model, config.text.max_tokens)
    reader = Reader.open(config, root, tokenizer)
    pairs, queries = reader.pairs(), reader.queries("val")
    if test:
        reader.queries("test")  # a broken test split is told now, not after hours
    backbone = build_backbone(
        backbone_config(model, config.text.backbone),
        pretrained=model if config.text.pretrained else None,
    )
    network = build_network(config, backbone, reader.features.width)
    discriminator = build_discriminator(config, int(backbone.config.hidden_size))
    trainer = Trainer(config, network, discriminator, pairs, queries, runtime, folder)
    counts = {"train": asdict(pairs.counts), "val": asdict(queries.counts)}
    for split, found in counts.items():
        say(counts_line(split, found))
    state = folder.load_state() if resume else None
    if state is not None:
        trainer.resume(state)
        for change in folder.take_up(config, chosen, pairs.fingerprint(), trainer.progress.step):
            say(f"note: {change}")
        say(f"{folder.path}: goes on after epoch {trainer.progress.epoch}, step {trainer.progress.step}")
    else:

        def save_backbone(target: Path) -> None:
            backbone.config.save_pretrained(target)
            tokenizer.save(target)

        folder.begin(config, chosen, counts, pairs.fingerprint(), save_backbone)
    best = trainer.run()
    say(f"{folder.path}: best validation R@1+5+10 {best.best:.2f} in epoch {best.best_epoch}")


def test_run(
    path: Path,
    root: Path,
    overrides: list[str],
    split: Literal["test", "val"],
    out: Path | None,
    device: str | None,
    *,
    bank: Path | None = None,
    tune: bool = False,
) -> None:
    """Test a run or a checkpoint: a table, and files in `out` or the folder of the split.

    With `evaluation.normalise` a bank is read from the folder `bank`, by default the run's; `tune` chooses parameters.
    """

    retriever = load_retriever(path, overrides, device)
    config = retriever.config
    reader = retriever.reader(root)
    folder = out if out is not None else (path if path.is_dir() else path.parent) / split
    _require_writable(folder)
    queries = reader.queries(split)
    say(counts_line(split, asdict(queries.counts)))
    normalisation = normalisation_of(retriever, reader, queries, split, bank_folder(path, bank), tune)
    metrics = evaluate(
        retriever.network,
        queries,
        batch_size=config.evaluation.batch_size,
        target_weight=config.evaluation.target_weight,
        kind=config.switch("score"),
        device=retriever.device,
        save_scores=config.evaluation.save_scores,
        header={
            "collection": reader.collection.name,
            "split": split,
            "checkpoint": str(retriever.checkpoint),
            "switches": resolved_switches(config),
        },
        folder=folder,
        normalisation=normalisation,
        memory_mb=config.evaluation.memory_mb,
    )
    say(metrics_table(metrics, config))
    say(f"written: {folder}")


def _require_writable(folder: Path) -> None:
    """Find out before hours of encoding that results cannot be kept."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UserError(f"{folder}: cannot be written; give another folder with --out")


def compare_under_noise(
    config: Path,
    overrides: Sequence[str],
    root: Path | None,
    videos: tuple[int, int, int] | None,
    out: Path,
    translators: Sequence[str],
    models: Sequence[str],
    seeds: Sequence[int],
    device: str | None,
) -> None:
    """Train and test every model with every translator and seed; a table on screen and as noise.md, noise.json, a plot.

    A run that is finished is kept, one that was stopped goes on.

    Args:
        config: the configuration file.
        overrides: `key=value`, for every run.
        root: folder of the collections; None takes a generated one in `out`, made with `videos` in the splits.
        videos: sizes of that one's splits; None takes the usual ones.
        out: folder of all runs.
        translators: values of `data.translator`.
        models: names in `analysis.noise.MODELS`.
        seeds: of each model with each translator.
        device: see nrccr.distributed.choose_device.

    Raises:
        UserError: an unknown model, a configuration that a finished run does not have, no data.
    """
    from nrccr.analysis import noise  # brings a drawing library, which no other command needs

    unknown = [model for model in models if model not in noise.MODELS]
    if unknown:
        raise UserError(f"--models {unknown[0]}: unknown; choose from {', '.join(noise.MODELS)}")
    cells = noise.cells(models, translators, seeds)
    configs = {cell: load_config(config, [*overrides, *cell.overrides]) for cell in cells}
    folders = {cell: RunFolder(out / cell.name) for cell in cells}
    for cell, folder in folders.items():
        if folder.config.is_file():
            folder.require_resumable(configs[cell])
    place = root if root is not None else _own_collection(out, configs[cells[0]], translators, videos)
    found: dict[noise.Cell, dict[str, Any]] = {}
    for number, cell in enumerate(cells, start=1):
        metrics = folders[cell].path / "test" / "metrics.json"
        say(f"{number} of {len(cells)}: {cell.name}{', finished before' if metrics.is_file() else ''}")
        if not metrics.is_file():
            resume = folders[cell].config.is_file()
            train_run(configs[cell], place, folders[cell], device, resume=resume, overwrite=False, test=True)
            test_run(folders[cell].path, place, [], "test", None, device)
        found[cell] = json.loads(metrics.read_text(encoding="utf-8"))
    rows = noise.collect(found)
    write_text(out / "noise.md", noise.to_markdown(rows))
    write_text(out / "noise.json", noise.to_json(rows))
    noise.plot(rows, out / "noise.png")
    say(noise_table(rows))
    say(f"written: {out}/noise.md, noise.json, noise.png")


def _own_collection(out: Path, config: Config, translators: Sequence[str], videos: tuple[int, int, int] | None) -> Path:
    """The generated collection beside the runs, made if it is not there."""
    from nrccr.analysis import noise
    from nrccr.data.generated.collection import Recipe, generate

    if config.data.collection != GENERATED.names[0]:
        raise UserError(f"{config.data.collection}: give the folder of the collections as --root")
    rates = [noise.rate_of(name) for name in translators]
    known = tuple(rate / 100 for rate in rates if rate is not None)
    if len(known) < len(rates):
        raise UserError(
            f"--translators {','.join(translators)}: those of the generated collection are noise0, noise20 ..."
        )
    root = out / "VisualSearch"
    if not (root / GENERATED.names[0]).is_dir():
        recipe = Recipe(rates=known) if videos is None else Recipe(rates=known, videos=videos)
        say(f"written: {generate(root, recipe)}")
    return root


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
    from nrccr.analysis.strips import Strip, draw_strips

    retriever = load_retriever(path, [], device)
    config = retriever.config
    videos = Reader.open(config, root, retriever.tokenizer).queries(split).videos
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
                frames=videos.batch([index]).frames[0].numpy(),
                right=right is not None and videos.ids[index] == right[row],
            )
            for index in best
        ]
        ranked.append((query, strips))
    places = None
    if right is not None:
        wanted = [videos.ids.index(video) for video in right]
        places = [1 + int(np.flatnonzero(order[row] == index)[0]) for row, index in enumerate(wanted)]
    say(ranked_table(ranked, places, f"{len(videos)} videos of {config.data.collection} {split}"))
    if picture is not None:
        draw_strips(picture, ranked)
        say(f"written: {picture}")
