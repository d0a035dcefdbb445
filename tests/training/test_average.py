"""The moving average of weights, beside the sum that defines it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from nrccr.training.average import Average
from nrccr.training.rows import parted_tables, train_used_rows

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
        assert found["1.num_batches_tracked"] == 5  # whole numbers are the last step's
    for name, value in network.state_dict().items():
        assert torch.equal(value, own[name])


def test_used_rows_of_a_table_are_averaged_and_the_others_stay() -> None:
    torch.manual_seed(0)
    network = nn.ModuleDict({"words": nn.Embedding(9, 3), "tied": nn.Linear(3, 9)})
    network["again"] = network["tied"]  # a weight under two names is averaged once
    start = network["words"].weight.detach().clone()
    used = np.array([1, 4, 5])
    train_used_rows(network["words"], used)
    (table,) = parted_tables(network)
    average = Average(network, DECAY)
    rows, linear = [], []
    for _ in range(4):
        with torch.no_grad():
            assert table.own is not None
            table.own.mul_(2)
            network["tied"].weight.add_(1)
        table.write_back()
        average.update()
        rows.append(table.own.detach().clone())
        linear.append(network["tied"].weight.detach().clone())
    state = average.state()
    for found, seen in ((state["module"]["words.weight"][used], rows), (state["module"]["tied.weight"], linear)):
        expected = seen[0]
        for value in seen[1:]:
            expected = DECAY * expected + (1 - DECAY) * value
        torch.testing.assert_close(found, expected)
    others = np.setdiff1d(np.arange(9), used)
    assert torch.equal(state["module"]["words.weight"][others], start[others])
    resumed = Average(network, DECAY)
    resumed.restore({"module": {key: value.clone() for key, value in state["module"].items()}, "count": state["count"]})
    for one in (average, resumed):
        one.update()
    assert resumed.state()["count"] == average.state()["count"] == 5
    assert torch.equal(average.state()["module"]["words.weight"], resumed.state()["module"]["words.weight"])
    with average.in_use(), torch.no_grad():
        assert torch.equal(table(torch.from_numpy(used)), average.state()["module"]["words.weight"][used])
    assert torch.equal(table.weight[used], rows[-1])


def test_frozen_weights_are_there_and_cost_no_step_anything() -> None:
    network = nn.Sequential(nn.Linear(3, 4).requires_grad_(False), nn.BatchNorm1d(4))
    average = Average(network, DECAY)
    start = {name: value.clone() for name, value in network.state_dict().items()}
    frozen = average.averaged[0].weight
    version = frozen._version
    for _ in range(3):
        with torch.no_grad():
            network[1].weight.add_(1)
        average.update()
    assert frozen._version == version  # never written
    found = average.state()["module"]
    assert found.keys() == start.keys() and torch.equal(found["0.weight"], start["0.weight"])
    assert not torch.equal(found["1.weight"], start["1.weight"])
