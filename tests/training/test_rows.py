"""Training only the used rows of a word table is training the whole table."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nrccr.data.tokens import TokenTable, used_ids
from nrccr.training.optim import adam, trainable
from nrccr.training.rows import UsedRows, cut_moments, parted_tables, train_used_rows, whole_moments

USED = np.array([0, 3, 4, 7])


class Words(nn.Module):
    """A word table with padding 0 and a layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(9, 6, padding_idx=0)
        self.layer = nn.Linear(6, 5)

    def forward(self, ids: Tensor) -> Tensor:
        return self.layer(self.table(ids)).square().sum()


def steps(network: Words, optimizer: torch.optim.Optimizer, count: int) -> None:
    """Steps on used words, gradients clipped; each shows other ones."""
    tables = [module for module in network.modules() if isinstance(module, UsedRows)]
    for step in range(count):
        ids = torch.from_numpy(USED)[torch.tensor([[0, 1 + step % 3], [2, 2]])]
        optimizer.zero_grad()
        network(ids).backward()
        nn.utils.clip_grad_norm_(trainable(network), 0.5)
        optimizer.step()
        for table in tables:
            table.write_back()


@pytest.fixture
def networks() -> tuple[Words, Words]:
    """One that trains its whole table, one that trains its used rows."""
    whole, ours = Words(), Words()
    train_used_rows(ours.table, USED)
    return whole, ours


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(value, other[key]) for key, value in one.items()) and one.keys() == other.keys()


def test_weights_and_moments_are_those_of_the_whole_table(networks: tuple[Words, Words]) -> None:
    whole, ours = networks
    (table,) = parted_tables(ours)
    optimizers = adam(whole, 1e-2), adam(ours, 1e-2)
    for network, optimizer in zip(networks, optimizers, strict=True):
        steps(network, optimizer, 7)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-6, atol=1e-7)
    unused = np.setdiff1d(np.arange(9), USED)
    assert torch.equal(ours.table.weight[unused], Words().table.weight[unused])
    assert not torch.equal(ours.table.weight[3], Words().table.weight[3])
    saved = whole_moments(optimizers[1], [table])
    wanted = optimizers[0].state_dict()
    assert saved["param_groups"] == wanted["param_groups"] and saved["state"].keys() == wanted["state"].keys()
    for index, moments in wanted["state"].items():
        for name, value in moments.items():
            torch.testing.assert_close(saved["state"][index][name], value, rtol=1e-5, atol=1e-9)


def test_resumed_from_what_was_saved_to_the_bit(networks: tuple[Words, Words]) -> None:
    _, ours = networks
    tables = parted_tables(ours)
    optimizer = adam(ours, 1e-2)
    steps(ours, optimizer, 3)
    weights, state = copy.deepcopy(ours.state_dict()), copy.deepcopy(whole_moments(optimizer, tables))
    steps(ours, optimizer, 3)
    resumed = Words()
    train_used_rows(resumed.table, USED)
    (table,) = parted_tables(resumed)
    again = adam(resumed, 1e-2)
    resumed.load_state_dict(weights)
    table.reload()
    again.load_state_dict(cut_moments(again, [table], state))
    steps(resumed, again, 3)
    assert same(resumed.state_dict(), ours.state_dict())


def test_moments_of_other_words_are_refused(networks: tuple[Words, Words]) -> None:
    whole, ours = networks
    tables = parted_tables(ours)
    optimizer = adam(whole, 1e-2)
    whole(torch.tensor([5])).backward()
    optimizer.step()
    with pytest.raises(ValueError, match="words were trained"):
        cut_moments(adam(ours, 1e-2), tables, optimizer.state_dict())


@pytest.mark.parametrize("rows", [8, 10])
def test_moments_of_a_table_of_another_size_are_refused(networks: tuple[Words, Words], rows: int) -> None:
    tables = parted_tables(networks[1])
    state = {"state": {0: {"exp_avg": torch.zeros(rows, 6), "exp_avg_sq": torch.zeros(rows, 6)}}}
    with pytest.raises(ValueError, match=rf"exp_avg of 0 is \({rows}, 6\), not \(9, 6\)"):
        cut_moments(adam(networks[1], 1e-2), tables, state)


@pytest.mark.parametrize("found", [None, {}, {"state": 1}, {"state": {0: {"exp_avg": torch.ones(2)}}}])
def test_another_form_is_left_to_the_check_of_the_state(networks: tuple[Words, Words], found: Any) -> None:
    tables = parted_tables(networks[1])
    assert cut_moments(adam(networks[1], 1e-2), tables, found) == found


def test_unused_words_cannot_train_but_are_read(networks: tuple[Words, Words]) -> None:
    whole, ours = networks
    parted_tables(ours)
    with pytest.raises(IndexError):
        ours(torch.tensor([5]))
    with torch.no_grad():
        assert torch.equal(ours(torch.tensor([5])), whole(torch.tensor([5])))


def test_names_and_frozen_tables_stay() -> None:
    network = Words()
    names = list(network.state_dict())
    network.table.requires_grad_(False)
    train_used_rows(network.table, USED)
    assert type(network.table) is nn.Embedding and not parted_tables(network)
    network.table.requires_grad_(True)
    train_used_rows(network.table, USED)
    parted_tables(network)
    assert list(network.state_dict()) == names == [name for name, _ in network.named_parameters()]
    assert [tuple(own.shape) for own in trainable(network)] == [(4, 6), (5, 6), (5,)]


def test_ids_of_tables() -> None:
    tables = [TokenTable([[5, 2], [2]], pad=1), TokenTable([[9]], pad=1)]
    assert used_ids(tables, 7).tolist() == [1, 2, 5, 7, 9]


@pytest.mark.parametrize("system", ["nrccr", "mlcmr"])
def test_a_run_trains_used_rows_alone(
    system: str,
    request: pytest.FixtureRequest,
    both_languages: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    nrccr_command: Callable[..., Any],
) -> None:
    """The whole table's run, but for the last digits: the clipped norm adds up in another order."""
    config = request.getfixturevalue({"nrccr": "tiny_config", "mlcmr": "mlcmr_config"}[system])
    run = ("train", config, "--root", both_languages, "--device", "cpu", "train.epochs=1", "text.freeze=none", "--out")
    assert nrccr_command(*run, tmp_path / "ours").code == 0
    monkeypatch.setattr(f"nrccr.systems.{system}.system.train_used_rows", lambda table, used: None)
    assert nrccr_command(*run, tmp_path / "whole").code == 0
    from nrccr.safeload.unpickle import load_checkpoint

    ours, whole = (load_checkpoint(tmp_path / name / "last" / "state.pt") for name in ("ours", "whole"))
    for part in ("network", "optimizer"):
        assert ours[part].keys() == whole[part].keys()
    for name, value in whole["network"].items():
        torch.testing.assert_close(ours["network"][name], value, rtol=1e-4, atol=1e-5, msg=name)
    for index, moments in whole["optimizer"]["state"].items():
        assert ours["optimizer"]["state"][index]["exp_avg"].shape == moments["exp_avg"].shape
