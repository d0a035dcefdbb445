"""What a training loop needs to know of a system: a network, its losses, its players, data, validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, cast

from torch import Tensor, nn

from nrccr.data.batch import Parts
from nrccr.data.sampling import Indices, shares
from nrccr.processes import as_first
from nrccr.training.optim import Apart
from nrccr.training.runfolder import RunFolder


class TrainingSet(Protocol):
    """Training data; a batch of indices gives one batch object."""

    def __len__(self) -> int:
        """Number of pairs or items."""

    def __getitem__(self, indices: Indices) -> Parts[Any]:
        """The batch at `indices`."""

    def at_epoch(self, epoch: int) -> Self:
        """What to read in an epoch, from 0; the data itself, unless something is drawn anew in every epoch."""

    def fingerprint(self) -> str:
        """A hash of all that is read."""


class SharedSet(TrainingSet, Protocol):
    """Training data of which several processes take parts."""

    def share(self, own: Indices, whole: Indices) -> Parts[Any]:
        """The part of the batch at `whole` that one of several processes computes; all of it where both are the same.

        Where padding counts it is padded as the whole batch is.
        """


@dataclass(frozen=True)
class Shared:
    """A training set for the loader: of each batch the part of one of several processes.

    Attributes:
        pairs: the data of an epoch.
        process: which, from 0.
        processes: how many.
    """

    pairs: TrainingSet
    process: int
    processes: int

    def __getitem__(self, whole: Indices) -> Parts[Any]:
        """This process's part of the batch at `whole`."""
        if self.processes == 1:
            return self.pairs[whole]
        return cast(SharedSet, self.pairs).share(shares(whole, self.processes)[self.process], whole)


@dataclass(frozen=True)
class Validation:
    """How good the weights are.

    Attributes:
        score: what the best epoch is chosen by.
        metrics: for the log.
        line: for the terminal.
    """

    score: float
    metrics: dict[str, Any]
    line: str


@dataclass(frozen=True)
class Player:
    """A module that learns beside the network, with an Adam of its own; its gradients are never clipped.

    Attributes:
        module: what learns.
        learning_rate: at the start.
        losses: named losses of its own on the network's output; those that end in `_loss` are summed. It then steps
            before the network does, and is frozen until the network's step is done. None: it learns
            from the network's total loss, in the same step.
        follows_schedule: whether its learning rate keeps its ratio to the network's; if not, it stays as it is.
    """

    module: nn.Module
    learning_rate: float
    losses: Callable[[Any], dict[str, Tensor]] | None = None
    follows_schedule: bool = False


@dataclass
class Task:
    """What a system brings to its training.

    Attributes:
        network: `network(*batch.parts)` gives what the losses see; in micro-batches its halves `apart` and `together`.
        losses: named losses of the network's output and the batch; those that end in `_loss` are summed.
        players: by name, the modules that learn beside the network.
        pairs: the training set.
        validate: how good the weights are, after every epoch; none where there is no validation split: the last epoch's
            weights are kept.
        counts: by split, what was read.
        save_models: writes configurations and pre-processing of backbone and image encoder into a run folder.
        record: what the numbers depend on besides configuration and data, for run.json; the same when it is resumed.
        places: feature folders or files that it reads; a resumed run finds them unchanged.
        write: writes what else there is to say of the run into its folder, after every epoch; none: nothing.
        memory: by name, modules that remember something of the steps and do not learn; kept in the state.
        apart: parts of the network that learn in their own way, by the beginning of their parameters' names.
        several: whether several processes may share it: the training set is a SharedSet, and the network gathers all
            rows before batch statistics and losses.
    """

    network: nn.Module
    losses: Callable[[Any, Parts[Any]], dict[str, Tensor]]
    players: Mapping[str, Player]
    pairs: TrainingSet
    validate: Callable[[], Validation] | None
    counts: dict[str, dict[str, Any]]
    save_models: Callable[[RunFolder], None]
    record: dict[str, Any] = field(default_factory=dict)
    places: tuple[Path, ...] = ()
    write: Callable[[RunFolder], None] | None = None
    memory: Mapping[str, nn.Module] = field(default_factory=dict)
    apart: Mapping[str, Apart] = field(default_factory=dict)
    several: bool = False


def begin_alike(task: Task) -> None:
    """The first process's weights in all: another processor may have drawn others."""
    for module in (task.network, *(player.module for player in task.players.values())):
        for value in module.state_dict().values():
            as_first(value)


def total(losses: Mapping[str, Tensor]) -> Tensor:
    """Sum of the entries that end in `_loss`; weights are already in them."""
    parts = [value for name, value in losses.items() if name.endswith("_loss")]
    summed = parts[0]
    for part in parts[1:]:
        summed = summed + part
    return summed
