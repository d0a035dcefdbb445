"""A trained model as a folder that needs nothing else: configuration, weights, tokeniser, pre-processing, card.

It is read like any run folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nrccr.config.keys import declared
from nrccr.config.schema import Config, plain, to_yaml
from nrccr.config.yaml import flatten
from nrccr.errors import UserError, first_line, not_written
from nrccr.files import atomic_folder, digest_of, read_json, write_json, write_text
from nrccr.safeload.unpickle import save_weights
from nrccr.sizes import regular_bytes
from nrccr.systems.card import model_card
from nrccr.systems.markdown import without_folders
from nrccr.systems.model import Model
from nrccr.systems.subject import Subject, read_tests
from nrccr.training.runfolder import RunFolder

CARD = "README.md"
LONGEST_CARD = 2**20  # bytes
# What a saved folder holds; one that holds more, such as a run's states and logs, is not replaced.
WRITTEN = {"config.yaml", "run.json", "model.safetensors", CARD, "backbone", "image_encoder", "labse"}


def save(folder: Path, config: Config, model: Model, checkpoint: Path, licence: str | None, place: str | None) -> None:
    """Write a model into a folder, whole or not at all; one that was saved there before is replaced.

    Args:
        folder: to write.
        config: what the model was trained with. Folders of this machine lose all but their names.
        model: the network and what goes with it.
        checkpoint: the file that its weights come from. What a run recorded beside it goes along, and its test is in
            the card; where there is none, a card beside it is kept.
        licence: of the weights, for the card.
        place: what `nrccr.load` takes in the card's example; the folder's name where there is none.

    Raises:
        UserError: the folder holds something else, or cannot be written.
    """
    _require_free(folder)
    beside = checkpoint.parent
    subject = subject_of(beside, config, None, licence, (folder.resolve().name, place))
    kept = beside / CARD
    came_along = kept.is_file() and RunFolder(beside).config.is_file()  # beside a published checkpoint it may be any
    card = _read_card(kept) if came_along and not subject.tests and licence is None else model_card(subject)
    try:
        with atomic_folder(folder) as temporary:
            saved = RunFolder(temporary)
            write_text(saved.config, to_yaml(subject.config))
            if subject.record:
                write_json(saved.run, dict(subject.record))
            model.save_encoders(saved)
            save_weights(model.network.state_dict(), saved.weights)
            write_text(temporary / CARD, card)
    except OSError as error:
        raise not_written(folder, error, "give another folder") from error


def subject_of(
    run: Path, config: Config, test: Path | None, licence: str | None, named: tuple[str, str | None] | None = None
) -> Subject:
    """What the card of a run folder tells of.

    Args:
        run: the run folder, a saved one, or the folder of a published checkpoint.
        config: of the model.
        test: folder of `nrccr test`; none takes the run's own, if it has one.
        licence: of the weights.
        named: the model's name and what loads it; none takes the folder's name.

    Raises:
        UserError: damaged files, or no test in `test`.
    """
    own = run / "test"
    tested = own if test is None and (own / "metrics.json").is_file() else test
    tests = read_tests(tested, config) if tested is not None else []
    path = RunFolder(run).run
    found = read_json(path, "put it back as it was, or remove it") if path.is_file() else {}
    record = {key: _portable(value) for key, value in found.items()}
    name, place = named if named is not None else (run.resolve().name, None)
    return Subject(name, _without_places(config), record, tests, licence, place)


def require_test_of(weights: Path, test: Path) -> None:
    """Make sure that a test is of these weights, as far as the file that its record names is still there to compare.

    Args:
        weights: a run's `model.safetensors`.
        test: folder of `nrccr test`.

    Raises:
        UserError: it is of others, or holds no test that can be read.
    """
    named = read_json(test / "metrics.json", "give a folder that `nrccr test` wrote").get("checkpoint")
    tested = Path(named) if isinstance(named, str) and "\0" not in named else weights
    if not tested.is_file() or tested.resolve() == weights.resolve():
        return
    if tested.stat().st_size != weights.stat().st_size or digest_of(tested) != digest_of(weights):
        raise UserError(
            f"{test}: a test of {tested}, whose weights are not those of {weights}; give a test of that run"
        )


def _require_free(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; give a folder")
    others = sorted({path.name for path in folder.iterdir()} - WRITTEN) if folder.is_dir() else []
    if others:
        raise UserError(f"{folder}: holds {others[0]}, which no saved model has; give a new or an empty folder")


def _read_card(path: Path) -> str:
    try:
        text = regular_bytes(path).decode("utf-8") if path.stat().st_size <= LONGEST_CARD else None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)}); remove it") from error
    if text is None:
        raise UserError(f"{path}: larger than {LONGEST_CARD:,} bytes, which no card is; remove it")
    return text


def _without_places(config: Config) -> Config:
    """A configuration whose files and folders of this machine have lost all but their names."""
    places = {name for name, found in declared(type(config)).items() if found.place} | {"data.collection"}
    values: dict[str, Any] = plain(config)
    for name in places & flatten(values).keys():
        *sections, key = name.split(".")
        inner = values
        for section in sections:
            inner = inner[section]
        inner[key] = _portable(inner[key])
    return type(config).model_validate(values)


def _portable(value: Any) -> Any:
    if isinstance(value, str):
        return without_folders(value)
    if isinstance(value, Mapping):
        return {key: _portable(own) for key, own in value.items()}
    return [_portable(own) for own in value] if isinstance(value, list) else value
