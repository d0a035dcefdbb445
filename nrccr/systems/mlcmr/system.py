"""MLCMR's training and test: both query languages."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch

from nrccr.config.schema import Config
from nrccr.data.batch import ENGLISH
from nrccr.data.collections import find_backbone
from nrccr.data.items import require_same_width
from nrccr.data.tokens import CaptionTokenizer
from nrccr.evaluation.evaluate import evaluate, validate_languages
from nrccr.models.backbone import configured_backbone
from nrccr.report.screen import counts_line, metrics_table
from nrccr.systems.mlcmr.data import ViewReader
from nrccr.systems.mlcmr.network import MLCMR, build_mlcmr
from nrccr.systems.mlcmr.objective import MLCMRObjective
from nrccr.systems.nrccr.data import Queries
from nrccr.systems.retriever import Retriever
from nrccr.terminal import say
from nrccr.training.runfolder import RunFolder
from nrccr.training.task import Task, Validation


def prepare(config: Config, root: Path, device: torch.device, *, test: bool) -> Task:
    """All that a training needs; with `test`, make sure first that the test split can be read.

    Raises:
        UserError: no such collection or backbone, or damaged data.
    """
    model = find_backbone(root, config.text.model)
    tokenizer = CaptionTokenizer(model, config.text.max_tokens)
    reader = ViewReader.open(config, root, tokenizer)
    pairs, held_out = reader.training()
    gallery = held_out if held_out is not None else reader.validation()
    if config.data.validate_on_test:
        say("note: data.validate_on_test: the epoch is chosen on the test split, so that its figures flatter the model")
    tested = [reader.queries("test", language).videos for language in languages(config, reader)] if test else []
    for videos in (gallery.videos, *tested):
        require_same_width(videos, pairs.videos)
    backbone = configured_backbone(config, model)
    network = build_mlcmr(config, backbone, reader.features.width)
    objective = MLCMRObjective(
        config.data.scenario,
        margin=config.loss.margin,
        temperature=config.loss.temperature,
        mask_same_item=config.loss.mask_same_item,
    )

    def save_models(run: RunFolder) -> None:
        backbone.config.save_pretrained(run.backbone)
        tokenizer.save(run.backbone)

    def score() -> Validation:
        metrics = validate_languages(network, gallery, batch_size=config.evaluation.batch_size, device=device)
        total = sum(found["SumR"] for found in metrics.values())
        each = ", ".join(f"SumR {language} {found['SumR']:.2f}" for language, found in metrics.items())
        return Validation(total, metrics, f"{each}, both {total:.2f}")

    return Task(
        network=network,
        losses=lambda out, batch: objective(out),
        players={},
        pairs=pairs,
        validate=score,
        counts={"train": asdict(pairs.counts), "val": gallery.counts},
        save_models=save_models,
    )


def languages(config: Config, reader: ViewReader) -> list[str]:
    """Both query languages, the configured target first."""
    both = [ENGLISH, reader.beside]
    return sorted(both, key=lambda language: language != config.data.target)


def test_network(retriever: Retriever, root: Path, split: Literal["test", "val"], how: dict[str, Any]) -> None:
    """Test a trained model with queries in either language.

    The target's metrics and ranks go into the test folder itself, those of the other language into a folder of its name
    in there.

    Args:
        retriever: the model.
        root: folder of the collections.
        split: what to test on.
        how: what every test gives `evaluate`: batch size, device, header, folder.

    Raises:
        UserError: no such split there, or features that do not fit.
    """
    config, network = retriever.config, retriever.network
    assert isinstance(network, MLCMR)
    reader = ViewReader.open(config, root, retriever.tokenizer)
    asked: dict[str, Queries] = {}
    for language in languages(config, reader):
        asked[language] = queries = reader.queries(split, language)
        retriever.require_fitting(queries.videos)
    folder = how["folder"]
    for language, queries in asked.items():
        say(counts_line(f"{split}, queries in {language}", asdict(queries.counts)))
        metrics = evaluate(
            network,
            queries,
            target_weight=config.evaluation.target_weight,
            kind=config.switch("score"),
            save_scores=config.evaluation.save_scores,
            memory_mb=config.evaluation.memory_mb,
            **how
            | {
                "header": {"collection": reader.collection.name, "queries_in": language} | how["header"],
                "folder": folder if language == next(iter(asked)) else folder / language,
            },
        )
        say(metrics_table(metrics, config))
