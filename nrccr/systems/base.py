"""What a system brings: a module with five functions. Nothing outside `systems` asks which system it is.

N captions or items, D joint-space width.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from nrccr.evaluation.encode import Encoder
from nrccr.models.statedicts import State, load
from nrccr.systems.retriever import Model, Retriever
from nrccr.systems.table import part_of
from nrccr.training.runfolder import RunFolder
from nrccr.training.task import Task


class Network(Encoder, Protocol):
    """What a system's network gives, besides being a torch module."""

    @property
    def feature_width(self) -> int:
        """Width of the features it takes; that of its image encoder's output where it has one."""


@dataclass(frozen=True)
class Trained:
    """Trained weights by our names.

    Attributes:
        weights: of the whole network.
        place: the file they come from.
        published: whether it is a published checkpoint, which brings no files of its encoders.
    """

    weights: State
    place: Path
    published: bool = False

    def width_of(self, *names: str) -> int:
        """Inputs of the first of some matrices that is there: how wide the features were that weights were trained on.

        Raises:
            UserError: none of them is there.
        """
        for name in names:
            if name in self.weights and self.weights[name].ndim == 2:
                return int(self.weights[name].shape[-1])
        raise UserError(f"{self.place}: lacks the matrix {names[0]}; these weights are of another system")


@dataclass(frozen=True)
class Published:
    """A published checkpoint as ours.

    Attributes:
        config: plain values of the configuration, as far as a test needs them.
        weights: by our names.
    """

    config: dict[str, Any]
    weights: State = field(repr=False)


class System(Protocol):
    """A paper: the module `system` of its folder."""

    def network(self, config: Config, features: int | None = None, trained: Trained | None = None) -> Model:
        """The network that a configuration describes, a `Network`, and what its inputs pass before it.

        Args:
            config: the run's configuration; `text.model` and the like are hub names or folders.
            features: width of the features, from the files; none for raw images.
            trained: weights that the caller loads next: their sizes are taken, no pre-trained ones are read.

        Raises:
            UserError: no such backbone, or sizes that do not go together.
        """

    def task(self, config: Config, root: Path, device: torch.device, *, test: bool) -> Task:
        """All that a training needs.

        Args:
            config: the run's configuration.
            root: folder of the collections.
            device: where it will compute.
            test: make sure first that the test split can be read.

        Raises:
            UserError: no such collection or encoder, or damaged data.
        """

    def splits(
        self, retriever: Retriever, root: Path, name: SplitName, sample: Sample | None = None
    ) -> Sequence[Split]:
        """A split's queries and gallery, one entry for each folder of a test, the headline first.

        Args:
            retriever: the trained model.
            root: folder of the collections.
            name: train, val or test.
            sample: only so many of its captions, drawn; their items alone are the gallery.

        Raises:
            UserError: no such split there, or damaged data.
        """

    def check(self, config: Config, root: Path) -> Checked:
        """What is wrong with all that a training reads.

        Raises:
            UserError: no such collection under `root`.
        """

    def published(self, path: Path, checkpoint: dict[str, Any]) -> Published | None:
        """A published checkpoint as ours; none if it is another system's.

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
    """The configuration with `text.model` as a folder under the root, where there is one of that name."""
    text = config.text.model_copy(update={"model": find_backbone(root, config.text.model)})
    return config.model_copy(update={"text": text})


def save_encoders(run: RunFolder, model: Model) -> None:
    """Write the backbone's configuration and tokeniser into a run folder, which then needs no `text.model`."""
    model.network.text.backbone.config.save_pretrained(run.backbone)
    model.tokenizer.save(run.backbone)


def load_trained(config: Config, trained: Trained) -> Model:
    """The model that a configuration describes, with trained weights.

    Raises:
        UserError: weights that do not fit the configuration or the encoder.
    """
    model = system_of(config.model).network(config, trained=trained)
    network: nn.Module = model.network
    try:
        load(network, trained.weights, trained.place)
    except UserError as error:
        reason = str(error).removeprefix(f"{trained.place}: ")
        encoder = f" and text.model={config.text.model}" if "text." in reason else ""
        give = "the encoder it was trained with as text.model=NAME_OR_FOLDER" if encoder else "what it was trained with"
        raise UserError(f"{trained.place}: does not fit its configuration{encoder} ({reason}); give {give}") from error
    return model


def splits_of(retriever: Retriever, root: Path, name: SplitName, sample: Sample | None = None) -> Sequence[Split]:
    """A split's queries and gallery, one entry for each folder of a test, the headline first; see System.splits.

    Raises:
        UserError: no such split there, damaged data, or features of another width than the model was trained on.
    """
    found = system_of(retriever.config.model).splits(retriever, root, name, sample)
    for split in found:
        visuals, width = split.visuals, retriever.feature_width
        if visuals.width not in (None, width):
            raise UserError(
                f"{visuals.place}: features are {visuals.width} wide, {retriever.checkpoint} was trained "
                f"on {width}; give the features it was trained on as data.feature=NAME"
            )
    return found
