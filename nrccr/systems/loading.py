"""A trained model of any system, from a run folder or a published checkpoint."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants

from nrccr.config.yaml import Layer, merged, read_layers
from nrccr.distributed import choose_device
from nrccr.errors import UserError, first_line
from nrccr.models.statedicts import Trained
from nrccr.safeload.unpickle import load_checkpoint, load_weights
from nrccr.systems.base import load_trained, system_of
from nrccr.systems.retriever import Retriever
from nrccr.systems.settings import build_config
from nrccr.systems.table import SYSTEMS, has_part, part_of

WEIGHTS_NAME = "model.safetensors"
# What a model of a hub is called that is not on this machine.
_NOT_THERE = re.compile("no configuration there|no tokeniser there .*couldn't connect")
CHECKPOINT_NAMES = ("model_best.pth.tar", "latest_model.pth")  # as the published codes name theirs


def found(place: str, revision: str | None = None) -> Path:
    """What a user names to be loaded: a path, or a model of a hub, which is fetched.

    Args:
        place: a path that exists wins; `owner/name` is a hub's where there is no folder `owner`.
        revision: branch, tag or commit of a hub's.

    Raises:
        UserError: no such model there, or a revision of a path.
    """
    from nrccr.systems.hub import fetch, is_hub_name

    if is_hub_name(place):
        return fetch(place, revision)
    if revision is not None:
        raise UserError(f"revision={revision}: {place} is no name of a hub; leave it out")
    return Path(os.path.expanduser(place))  # where there is no such user, it stays as it is


def load_retriever(path: Path, overrides: Sequence[str], device: str | None) -> Retriever:
    """Load a run folder, a published checkpoint, or the folder of one.

    Args:
        path: what to load.
        overrides: `key=value`, over the recorded configuration.
        device: see nrccr.distributed.choose_device.

    Raises:
        UserError: no model, a damaged or refused file, a backbone that does not fit.
    """
    chosen = choose_device(device)
    if not path.exists():
        raise UserError(f"{path}: no such run folder or checkpoint; check the path")
    run = run_of(path)
    with _only_named_models_from_hub(overrides):
        return _load(path, run, overrides, chosen)


def _load(path: Path, run: Path | None, overrides: Sequence[str], chosen: torch.device) -> Retriever:
    if run is not None:
        return _load_run(run, overrides, chosen)
    if path.is_file() and path.name != WEIGHTS_NAME:
        return _load_published(path, overrides, chosen)
    folder = path.parent if path.is_file() else path
    for name in CHECKPOINT_NAMES:
        if (folder / name).is_file():
            return _load_published(folder / name, overrides, chosen)
    names = " or ".join(CHECKPOINT_NAMES)
    raise UserError(f"{path}: neither a run folder (config.yaml) nor the folder of a published {names}")


@contextmanager
def _only_named_models_from_hub(overrides: Sequence[str]) -> Iterator[None]:
    """Ask the network for nothing while a run or checkpoint is loaded, unless the user names a model of a hub.

    A name that a stranger's file holds may still be found in the hub's cache on this machine.
    """
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not any(_names_hub(override) for override in overrides)
    try:
        yield
    except UserError as error:
        if before or not constants.HF_HUB_OFFLINE or not _NOT_THERE.search(str(error)):
            raise
        reason = str(error).partition(" (")[0]
        raise UserError(
            f"{reason} on this machine, and the network is only asked for a model that you name; "
            "give text.model=NAME_OR_FOLDER"
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = before


def _names_hub(override: str) -> bool:
    key, _, value = override.partition("=")
    models = {"text.model", *(key for name in SYSTEMS for key in part_of(name, "settings").FOLDERS.values())}
    return key in models and not Path(os.path.expanduser(value.strip("'\""))).exists()


def run_of(path: Path) -> Path | None:
    """The run folder that a path names, by itself or by its weights; none for a published checkpoint."""
    folder = path.parent if path.name == WEIGHTS_NAME else path
    return folder if (folder / "config.yaml").is_file() else None


def weights_of(run: Path) -> Path:
    """The weights of a run folder.

    Raises:
        UserError: it has none yet.
    """
    weights = run / WEIGHTS_NAME
    if not weights.is_file():
        raise UserError(f"{run}: no {WEIGHTS_NAME} yet, the run has not finished an epoch; resume or restart it")
    return weights


def _load_run(folder: Path, overrides: Sequence[str], device: torch.device) -> Retriever:
    layers = [_without_places(layer) for layer in read_layers(folder / "config.yaml", alone=True)]
    system = str(merged(layers).get("model"))
    if system not in SYSTEMS:
        raise UserError(f"{folder / 'config.yaml'}: names no model of {', '.join(SYSTEMS)}; copy it again")
    kept: dict[str, Any] = {}
    # Folders that replace what the configuration names, perhaps a path on another machine.
    for name, key in {"backbone": "text.model", **part_of(system, "settings").FOLDERS}.items():
        if (folder / name).is_dir():
            section, _, own = key.partition(".")
            kept[section] = kept.get(section, {}) | {own: str(folder / name)}
    config = build_config([*layers, Layer(str(folder), kept)], overrides)
    named = "text" in kept or any(override.startswith("text.model=") for override in overrides)
    if not named and not Path(config.text.model).is_dir():
        raise UserError(
            f"{folder}: no folder backbone, and text.model={config.text.model} is no folder; "
            "give the encoder as text.model=NAME_OR_FOLDER"
        )
    weights = weights_of(folder)
    model = load_trained(config, Trained(load_weights(weights), weights))
    model.network.to(device).eval()
    return Retriever(model, config, device, weights)


def _without_places(layer: Layer) -> Layer:
    """A recorded configuration, but for the folder that it would make us write to: a run may be a stranger's."""
    image = layer.values.get("image")
    if not isinstance(image, dict):
        return layer
    return replace(layer, values=layer.values | {"image": {k: v for k, v in image.items() if k != "cache"}})


def _load_published(path: Path, overrides: Sequence[str], device: torch.device) -> Retriever:
    checkpoint = load_checkpoint(path)
    for name in SYSTEMS:
        try:
            found = system_of(name).published(path, checkpoint)
        except UserError:
            raise
        except Exception as error:  # options of any type at all, tensors too
            raise UserError(
                f"{path}: its options or tensors are not those of a published checkpoint ({type(error).__name__}: "
                f"{first_line(error)}); copy or download it again"
            ) from error
        if found is not None:
            config = build_config([Layer(str(path), found.config)], overrides)
            model = load_trained(config, Trained(found.weights, path, published=True))
            model.network.to(device).eval()
            return Retriever(model, config, device, path)
    papers = [name for name in SYSTEMS if has_part(name, "published")]
    raise UserError(
        f"{path}: not a published checkpoint of {', '.join(papers)} (a list of state dicts, `model`, with `opt`, or a "
        "`state_dict`); give a run folder or the file as it was published"
    )
