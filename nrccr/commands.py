"""What the commands do, once their arguments are read; the command line imports this when a command runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from nrccr.banks import bank_folder, normalisation_of
from nrccr.config import Config, resolved_switches
from nrccr.data.collections import find_backbone
from nrccr.data.datasets import Queries, Reader
from nrccr.data.items import Videos
from nrccr.data.tokens import CaptionTokenizer
from nrccr.distributed import Runtime, choose_device, make_deterministic
from nrccr.errors import UserError
from nrccr.evaluation.encode import encode_videos
from nrccr.evaluation.evaluator import evaluate
from nrccr.evaluation.image_cache import ImageCache
from nrccr.evaluation.text_to_text import TASK, evaluate_text_to_text
from nrccr.models.image import ImageEncoder, build_image_encoder, image_config
from nrccr.models.nrccr import NRCCR, build_discriminator, build_network
from nrccr.models.text import backbone_config, build_backbone
from nrccr.retriever import load_retriever
from nrccr.tables import (
    counts_line,
    length_table,
    metrics_table,
    ranked_table,
    say,
    text_to_text_table,
)
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
    # A broken test split is told now, not after hours.
    for other in (queries, *([reader.queries("test")] if test else [])):
        if other.videos.width != pairs.videos.width:
            raise UserError(
                f"{other.videos.place}: features are {other.videos.width} wide, those of training "
                f"{pairs.videos.width}; extract them again"
            )
    backbone = build_backbone(
        backbone_config(model, config.text.backbone),
        pretrained=model if config.text.pretrained else None,
    )
    encoder = None
    if config.visual.kind == "clip":
        images = config.image
        encoder = build_image_encoder(image_config(images.model), images.model if images.pretrained else None)
    network = build_network(config, backbone, pairs.videos.width, encoder)
    discriminator = build_discriminator(config, int(backbone.config.hidden_size))
    cache = _image_cache(config, network, chosen)
    if cache is not None:
        pairs = replace(pairs, videos=cache.encoded(f"{reader.collection.name}-train", pairs.videos))
        queries = _encode_images(cache, reader, "val", queries)
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

        def save_models(run: RunFolder) -> None:
            backbone.config.save_pretrained(run.backbone)
            tokenizer.save(run.backbone)
            if encoder is not None and reader.preprocess is not None:
                encoder.config.save_pretrained(run.image_encoder)
                reader.preprocess.save(run.image_encoder)

        folder.begin(config, chosen, counts, pairs.fingerprint(), save_models)
    best = trainer.run()
    say(f"{folder.path}: best validation R@1+5+10 {best.best:.2f} in epoch {best.best_epoch}")


def _image_cache(config: Config, network: NRCCR, device: torch.device) -> ImageCache | None:
    """Where a frozen image encoder keeps its vectors; none where there is no such encoder."""
    visual = network.visual
    if not isinstance(visual, ImageEncoder) or visual.encoder is None or visual.trainable:
        return None
    return ImageCache(Path(config.image.cache), visual.to(device), device, config.evaluation.batch_size)


def _encode_images(cache: ImageCache | None, reader: Reader, split: str, queries: Queries) -> Queries:
    """The split with its raw images as vectors of a frozen encoder."""
    if cache is None:
        return queries
    return replace(queries, videos=cache.encoded(f"{reader.collection.name}-{split}", queries.videos))


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
    reader = retriever.reader(root)
    name = f"{split}-{TASK}" if among_texts else split
    folder = out if out is not None else (path if path.is_dir() else path.parent) / name
    _require_writable(folder)
    queries = reader.queries(split)
    retriever.require_fitting(queries)
    say(counts_line(split, asdict(queries.counts)))
    how: dict[str, Any] = {
        "batch_size": config.evaluation.batch_size,
        "device": retriever.device,
        "header": {
            "collection": reader.collection.name,
            "split": split,
            "checkpoint": str(retriever.checkpoint),
            "switches": resolved_switches(config),
        },
        "folder": folder,
        "lengths": queries.target.lengths - retriever.tokenizer.special if by_length else None,
    }
    if among_texts:
        metrics = evaluate_text_to_text(retriever.network, queries, **how)
        say(text_to_text_table(metrics, config))
    else:
        queries = _encode_images(_image_cache(config, retriever.network, retriever.device), reader, split, queries)
        metrics = evaluate(
            retriever.network,
            queries,
            target_weight=config.evaluation.target_weight,
            kind=config.switch("score"),
            save_scores=config.evaluation.save_scores,
            normalisation=normalisation_of(retriever, reader, queries, split, bank_folder(path, bank), tune),
            memory_mb=config.evaluation.memory_mb,
            **how,
        )
        say(metrics_table(metrics, config))
    if by_length:
        say(length_table(metrics["by_length"]))
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
    from nrccr.analysis.strips import Strip, draw_strips

    retriever = load_retriever(path, [], device)
    config = retriever.config
    videos = Reader.open(config, root, retriever.tokenizer, retriever.preprocess).queries(split).videos
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
    say(ranked_table(ranked, places, f"{len(videos)} videos of {config.data.collection} {split}"))
    if picture is not None:
        draw_strips(picture, ranked)
        say(f"written: {picture}")
