"""C2KD as a system: the five functions of `nrccr.systems.base.System`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nrccr.config.schema import Config
from nrccr.data.check import Checked
from nrccr.data.cleaning import Cleaning
from nrccr.data.collections import SplitName, find_backbone
from nrccr.data.items import require_same_width
from nrccr.data.languages import LanguageCollection, locate_languages
from nrccr.data.queries import Sample, Split
from nrccr.data.tokens import used_ids
from nrccr.errors import UserError
from nrccr.evaluation.evaluate import evaluate
from nrccr.evaluation.metrics import recall_sum
from nrccr.evaluation.rule import Rule
from nrccr.features.text_cache import TextCache, recorded
from nrccr.models.backbone import configured_backbone
from nrccr.models.statedicts import Trained
from nrccr.systems.base import located
from nrccr.systems.c2kd.check import check_languages
from nrccr.systems.c2kd.data import LanguageReader
from nrccr.systems.c2kd.network import build_c2kd
from nrccr.systems.c2kd.objective import C2KDObjective, mixing
from nrccr.systems.c2kd.published import published
from nrccr.systems.c2kd.settings import C2KDSection
from nrccr.systems.c2kd.teacher_runs import Teacher, load_teachers, teaching
from nrccr.systems.c2kd.tokens import PooledTokenizer, language_tokenizer
from nrccr.systems.model import Model
from nrccr.systems.retriever import Retriever
from nrccr.terminal import say
from nrccr.training.rows import train_used_rows
from nrccr.training.task import Task, Validation

__all__ = ["check", "network", "published", "splits", "task"]
CLEANING = Cleaning(training=False, back=False, queries=False)  # no language is cleaned


def network(config: Config, features: int | None = None, trained: Trained | None = None) -> Model:
    """See System."""
    backbone = configured_backbone(config, trained)
    width = features if trained is None else trained.width_of("video.embed.linear.weight")
    assert width is not None
    tokenizer = language_tokenizer(config, config.section(C2KDSection).query_tokens)
    tokenizer.require_table(backbone.get_input_embeddings().num_embeddings)
    others = {"labse": partial(_save_labse, tokenizer)} if isinstance(tokenizer, PooledTokenizer) else {}
    return Model(build_c2kd(config, backbone, width), tokenizer, CLEANING, others=others)


def _save_labse(tokenizer: PooledTokenizer, folder: Path) -> None:
    """Write LaBSE's configuration and tokeniser, which the mean over its tokens needs."""
    tokenizer.labse.config.save_pretrained(folder)
    tokenizer.labse.save(folder)


def task(config: Config, root: Path, device: torch.device, *, test: bool) -> Task:
    """See System."""
    return task_with(load_teachers, config, root, device, test=test)


def task_with(
    teachers_of: Callable[[Config, Path, torch.device, int], list[Teacher]],
    config: Config,
    root: Path,
    device: torch.device,
    *,
    test: bool,
) -> Task:
    """As `task`, with another way to load teachers.

    Args:
        teachers_of: the teachers of a configuration, from (configuration, root, device, feature width).
        config: as for `task`.
        root: as for `task`.
        device: as for `task`.
        test: as for `task`.
    """
    found = _located(config, root)
    settings = found.section(C2KDSection)
    reader = open_reader(found, root, words=settings.words)
    tokenizer = language_tokenizer(found, found.text.max_tokens)
    width = reader.width("train")
    # Before the teachers: their number must not change the student's initial weights.
    model = network(found, width)
    teachers = teachers_of(found, root, device, width)
    english_only = settings.stage == "zero_shot"
    taught = [teacher.tokenizer for teacher in teachers]
    pairs = reader.pairs(tokenizer, config.seed, english_only=english_only, teachers=taught)
    held_out = reader.split("val", model.tokenizer) if reader.collection.has("val") else None
    tested = reader.split("test", model.tokenizer) if test else None
    for split in (held_out, tested):
        if split is not None:
            require_same_width(split.visuals, pairs.visuals)
    states = TextCache.of(config, model.network.text.backbone, device)
    if states is not None:
        name = f"{reader.collection.name}-train"
        tables = {language: states.read(f"{name}-{language}", table) for language, table in pairs.texts.items()}
        pairs, held_out = replace(pairs, texts=tables), None if held_out is None else states.of_split(held_out)
    record: dict[str, Any] = {"tokenizer": tokenizer.describe(), **recorded(states)}
    teach = None
    if teachers:
        record["teachers"] = [teacher.record(own) for teacher, own in zip(teachers, pairs.taught, strict=True)]
        teach, pairs = teaching(found, teachers, pairs, device)
    for note in reader.collection.notes(config.data.languages, taught=bool(teachers), english_only=english_only):
        say(f"note: {note}")
    rule = Rule.of(config, device)

    def validate() -> Validation:
        assert held_out is not None
        metrics = evaluate(model.network, held_out, rule)
        recalls = {language: recall_sum(own["text_to_visual"]) for language, own in metrics["languages"].items()}
        total = recall_sum(metrics["mean"]["text_to_visual"])
        each = ", ".join(f"{language} {own:.2f}" for language, own in recalls.items())
        return Validation(total, metrics, f"R@1+5+10 {each}, mean {total:.2f}")

    train_used_rows(model.network.text.backbone.get_input_embeddings(), used_ids(pairs.texts.values()))
    objective = C2KDObjective(settings, count=len(teachers))
    return Task(
        network=model.network,
        losses=lambda out, batch: objective(out, None if teach is None else teach(*batch.parts)),
        players=mixing(objective, settings.mixing_learning_rate),
        pairs=pairs,
        validate=validate if held_out is not None else None,
        counts={"train": asdict(pairs.counts)} | ({"val": dict(held_out.counts)} if held_out is not None else {}),
        save_models=model.save_encoders,
        record=record,
        places=(pairs.visuals.place,),
        several=True,
    )


def splits(retriever: Retriever, root: Path, name: SplitName, sample: Sample | None = None) -> Iterator[Split]:
    """See System: one split, with queries in every language."""
    return iter([open_reader(retriever.config, root).split(name, retriever.model.tokenizer, sample)])


def check(config: Config, root: Path) -> Checked:
    """See System."""
    collection = locate_data(config, root)
    return Checked(collection.name, collection.folder, check_languages(collection, config))


def _located(config: Config, root: Path) -> Config:
    """The configuration with encoders and LaBSE's tokeniser as folders under the root, if they are there."""
    settings = config.section(C2KDSection)
    own = settings.model_copy(update={"labse": find_backbone(root, settings.labse)})
    return located(config, root).model_copy(update={"c2kd": own})


def locate_data(config: Config, root: Path) -> LanguageCollection:
    """The collection that a configuration names.

    Raises:
        UserError: no such collection under the root, or one of images for videos or the reverse.
    """
    data, kind = config.data, config.visual.kind
    collection = locate_languages(root, data.collection, translator=data.translator, feature=data.feature)
    if (collection.images is None) != (kind == "video"):
        holds, fitting = ("videos", "video") if collection.images is None else ("images", "vectors")
        raise UserError(f"visual.kind={kind}: collection {data.collection} holds {holds}; set visual.kind={fitting}")
    return collection


def open_reader(config: Config, root: Path, words: str | None = None) -> LanguageReader:
    """The reader of a configuration's collection; `words` is the file of the English words that count in training.

    Raises:
        UserError: as locate_data, damaged features, or a list of words that cannot be read.
    """
    data = config.data
    listed = None if words is None else Path(words)
    return LanguageReader.open(
        locate_data(config, root), data.max_frames, config.switch("frames"), data.languages, listed
    )
