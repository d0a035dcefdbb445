"""A system: a module with five functions. Nothing outside `systems` depends on which system it is.

N captions or items, D joint-space width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import nn

from nrccr.config.schema import Config
from nrccr.data.check import Checked
from nrccr.data.collections import SplitName, find_backbone
from nrccr.data.queries import Sample, Split
from nrccr.errors import UserError
from nrccr.models.budget import Budget
from nrccr.models.statedicts import StateDict, Trained, load_state_dict
from nrccr.systems.model import Model
from nrccr.systems.retriever import Retriever
from nrccr.systems.table import part_of
from nrccr.training.task import Task


@dataclass(frozen=True)
class Published:
    """A published checkpoint, converted.

    Attributes:
        config: plain values of the configuration, as far as a test needs them.
        weights: by our names.
    """

    config: dict[str, Any]
    weights: StateDict = field(repr=False)


class System(Protocol):
    """A paper: the module `system` of its folder."""

    def network(self, config: Config, features: int | None = None, trained: Trained | None = None) -> Model:
        """The network of a configuration, with its tokeniser, cleaning and pre-processing.

        The network is an `Encoder` (nrccr.evaluation.encode) with `feature_width`.

        Args:
            config: the run's configuration; `text.model` and the like are hub names or folders.
            features: width of the features, from the files; none for raw images, and where `trained` tells it.
            trained: weights that the caller loads next: the network gets their sizes, and reads no pre-trained ones.

        Raises:
            UserError: no such backbone, or sizes that do not go together.
        """

    def task(self, config: Config, root: Path, device: torch.device, *, test: bool) -> Task:
        """All that a training loop needs.

        Args:
            config: the run's configuration.
            root: folder of the collections.
            device: where it will compute.
            test: check first that the test split can be read.

        Raises:
            UserError: no such collection or encoder, or damaged data.
        """

    def splits(
        self, retriever: Retriever, root: Path, name: SplitName, sample: Sample | None = None
    ) -> Iterator[Split]:
        """A split's queries and gallery, one after the other for each folder of a test, the headline first.

        Args:
            retriever: the trained model.
            root: folder of the collections.
            name: train, val or test.
            sample: only these captions, and their items as gallery.

        Raises:
            UserError: no such split, or damaged data.
        """

    def check(self, config: Config, root: Path) -> Checked:
        """Validate all that a training reads.

        Raises:
            UserError: no such collection under `root`.
        """

    def published(self, path: Path, checkpoint: dict[str, Any]) -> Published | None:
        """Convert a published checkpoint; none if it is another system's.

        Args:
            path: where it came from, for messages.
            checkpoint: plain data and tensors, see nrccr.safeload.

        Raises:
            UserError: it is damaged.
        """


def system_of(name: str) -> System:
    """The five functions of a system.

    Raises:
        UserError: no such system.
    """
    return cast(System, part_of(name, "system"))


def located(config: Config, root: Path) -> Config:
    """The configuration with `text.model` as a folder under the root, if there is one of that name."""
    text = config.text.model_copy(update={"model": find_backbone(root, config.text.model)})
    return config.model_copy(update={"text": text})


def load_trained(config: Config, trained: Trained) -> Model:
    """The model that a configuration describes, with trained weights.

    Raises:
        UserError: weights that do not fit the configuration or the encoder.
    """
    with Budget(trained):
        model = system_of(config.model).network(config, trained=trained)
    network: nn.Module = model.network
    try:
        load_state_dict(network, trained.weights, trained.place)
    except UserError as error:
        reason = str(error).removeprefix(f"{trained.place}: ")
        encoder = f" and text.model={config.text.model}" if "text." in reason else ""
        give = "the encoder it was trained with as text.model=NAME_OR_FOLDER" if encoder else "what it was trained with"
        raise UserError(f"{trained.place}: does not fit its configuration{encoder} ({reason}); give {give}") from error
    return model


def splits_of(retriever: Retriever, root: Path, name: SplitName, sample: Sample | None = None) -> Iterator[Split]:
    """A split's queries and gallery, one after the other for each folder of a test; see System.splits.

    Raises:
        UserError: no such split, damaged data, or features of another width than the model was trained on.
    """
    for split in system_of(retriever.config.model).splits(retriever, root, name, sample):
        visuals, width = split.visuals, retriever.feature_width
        if visuals.width not in (None, width):
            raise UserError(
                f"{visuals.place}: features are {visuals.width} wide, {retriever.checkpoint} was trained "
                f"on {width}; give the features it was trained on as data.feature=NAME"
            )
        yield split
