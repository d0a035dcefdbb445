"""A moving average of a network's weights, which validation and test take."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from nrccr.training.rows import UsedRows
from nrccr.training.state import require_count, require_module


class Average:
    """The exponential moving average of a network's parameters and buffers.

    Batch normalisation's running statistics are averaged with the weights that they belong to: beside averaged weights
    those of the last ten steps or so made validation jump. Of a word table whose used rows train apart only these are
    averaged: the others stay what they were.

    Args:
        network: on its device.
        decay: share of the average that a step leaves.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = network
        self.averaged = copy.deepcopy(network)
        self.count = 0
        self._mix = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self._pairs = list(zip(_trained(self.averaged), _trained(network), strict=True))

    @torch.no_grad()
    def update(self) -> None:
        """Take the network's weights in; the first time the average is these."""
        mixed = [pair for pair in self._pairs if self.count and pair[0].is_floating_point()]
        if mixed:
            self._mix([own for own, _ in mixed], [new for _, new in mixed], self.count)
        for own, new in self._pairs:
            if not self.count or not own.is_floating_point():
                own.copy_(new)
        self.count += 1

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """The network with the averaged weights, then with its own again."""
        own = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(self._whole())
        try:
            yield
        finally:
            self.network.load_state_dict(own)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"module": self._whole(), "count": self.count}

    def check(self, found: Any) -> None:
        """Make sure that a saved state is of this network.

        Raises:
            KeyError, TypeError, ValueError: it is not.
        """
        require_module("average", self.averaged, found["module"])
        require_count("average.count", found["count"])

    def restore(self, found: dict[str, Any]) -> None:
        """Take a saved state over; see `check`."""
        self.averaged.load_state_dict(found["module"])
        for table in _tables(self.averaged):
            table.reload()
        self.count = int(found["count"])

    def _whole(self) -> dict[str, Any]:
        for table in _tables(self.averaged):
            table.write_back()
        return self.averaged.state_dict()


def _tables(network: nn.Module) -> list[UsedRows]:
    """Its word tables whose used rows train apart."""
    return [module for module in network.modules() if isinstance(module, UsedRows) and module.own is not None]


def _trained(network: nn.Module) -> list[Tensor]:
    """All that a training may change, each once: what trains and saved buffers, of a table in parts its used rows."""
    apart = {id(table.weight): table.own for table in _tables(network) if table.own is not None}
    saved = {id(value): value for value in network.state_dict(keep_vars=True).values()}
    frozen = {id(value) for value in network.parameters() if not value.requires_grad}
    return [apart.get(key, value) for key, value in saved.items() if key not in frozen]
