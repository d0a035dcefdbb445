"""The moving average of weights, beside the sum that defines it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nrccr.training.average import Average

DECAY = 0.75


def test_parameters_and_statistics_are_averaged_alike() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    average = Average(network, DECAY)
    expected: dict[str, Tensor] = {}
    for _ in range(5):
        optimizer.zero_grad()
        network(torch.randn(8, 3) + 2).pow(2).sum().backward()
        optimizer.step()
        average.update()
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                past = expected.get(name, value)
                expected[name] = (DECAY * past + (1 - DECAY) * value).clone()
    own = {name: value.clone() for name, value in network.state_dict().items()}
    with average.in_use():
        found = network.state_dict()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value)
        assert not torch.equal(found["1.running_mean"], own["1.running_mean"])
    for name, value in network.state_dict().items():
        assert torch.equal(value, own[name])
