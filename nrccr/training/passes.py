"""How a step goes through the network: at once, or with exact gradients in pieces that fit in memory.

In pieces (gradient caching: Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, 2021):
the encoders see one micro-batch after the other, first without gradients; their rows come together, so that batch
statistics and losses are those of the whole batch; then each micro-batch passes again, with the same random numbers,
and takes its rows' gradients on to the weights. A network that can do so has `apart` and `together`, of which its
`forward` consists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from nrccr.config.schema import Config
from nrccr.data.batch import TensorRecord
from nrccr.distributed import Runtime, draw_again, own_random_state
from nrccr.errors import UserError
from nrccr.models.checkpointing import checkpoint_layers


class Part(Protocol):
    """A part of a batch, of `count` rows."""

    @property
    def count(self) -> int:
        """How many rows."""

    def between(self, start: int, stop: int) -> Self:
        """Some of the rows."""


class AtOnce:
    """The whole batch at once."""

    def __init__(self, network: nn.Module, runtime: Runtime) -> None:
        self.network = network
        self.runtime = runtime

    def forward(self, parts: Sequence[Any]) -> Any:
        """The network's output for a batch."""
        with self.runtime.autocast():
            return self.network(*parts)

    def backward(self) -> None:
        """Nothing is left to do: the loss's gradients have reached the weights."""


class InPieces:
    """Micro-batches, twice.

    Args:
        network: with `apart` and `together`.
        runtime: its device and precision.
        size: rows of a micro-batch at most.
    """

    def __init__(self, network: Any, runtime: Runtime, size: int) -> None:
        self.network = network
        self.runtime = runtime
        self.size = size
        self._pieces: list[list[Any]] = []
        self._random: list[dict[str, Tensor]] = []
        self._rows: list[TensorRecord] = []

    def forward(self, parts: Sequence[Part]) -> Any:
        """The network's output for a batch; `backward` takes gradients on from where it is cut."""
        self._pieces, self._random, self._rows = pieces_of(parts, self.size), [], []
        for piece in self._pieces:
            self._random.append(own_random_state(self.runtime.device))
            # A context for each: autocast keeps the weights that it has cast, here without their gradients.
            with torch.no_grad(), self.runtime.autocast():
                self._rows.append(self.network.apart(*piece).map(_leaf))
        with self.runtime.autocast():
            return self.network.together(self._rows, *parts)

    def backward(self) -> None:
        """After the loss's own backward pass: from the rows on to the weights, a micro-batch at a time."""
        afterwards = own_random_state(self.runtime.device)
        for piece, state, cut in zip(self._pieces, self._random, self._rows, strict=True):
            draw_again(state, self.runtime.device)
            with self.runtime.autocast():
                again = self.network.apart(*piece)
            found = [
                (made, leaf.grad)
                for made, leaf in zip(_tensors(again), _tensors(cut), strict=True)
                if made.requires_grad and leaf.grad is not None
            ]
            if found:
                torch.autograd.backward([made for made, _ in found], [gradient for _, gradient in found])
        draw_again(afterwards, self.runtime.device)
        self._pieces, self._random, self._rows = [], [], []


def passes(config: Config, network: nn.Module, runtime: Runtime) -> AtOnce | InPieces:
    """How the steps of a run go through its network, which is made ready for it.

    Raises:
        UserError: micro-batches of a network that is not made for them, or nothing to checkpoint.
    """
    if config.train.checkpointing:
        checkpoint_layers(network)
    size = config.train.micro_batch
    if size is None:
        return AtOnce(network, runtime)
    if not (hasattr(network, "apart") and hasattr(network, "together")):
        raise UserError(f"train.micro_batch={size}: model={config.model} takes its batches whole; remove it")
    return InPieces(network, runtime, size)


def pieces_of(parts: Sequence[Part], size: int) -> list[list[Any]]:
    """Micro-batches of at most `size` rows, in order: pieces of parts, several of them where they fit."""
    pieces: list[list[Any]] = []
    room = 0
    for part in parts:
        for start in range(0, part.count, size):
            count = min(size, part.count - start)
            if count > room:
                pieces.append([])
                room = size
            pieces[-1].append(part if count == part.count else part.between(start, start + count))
            room -= count
    return pieces


def _leaf(made: Tensor) -> Tensor:
    """A tensor where the backward pass of the loss ends."""
    return made.detach().requires_grad_() if made.is_floating_point() else made


def _tensors(record: TensorRecord) -> list[Tensor]:
    """All tensors of a record, in a fixed order."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    record.map(note)
    return found
