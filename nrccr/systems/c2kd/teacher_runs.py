"""C2KD's teachers as runs: loaded, recorded, and turned into distillation targets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from nrccr.config.schema import Config
from nrccr.data.collections import find_backbone
from nrccr.data.tokens import Tokenizer, TokenTable
from nrccr.errors import UserError
from nrccr.files import digest_of, read_json
from nrccr.systems.c2kd.data import LanguagePairs
from nrccr.systems.c2kd.network import C2KD
from nrccr.systems.c2kd.settings import C2KDSection
from nrccr.systems.c2kd.teachers import PrecomputedTeachers, TeachersInLoop, precompute
from nrccr.systems.c2kd.tokens import language_tokenizer
from nrccr.systems.loading import load_retriever, run_of
from nrccr.terminal import say
from nrccr.training.runfolder import RunFolder

PRECOMPUTED = 256  # captions or items that a teacher encodes at once: no embedding depends on its batch


@dataclass(frozen=True)
class Teacher:
    """A frozen model and its tokeniser of the student's captions.

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
        """Its entry in run.json: its name, its weights, and the captions as it reads them."""
        return {
            "name": self.name,
            "weights": self.digest,
            "captions": hashlib.sha256(captions.content()).hexdigest(),
        }


def load_teachers(config: Config, root: Path, device: torch.device, width: int) -> list[Teacher]:
    """The teachers that a configuration names, none where its stage has none.

    Args:
        config: the student's. A teacher's captions are cut where the student's are, as published.
        root: folder that may hold encoders, besides the hub.
        device: where they compute.
        width: of the features.

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
            "the encoder recorded in the run folder"
        )
    teachers = []
    for name, model in zip(settings.teachers, models, strict=True):
        run = run_of(Path(name))
        named = {"text.model": model} if model else {}
        if run is None:  # a published checkpoint has no tokeniser beside it
            named["c2kd.labse"] = settings.labse
        places = [f"{key}={json.dumps(find_backbone(root, place))}" for key, place in named.items()]
        try:
            loaded = load_retriever(Path(name), places, str(device))
        except UserError as error:
            raise UserError(_of_teacher(name, str(error))) from error
        network = loaded.model.network
        if not isinstance(network, C2KD):
            raise UserError(f"c2kd.teachers: {name} is a model of {loaded.config.model}; teachers are C2KD's")
        if run is not None:
            _warn_of_differences(name, run, loaded.config, config)
        if network.feature_width != width:
            raise UserError(
                f"c2kd.teachers: {name} was trained on features {network.feature_width} wide, these are {width}; "
                "give teachers trained on the same features"
            )
        tokenizer = language_tokenizer(loaded.config, config.text.max_tokens, root)
        teachers.append(Teacher(name, network, tokenizer, digest_of(loaded.checkpoint)))
    return teachers


def _of_teacher(name: str, reason: str) -> str:
    """An error of a teacher, in terms of the student's configuration."""
    reason = reason.removeprefix(f"{name}: ").replace("text.model=", "encoder ", 1)
    if not Path(name).exists():
        reason = "no such run folder or checkpoint; train it first (scripts/c2kd/teachers.sh)"
    elif reason.startswith("encoder "):
        reason += ", as its entry of c2kd.teacher_models"
    return f"c2kd.teachers: {name}: {reason}"


def _warn_of_differences(name: str, run: Path, teacher: Config, student: Config) -> None:
    """Notes on a teacher that has not finished, or was trained on other data."""
    if "finished" not in read_json(RunFolder(run).run, "put the file back, or name another teacher in c2kd.teachers"):
        say(f"note: teacher {name} has not finished its training; it teaches with its best epoch so far")
    for key in ("collection", "feature"):
        its, own = getattr(teacher.data, key), getattr(student.data, key)
        if its != own:
            say(f"note: teacher {name} was trained with data.{key}={its}, not {own}")


def teaching(
    config: Config, teachers: Sequence[Teacher], pairs: LanguagePairs, device: torch.device
) -> tuple[TeachersInLoop | PrecomputedTeachers, LanguagePairs]:
    """The teachers' scores as a function of a batch, and the training set without what precomputed ones do not need.

    Raises:
        UserError: a teacher's embedding that is not finite.
    """
    networks = [teacher.network for teacher in teachers]
    if not config.section(C2KDSection).precompute:
        return TeachersInLoop(networks), pairs
    names = [teacher.name for teacher in teachers]
    ready = precompute(networks, names, pairs, max(PRECOMPUTED, config.evaluation.batch_size), device)
    return ready, replace(pairs, taught=())
