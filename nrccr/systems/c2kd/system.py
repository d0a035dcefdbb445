"""C2KD's training and test: many languages, and teachers that read English."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from nrccr.config.schema import Config
from nrccr.data.collections import find_backbone
from nrccr.data.items import require_same_width
from nrccr.data.languages import LanguageCollection, locate_languages
from nrccr.data.tokens import PooledTokenizer, Tokenizer, TokenTable, language_tokenizer
from nrccr.errors import UserError
from nrccr.evaluation.languages import evaluate_languages, validate_by_language
from nrccr.evaluation.metrics import recall_sum
from nrccr.files import digest_of
from nrccr.models.backbone import configured_backbone
from nrccr.report.screen import counts_line, multilingual_table
from nrccr.systems.c2kd.data import LanguagePairs, LanguageReader
from nrccr.systems.c2kd.network import C2KD, build_c2kd
from nrccr.systems.c2kd.objective import C2KDLosses, C2KDObjective
from nrccr.systems.c2kd.settings import C2KDSection
from nrccr.systems.c2kd.teachers import PrecomputedTeachers, TeachersInLoop, precompute
from nrccr.systems.retriever import Retriever, load_retriever, run_of
from nrccr.terminal import say
from nrccr.training.loop import Task, Validation
from nrccr.training.runfolder import RunFolder

PRECOMPUTED = 256  # captions or videos that a teacher encodes at once: no embedding depends on its batch


def prepare(
    config: Config, root: Path, device: torch.device, *, test: bool, teachers: Sequence[Teacher] | None = None
) -> Task:
    """All that a training needs.

    Args:
        config: the student's.
        root: folder of the collections.
        device: where teachers compute.
        test: make sure first that the test split can be read.
        teachers: on the device; by default those that the configuration names.

    Raises:
        UserError: no such collection, encoder or teacher, or damaged data.
    """
    settings = config.section(C2KDSection)
    reader = open_reader(config, root, words=settings.words)
    tokenizer = language_tokenizer(config, config.text.max_tokens, root)
    queried = language_tokenizer(config, settings.query_tokens, root)
    width = reader.width("train")
    # Before the teachers: how many there are shall not change the student's first weights.
    backbone = configured_backbone(config, find_backbone(root, config.text.model))
    network = build_c2kd(config, backbone, width)
    if teachers is None:
        teachers = load_teachers(config, root, device, width)
    english_only = settings.stage == "zero_shot"
    pairs = reader.pairs(
        tokenizer,
        config.seed,
        english_only=english_only,
        teachers=[teacher.tokenizer for teacher in teachers],
    )
    queries = reader.queries("val", queried) if reader.collection.has("val") else None
    tested = reader.queries("test", queried) if test else None
    for split in (queries, tested):
        if split is not None:
            require_same_width(split.videos, pairs.videos)
    record, teach = {}, None
    if teachers:
        record = {"teachers": [teacher.record(own) for teacher, own in zip(teachers, pairs.taught, strict=True)]}
        teach, pairs = teaching(config, teachers, pairs, device)
    for note in reader.collection.notes(config.data.languages, taught=bool(teachers), english_only=english_only):
        say(f"note: {note}")

    def score() -> Validation:
        assert queries is not None
        total, metrics = validate_by_language(
            network,
            queries,
            batch_size=config.evaluation.batch_size,
            device=device,
            memory_mb=config.evaluation.memory_mb,
        )
        recalls = {language: own["text_to_visual"] for language, own in metrics["languages"].items()}
        each = ", ".join(f"{language} {recall_sum(own):.2f}" for language, own in recalls.items())
        return Validation(total, metrics, f"R@1+5+10 {each}, mean {total:.2f}")

    def save_models(run: RunFolder) -> None:
        backbone.config.save_pretrained(run.backbone)
        tokenizer.save(run.backbone)
        if isinstance(tokenizer, PooledTokenizer):
            tokenizer.labse.config.save_pretrained(run.labse)
            tokenizer.labse.save(run.labse)

    return Task(
        network=network,
        objective=C2KDObjective(losses_of(config), count=len(teachers)),
        pairs=pairs,
        validate=score if queries is not None else None,
        counts={"train": asdict(pairs.counts)} | ({"val": asdict(queries.counts)} if queries is not None else {}),
        save_models=save_models,
        teach=teach,
        record=record,
    )


def losses_of(config: Config) -> C2KDLosses:
    """The objective's constants."""
    settings = config.section(C2KDSection)
    return C2KDLosses(
        stage=settings.stage,
        temperature=settings.temperature,
        distill_temperature=settings.distill_temperature,
        balance=settings.balance,
        pooling=settings.pooling,
        distillation=settings.distillation,
    )


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


@dataclass(frozen=True)
class Teacher:
    """A frozen model and the tokeniser through which it reads the student's captions.

    Attributes:
        name: its folder or file.
        network: on the device.
        tokenizer: its own.
        digest: of the file of its weights; empty for one that has none.
    """

    name: str
    network: C2KD
    tokenizer: Tokenizer
    digest: str = ""

    def record(self, captions: TokenTable) -> dict[str, str]:
        """What run.json says of it: its name, its weights, and the captions as it reads them."""
        return {
            "name": self.name,
            "weights": self.digest,
            "captions": hashlib.sha256(captions.content()).hexdigest(),
        }


def load_teachers(config: Config, root: Path, device: torch.device, width: int) -> list[Teacher]:
    """The teachers that a configuration names, none where its stage has none.

    Args:
        config: the student's. A teacher's captions are cut where the student's are, as published.
        root: where encoders may lie, besides the hub.
        device: where they compute.
        width: of the features that they will see.

    Raises:
        UserError: distillation without teachers, one that is missing, of another system or of other features.
    """
    settings = config.section(C2KDSection)
    if settings.stage == "distill" and not settings.teachers:
        raise UserError("c2kd.stage=distill: give run folders or published checkpoints as c2kd.teachers=[FOLDER,...]")
    models: Sequence[str] = settings.teacher_models or [""] * len(settings.teachers)
    if len(models) != len(settings.teachers):
        raise UserError(
            f"c2kd.teacher_models: {len(models)} encoders for {len(settings.teachers)} teachers; give one each, '' for "
            "what the run folder says"
        )
    teachers = []
    for name, model in zip(settings.teachers, models, strict=True):
        run = run_of(Path(name))
        given = {"text.model": model} if model else {}
        if run is None:  # a published checkpoint has no tokeniser beside it
            given["c2kd.labse"] = settings.labse
        places = [f"{key}={json.dumps(find_backbone(root, place))}" for key, place in given.items()]
        try:
            loaded = load_retriever(Path(name), places, str(device))
        except UserError as error:
            raise UserError(_of_teacher(name, str(error))) from error
        if not isinstance(loaded.network, C2KD):
            raise UserError(f"c2kd.teachers: {name} is a model of {loaded.config.model}; teachers are C2KD's")
        if run is not None:
            _say_what_is_odd(name, run, loaded.config, config)
        if loaded.feature_width != width:
            raise UserError(
                f"c2kd.teachers: {name} was trained on features {loaded.feature_width} wide, these are {width}; "
                "give teachers trained on the same features"
            )
        tokenizer = language_tokenizer(loaded.config, config.text.max_tokens, root)
        teachers.append(Teacher(name, loaded.network, tokenizer, digest_of(loaded.checkpoint)))
    return teachers


def _of_teacher(name: str, reason: str) -> str:
    """What is wrong with a teacher, in the words of the student's configuration."""
    reason = reason.removeprefix(f"{name}: ").replace("text.model=", "encoder ", 1)
    if not Path(name).exists():
        reason += "; train it first (scripts/c2kd/teachers.sh)"
    elif reason.startswith("encoder "):
        reason += ", as its entry of c2kd.teacher_models"
    return f"c2kd.teachers: {name}: {reason}"


def _say_what_is_odd(name: str, run: Path, teacher: Config, student: Config) -> None:
    """A note on a teacher that stopped early, or that saw other data."""
    if "finished" not in json.loads(RunFolder(run).run.read_text(encoding="utf-8")):
        say(f"note: teacher {name} has not finished its training; it teaches with its best epoch so far")
    for key in ("collection", "feature"):
        its, own = getattr(teacher.data, key), getattr(student.data, key)
        if its != own:
            say(f"note: teacher {name} was trained with data.{key}={its}, not {own}")


def teaching(
    config: Config, teachers: Sequence[Teacher], pairs: LanguagePairs, device: torch.device
) -> tuple[TeachersInLoop | PrecomputedTeachers, LanguagePairs]:
    """How teachers score batches, and the training set without what only they needed to do so before.

    Raises:
        UserError: a teacher's embedding that is not finite.
    """
    networks = [teacher.network for teacher in teachers]
    if not config.section(C2KDSection).precompute:
        return TeachersInLoop(networks), pairs
    names = [teacher.name for teacher in teachers]
    ready = precompute(networks, names, pairs, max(PRECOMPUTED, config.evaluation.batch_size), device)
    return ready, replace(pairs, taught=())


def test_network(retriever: Retriever, root: Path, split: Literal["test", "val"], how: dict[str, Any]) -> None:
    """Test a trained model with queries in every language: a table, and the files of a test folder.

    Args:
        retriever: the model.
        root: folder of the collections.
        split: what to test on.
        how: what every test gives: batch size, device, header, folder.

    Raises:
        UserError: no such split there, or features that do not fit.
    """
    config, network = retriever.config, retriever.network
    assert isinstance(network, C2KD)
    reader = open_reader(config, root)
    queries = reader.queries(split, retriever.tokenizer)
    retriever.require_fitting(queries.videos)
    say(counts_line(split, asdict(queries.counts)))
    header = {"collection": reader.collection.name} | how["header"]
    metrics = evaluate_languages(network, queries, memory_mb=config.evaluation.memory_mb, **how | {"header": header})
    say(multilingual_table(metrics))
