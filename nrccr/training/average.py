"""A moving average of a network's weights, which validation and test take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nrccr.training.state import require_count, require_module


class Average:
    """The exponential moving average of a network's parameters and buffers.

    Batch normalisation's running statistics are averaged with the weights that they belong to: beside averaged weights
    those of the last ten steps or so made validation jump.

    Args:
        network: on its device.
        decay: share of the average that a step leaves.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = network
        averaging = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self.model = AveragedModel(network, multi_avg_fn=averaging, use_buffers=True)

    def update(self) -> None:
        """Take the network's weights in; the first time the average is these."""
        self.model.update_parameters(self.network)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """The network with the averaged weights, then with its own again."""
        own = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.model.module.state_dict())
        try:
            yield
        finally:
            self.network.load_state_dict(own)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"module": self.model.module.state_dict(), "count": int(self.model.n_averaged)}

    def check(self, found: Any) -> None:
        """Make sure that a saved state is of this network.

        Raises:
            KeyError, TypeError, ValueError: it is not.
        """
        require_module("average", self.model.module, found["module"])
        require_count("average.count", found["count"])

    def restore(self, found: dict[str, Any]) -> None:
        """Take a saved state over; see `check`."""
        self.model.module.load_state_dict(found["module"])
        self.model.n_averaged.fill_(found["count"])
