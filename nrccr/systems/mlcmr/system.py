"""MLCMR as a system: the five functions of `nrccr.systems.base.System`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import torch

from nrccr.config.schema import Config
from nrccr.data.check import Checked, check_collection
from nrccr.data.collections import SplitName
from nrccr.data.items import require_same_width
from nrccr.data.queries import Sample, Split
from nrccr.data.tokens import CaptionTokenizer, used_ids
from nrccr.evaluation.evaluate import evaluate
from nrccr.evaluation.rule import Rule
from nrccr.features.text_cache import TextCache, recorded
from nrccr.models.backbone import configured_backbone
from nrccr.models.statedicts import Trained
from nrccr.systems.base import located
from nrccr.systems.mlcmr.data import CLEANING, ViewReader, locate_both, view_files
from nrccr.systems.mlcmr.network import build_mlcmr
from nrccr.systems.mlcmr.objective import MLCMRObjective
from nrccr.systems.mlcmr.published import published
from nrccr.systems.model import Model
from nrccr.systems.retriever import Retriever
from nrccr.terminal import say
from nrccr.training.rows import train_used_rows
from nrccr.training.task import Task, Validation

__all__ = ["check", "network", "published", "splits", "task"]


def network(config: Config, features: int | None = None, trained: Trained | None = None) -> Model:
    """See System."""
    return _network(config, CaptionTokenizer(config.text.model, config.text.max_tokens), features, trained)


def _network(
    config: Config, tokenizer: CaptionTokenizer, features: int | None = None, trained: Trained | None = None
) -> Model:
    """As `network`, with a tokeniser that was read already: a large vocabulary takes seconds."""
    backbone = configured_backbone(config, trained)
    width = features if trained is None else trained.width_of("visual.gru.weight_ih_l0")
    assert width is not None
    tokenizer.require_table(backbone.get_input_embeddings().num_embeddings)
    return Model(build_mlcmr(config, backbone, width), tokenizer, CLEANING)


def task(config: Config, root: Path, device: torch.device, *, test: bool) -> Task:
    """See System."""
    found = located(config, root)
    tokenizer = CaptionTokenizer(found.text.model, found.text.max_tokens)
    reader = ViewReader.open(found, root, tokenizer)
    pairs, held_out = reader.training()
    validation = held_out if held_out is not None else reader.validation()
    if config.data.validate_on_test:
        say("note: data.validate_on_test: the epoch is chosen on the test split, so its test results are optimistic")
    tested = [reader.split("test", language) for language in reader.languages] if test else []
    for split in (validation, *tested):
        require_same_width(split.visuals, pairs.videos)
    model = _network(found, tokenizer, reader.features.width)
    texts = TextCache.of(config, model.network.text.backbone, device)
    if texts is not None:
        name = f"{reader.collection.name}-train"
        target = None if pairs.target is None else texts.read(f"{name}-target", pairs.target)
        pairs = replace(pairs, source=texts.read(f"{name}-source", pairs.source), target=target)
        validation = texts.of_split(validation)
    used = used_ids(pairs.tables, pairs.mask_id)
    train_used_rows(model.network.text.backbone.get_input_embeddings(), used)
    objective = MLCMRObjective(
        config.data.scenario,
        margin=config.loss.margin,
        temperature=config.loss.temperature,
        mask_same_item=config.loss.mask_same_item,
    )
    rule = replace(Rule.of(config, device), kind="raw")

    def validate() -> Validation:
        metrics = evaluate(model.network, validation, rule)
        sums = {language: own["SumR"] for language, own in metrics["languages"].items()}
        each = ", ".join(f"SumR {language} {own:.2f}" for language, own in sums.items())
        total = sum(sums.values())
        return Validation(total, metrics, f"{each}, both {total:.2f}")

    return Task(
        network=model.network,
        losses=lambda out, batch: objective(out),
        players={},
        pairs=pairs,
        validate=validate,
        counts={"train": asdict(pairs.counts), "val": dict(validation.counts)},
        save_models=model.save_encoders,
        record={"tokenizer": tokenizer.describe(), **recorded(texts)},
        places=(pairs.videos.place,),
        several=True,
    )


def splits(retriever: Retriever, root: Path, name: SplitName, sample: Sample | None = None) -> Iterator[Split]:
    """See System: queries in the target language, then in the other one, each with translations into the other."""
    reader = ViewReader.open(retriever.config, root, retriever.model.tokenizer)
    return (reader.split(name, language, sample) for language in reader.languages)


def check(config: Config, root: Path) -> Checked:
    """See System."""
    collection = locate_both(config, root)
    report = check_collection(
        collection, view_files(config, collection), mismatch_tolerance=config.data.mismatch_tolerance
    )
    return Checked(collection.name, collection.folder, report)
