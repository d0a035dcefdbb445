"""NRCCR's training and test."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch

from nrccr.config.schema import Config
from nrccr.data.collections import find_backbone
from nrccr.data.items import require_same_width
from nrccr.data.tokens import CaptionTokenizer
from nrccr.evaluation.banks import normalisation_of
from nrccr.evaluation.evaluate import evaluate, validate
from nrccr.evaluation.metrics import recall_sum
from nrccr.evaluation.text_to_text import evaluate_text_to_text
from nrccr.features.image_cache import ImageCache
from nrccr.models.backbone import configured_backbone
from nrccr.models.image import ImageEncoder, build_image_encoder, image_config
from nrccr.report.screen import counts_line, length_table, metrics_table, text_to_text_table
from nrccr.systems.nrccr.data import Queries, Reader
from nrccr.systems.nrccr.network import NRCCR, build_discriminator, build_nrccr
from nrccr.systems.nrccr.objective import NRCCRObjective, adversary
from nrccr.systems.retriever import Retriever
from nrccr.terminal import say
from nrccr.training.runfolder import RunFolder
from nrccr.training.task import Task, Validation


def prepare(config: Config, root: Path, device: torch.device, *, test: bool) -> Task:
    """All that a training needs; with `test`, make sure first that the test split can be read.

    Raises:
        UserError: no such collection, backbone or image encoder, or damaged data.
    """
    model = find_backbone(root, config.text.model)
    tokenizer = CaptionTokenizer(model, config.text.max_tokens)
    reader = Reader.open(config, root, tokenizer)
    pairs, queries = reader.pairs(), reader.queries("val")
    # A broken test split is told now, not after hours.
    for other in (queries, *([reader.queries("test")] if test else [])):
        require_same_width(other.videos, pairs.videos)
    backbone = configured_backbone(config, model)
    encoder = None
    if config.visual.kind == "clip":
        images = config.image
        encoder = build_image_encoder(image_config(images.model), images.model if images.pretrained else None)
    network = build_nrccr(config, backbone, pairs.videos.width, encoder)
    discriminator = build_discriminator(config, int(backbone.config.hidden_size))
    cache = _image_cache(config, network, device)
    if cache is not None:
        pairs = replace(pairs, videos=cache.encoded(f"{reader.collection.name}-train", pairs.videos))
        queries = _encode_images(cache, reader, "val", queries)

    def save_models(run: RunFolder) -> None:
        backbone.config.save_pretrained(run.backbone)
        tokenizer.save(run.backbone)
        if encoder is not None and reader.preprocess is not None:
            encoder.config.save_pretrained(run.image_encoder)
            reader.preprocess.save(run.image_encoder)

    def score() -> Validation:
        metrics = validate(
            network,
            queries,
            batch_size=config.evaluation.batch_size,
            target_weight=config.evaluation.target_weight,
            kind=config.switch("score"),
            device=device,
        )
        recalls = recall_sum(metrics["text_to_visual"])
        return Validation(recalls, metrics, f"R@1+5+10 {recalls:.2f}, SumR {metrics['SumR']:.2f}")

    objective = NRCCRObjective(config)
    return Task(
        network=network,
        losses=lambda out, batch: objective(out, discriminator),
        players=adversary(objective, discriminator, config.adversary.learning_rate),
        pairs=pairs,
        validate=score,
        counts={"train": asdict(pairs.counts), "val": asdict(queries.counts)},
        save_models=save_models,
    )


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


def test_network(
    retriever: Retriever,
    root: Path,
    split: Literal["test", "val"],
    how: dict[str, Any],
    *,
    among_texts: bool,
    by_length: bool,
    bank: Path,
    tune: bool,
) -> None:
    """Test a trained model: tables, and the files of a test folder.

    Args:
        retriever: the model.
        root: folder of the collections.
        split: what to test on.
        how: what every test gives `evaluate`: batch size, device, header, folder.
        among_texts: rank the queries' translations, not the items.
        by_length: also recalls by the query's length.
        bank: folder of the bank for `evaluation.normalise`.
        tune: choose the normalisation's parameters on the validation split.

    Raises:
        UserError: no such split there, features or a bank that do not fit.
    """
    config, network = retriever.config, retriever.network
    assert isinstance(network, NRCCR)
    reader = retriever.reader(root)
    queries = reader.queries(split)
    retriever.require_fitting(queries.videos)
    say(counts_line(split, asdict(queries.counts)))
    how["header"] = {"collection": reader.collection.name} | how["header"]
    how["lengths"] = queries.target.lengths - retriever.tokenizer.special if by_length else None
    if among_texts:
        metrics = evaluate_text_to_text(network, queries, **how)
        say(text_to_text_table(metrics, config))
    else:
        queries = _encode_images(_image_cache(config, network, retriever.device), reader, split, queries)
        metrics = evaluate(
            network,
            queries,
            target_weight=config.evaluation.target_weight,
            kind=config.switch("score"),
            save_scores=config.evaluation.save_scores,
            normalisation=normalisation_of(retriever, reader, queries, split, bank, tune),
            memory_mb=config.evaluation.memory_mb,
            **how,
        )
        say(metrics_table(metrics, config))
    if by_length:
        say(length_table(metrics["by_length"]))
