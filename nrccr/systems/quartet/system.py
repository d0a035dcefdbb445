"""Quartet as a system: the five functions of `nrccr.systems.base.System`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

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
from nrccr.models.discriminator import Discriminator
from nrccr.models.encoders import with_encoder
from nrccr.models.statedicts import Trained
from nrccr.systems.base import Published, located
from nrccr.systems.model import Model
from nrccr.systems.quartet.data import LanguagePairs, QuartetReader, caption_files, cleaning_of, locate_all
from nrccr.systems.quartet.network import build_quartet
from nrccr.systems.quartet.objective import QuartetObjective, Trust
from nrccr.systems.quartet.settings import QuartetSection, targets
from nrccr.systems.quartet.trusted import Trusted, write_trusted
from nrccr.systems.retriever import Retriever
from nrccr.training.optim import Apart
from nrccr.training.rows import train_used_rows
from nrccr.training.runfolder import RunFolder
from nrccr.training.task import Player, Task, Validation

__all__ = ["check", "network", "published", "splits", "task"]


def network(config: Config, features: int | None = None, trained: Trained | None = None) -> Model:
    """See System."""
    filled, _ = with_encoder(config)
    return _network(filled, _tokenizer(filled), features, trained)


def _tokenizer(config: Config) -> CaptionTokenizer:
    return CaptionTokenizer(config.text.model, config.text.max_tokens, prefix=config.text.prefix or "")


def _network(
    config: Config, tokenizer: CaptionTokenizer, features: int | None = None, trained: Trained | None = None
) -> Model:
    """As `network`, with a tokeniser that was read already: a large vocabulary takes seconds."""
    backbone = configured_backbone(config, trained)
    if trained is not None:
        features = trained.width_of(_first_weights(config))
    assert features is not None
    tokenizer.require_table(backbone.get_input_embeddings().num_embeddings)
    return Model(build_quartet(config, backbone, features), tokenizer, cleaning_of(config))


def _first_weights(config: Config) -> str:
    """The matrix whose columns are the features."""
    if config.visual.kind == "vectors":
        return "visual.linear.weight"
    return {
        "mean": "map_visual.linear.weight",
        "transformer": "visual.parts.0.project.linear.weight",
    }.get(config.section(QuartetSection).video, "visual.parts.0.gru.weight_ih_l0")


def task(config: Config, root: Path, device: torch.device, *, test: bool) -> Task:
    """See System."""
    found, own = located(with_encoder(config, root)[0], root), config.section(QuartetSection)
    tokenizer = _tokenizer(found)
    reader = QuartetReader.open(found, root, tokenizer)
    pairs, validation = reader.pairs(), reader.validation()
    tested = [reader.split("test", language) for language in reader.collections] if test else []
    for split in (validation, *tested):
        require_same_width(split.visuals, pairs.visuals)
    width = pairs.visuals.width
    model = _network(found, tokenizer, width)
    texts = TextCache.of(config, model.network.text.backbone, device)
    if texts is not None:
        name = f"{reader.collection.name}-train"
        tables = {language: texts.read(f"{name}-{language}", table) for language, table in pairs.texts.items()}
        pairs, validation = replace(pairs, texts=tables), texts.of_split(validation)
    used = used_ids(pairs.texts.values(), *([] if pairs.mask_id is None else [pairs.mask_id]))
    train_used_rows(model.network.text.backbone.get_input_embeddings(), used)
    if model.network.words is not None:
        train_used_rows(model.network.words.table, used)
    trust = None
    if own.trust and own.ranking == "contrast":
        trust = Trust(targets(config), len(pairs), own.trust_momentum, own.trust_from)
    objective = QuartetObjective(config, trust)
    discriminator = _discriminator(config, int(model.network.text.backbone.config.hidden_size))
    rule = replace(Rule.of(config, device), kind="raw")

    def validate() -> Validation:
        metrics = evaluate(model.network, validation, rule)
        sums = {language: own["SumR"] for language, own in metrics["languages"].items()}
        mean = sum(sums.values()) / len(sums)
        each = ", ".join(f"SumR {language} {value:.2f}" for language, value in sums.items())
        return Validation(mean, metrics, each if len(sums) == 1 else f"{each}, mean {mean:.2f}")

    return Task(
        network=model.network,
        losses=lambda out, batch: objective(out, discriminator),
        players=_players(config, objective, discriminator),
        pairs=pairs,
        validate=validate,
        counts={"train": asdict(pairs.counts), "val": dict(validation.counts)},
        save_models=model.save_encoders,
        record={"tokenizer": tokenizer.describe(), **recorded(texts)},
        places=(pairs.visuals.place, validation.visuals.place),
        write=None if trust is None else partial(_write_trust, trust, pairs),
        memory={} if trust is None else {"trust": trust},
        apart=_apart(config),
        several=True,
    )


def _apart(config: Config) -> dict[str, Apart]:
    """The backbone and the words' own table learn in their own way."""
    own, found = config.section(QuartetSection), {}
    if config.train.backbone_learning_rate is not None:
        found["text.backbone."] = Apart(config.train.backbone_learning_rate)
    if own.words_learning_rate is not None or own.words_decay:
        found["words."] = Apart(own.words_learning_rate, own.words_decay)
    return found


def _write_trust(trust: Trust, pairs: LanguagePairs, run: RunFolder) -> None:
    """Every translation with how much it is trusted, the least first."""
    rows = (
        Trusted(float(value), pairs.ids[pair], language, pairs.translations[language][place])
        for language, average in zip(pairs.translations, trust.average.tolist(), strict=True)
        for pair, (value, place) in enumerate(zip(average, pairs.places[language], strict=True))
        if place >= 0
    )
    write_trusted(run.trust, rows)


def _discriminator(config: Config, backbone_width: int) -> Discriminator | None:
    if not config.loss.adversary:
        return None
    return Discriminator(backbone_width, config.adversary.discriminator, pooling="masked")


def _players(config: Config, objective: QuartetObjective, discriminator: Discriminator | None) -> dict[str, Player]:
    if discriminator is None:
        return {}
    losses = partial(objective.discriminate, discriminator=discriminator)
    return {"discriminator": Player(discriminator, config.adversary.learning_rate, losses)}


def splits(retriever: Retriever, root: Path, name: SplitName, sample: Sample | None = None) -> Iterator[Split]:
    """See System: queries in each target language with their translations into the source language."""
    reader = QuartetReader.open(retriever.config, root, retriever.model.tokenizer)
    return (reader.split(name, language, sample) for language in reader.collections)


def check(config: Config, root: Path) -> Checked:
    """See System."""
    collections = locate_all(config, root)
    collection = next(iter(collections.values()))
    report = check_collection(
        collection, caption_files(config, collections), mismatch_tolerance=config.data.mismatch_tolerance
    )
    return Checked(collection.name, collection.folder, report)


def published(path: Path, checkpoint: dict[str, Any]) -> Published | None:
    """See System: there is none, the system is this package's own."""
    return None
