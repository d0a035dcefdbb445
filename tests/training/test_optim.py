"""The schedule against the specification's rule in a loop, and which parameters the optimiser takes."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from nrccr.config.sections import TrainSection
from nrccr.training.optim import Apart, Schedule, adam, set_learning_rate


def by_hand(scores: list[float], rate: float) -> tuple[list[float], list[bool], int]:
    """Spec section 3: learning rates after each epoch, whether it was the best, and how many epochs are run."""
    counter, best, since_best = 0, -float("inf"), 0
    rates, improvements = [], []
    for score in scores:
        improved = score > best
        best = max(best, score)
        since_best = 0 if improved else since_best + 1
        counter += 1
        rate *= 0.99
        if not improved and counter > 2:
            rate *= 0.5
            counter = 0
        rates.append(rate)
        improvements.append(improved)
        if since_best == 11:
            break
    return rates, improvements, len(rates)


def ours(scores: list[float], rate: float) -> tuple[list[float], list[bool], int]:
    config, schedule = TrainSection(), Schedule(rate)
    rates, improvements = [], []
    for epoch, score in enumerate(scores, start=1):
        improvements.append(schedule.after_epoch(epoch, score, config))
        rates.append(schedule.learning_rate)
        if schedule.exhausted(config):
            break
    return rates, improvements, len(rates)


@pytest.mark.parametrize("seed", range(20))
def test_random_scores(seed: int) -> None:
    draw = random.Random(seed)
    scores = [draw.choice([10.0, 20.0, 30.0]) + epoch * draw.choice([0, 0, 0.1]) for epoch in range(50)]
    found, expected = ours(scores, 1e-4), by_hand(scores, 1e-4)
    assert found[0] == pytest.approx(expected[0], rel=1e-12)
    assert found[1:] == expected[1:]


def test_written_out() -> None:
    rates, improvements, epochs = ours([10.0] + [5.0] * 30, 1.0)
    assert improvements == [True] + [False] * 11 and epochs == 12, "eleven epochs without improvement end the run"
    factors = [after / before for before, after in zip([1.0, *rates], rates, strict=False)]
    # The counter passes 2 in epoch 3, then every third epoch.
    assert factors == pytest.approx([0.99, 0.99, 0.495] * 4)


def test_an_equal_score_and_a_first_score_of_zero() -> None:
    schedule, config = Schedule(1.0), TrainSection()
    assert schedule.after_epoch(1, 0.0, config)
    assert not schedule.after_epoch(2, 0.0, config)
    assert (schedule.best, schedule.best_epoch, schedule.stale) == (0.0, 1, 1)


def test_without_validation_the_last_epoch_is_the_best() -> None:
    schedule, config = Schedule(1.0), TrainSection()
    assert all(schedule.after_epoch(epoch, None, config) for epoch in range(1, 21))
    assert (schedule.best_epoch, schedule.stale) == (20, 0) and not schedule.exhausted(config)
    assert schedule.learning_rate == pytest.approx(0.99**20), "never halved"


def test_halving_waits_for_a_bad_epoch() -> None:
    rates, _, _ = ours([1.0, 2.0, 3.0, 4.0, 3.9, 5.0], 1.0)
    assert rates[3] == pytest.approx(0.99**4) and rates[4] == pytest.approx(0.99**5 / 2)
    assert rates[5] == pytest.approx(0.99**6 / 2)


def test_optimiser_takes_what_trains() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    module[0].requires_grad_(False)
    optimiser = adam(module, 0.5)
    (group,) = optimiser.param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in module[1].parameters()}
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.5, (0.9, 0.999), 0)
    module[1].weight.data.fill_(1.0)
    module(torch.ones(1, 2)).sum().backward()
    sign = module[1].weight.grad.sign()
    optimiser.step()
    torch.testing.assert_close(module[1].weight.data, 1.0 - 0.5 * sign, atol=1e-4, rtol=0)


def test_every_part_keeps_its_ratio_of_the_rate() -> None:
    module = nn.ModuleDict({"text": nn.Linear(2, 2), "other": nn.Linear(2, 2)})
    optimizer = adam(module, 0.1, {"text.": Apart(0.01)})
    set_learning_rate(optimizer, 0.04, [1.0, 0.1])
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.04, 0.004])
    set_learning_rate(optimizer, 0.02)
    assert [group["lr"] for group in optimizer.param_groups] == [0.02, 0.02]
