"""Contrast with several positives against loops, and its limits."""

from __future__ import annotations

import math

import pytest
import torch

from nrccr.losses.infonce import InfoNCELoss
from nrccr.losses.multipositive import MultiPositiveContrast, soft_labels
from nrccr.losses.trust import pair_probability

SCALE = torch.tensor(1 / 0.07)
LOSS = MultiPositiveContrast()


def unit(rows: int, seed: int = 0) -> torch.Tensor:
    vectors = torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return vectors / vectors.norm(dim=1, keepdim=True)


def by_loops(scores: torch.Tensor, text: list[int], visual: list[int], scale: float, weights: list[float]) -> float:
    total_text = total_visual = 0.0
    for row, item in enumerate(text):
        logs = (scores[row] * scale).log_softmax(0)
        right = [column for column, other in enumerate(visual) if other == item]
        total_text += weights[row] * -sum(float(logs[column]) for column in right) / max(len(right), 1)
    found = 0.0
    for column, item in enumerate(visual):
        logs = (scores[:, column] * scale).log_softmax(0)
        right = [row for row, other in enumerate(text) if other == item]
        trust = sum(weights[row] for row in right)
        if trust:
            most = max(weights[row] for row in right)
            found += most
            total_visual -= most * sum(weights[row] * float(logs[row]) for row in right) / trust
    return 0.5 * (total_text / sum(weights) + total_visual / found)


@pytest.mark.parametrize("weights", [None, [1.0, 0.5, 0.0, 0.2, 1.0]])
def test_equals_loops(weights: list[float] | None) -> None:
    text, visual = [0, 0, 1, 2, 2], [0, 1, 2, 2]
    scores = unit(5) @ unit(4, 1).T
    given = None if weights is None else torch.tensor(weights)
    found = LOSS(scores, torch.tensor(text), torch.tensor(visual), SCALE, given)
    assert float(found) == pytest.approx(by_loops(scores, text, visual, float(SCALE), weights or [1.0] * 5), rel=1e-5)


def test_one_caption_an_item_is_infonce() -> None:
    text, visual, items = unit(6), unit(6, 1), torch.arange(6)
    expected = InfoNCELoss(0.07)(text, visual) / 6
    assert float(LOSS(text @ visual.T, items, items, SCALE)) == pytest.approx(float(expected), rel=1e-6)


def test_chance_level_and_order() -> None:
    items = torch.tensor([0, 0, 1, 1])
    assert float(LOSS(torch.zeros(4, 4), items, items, SCALE)) == pytest.approx(math.log(4))
    scores, order = unit(4) @ unit(4, 1).T, torch.tensor([2, 0, 3, 1])
    shuffled = LOSS(scores[order], items[order], items, SCALE)
    assert float(shuffled) == pytest.approx(float(LOSS(scores, items, items, SCALE)))


def test_no_pairs_and_the_learned_scale_gets_a_gradient() -> None:
    for rows, columns in ((0, 0), (0, 3), (3, 0)):
        scores = torch.zeros(rows, columns, requires_grad=True)
        loss = LOSS(scores, torch.arange(rows), torch.arange(columns), SCALE)
        loss.backward()
        assert loss.item() == 0 and scores.grad is not None
    scale, items = SCALE.clone().requires_grad_(), torch.arange(5)
    LOSS(unit(5) @ unit(5, 1).T, items, items, scale).backward()
    assert scale.grad is not None and float(scale.grad) != 0


def test_a_caption_without_trust_is_only_a_negative() -> None:
    scores, items = (unit(4) @ unit(4, 1).T).requires_grad_(), torch.arange(4)
    LOSS(scores, items, items, SCALE, torch.tensor([1.0, 1.0, 0.0, 1.0])).backward()
    assert scores.grad is not None
    assert float(scores.grad[2, 2]) == 0  # neither its row nor its video's column pulls the two together
    assert (scores.grad[2, [0, 1, 3]] > 0).all()  # the others' videos push it away


def test_less_trust_pulls_less_in_both_directions_without_a_jump_at_none() -> None:
    pulls = []
    for trust in (1.0, 0.1, 1e-3, 1e-6, 0.0):
        scores, items = (unit(4) @ unit(4, 1).T).requires_grad_(), torch.arange(4)
        LOSS(scores, items, items, SCALE, torch.tensor([1.0, 1.0, trust, 1.0])).backward()
        assert scores.grad is not None
        pulls.append(-float(scores.grad[2, 2]))
    assert pulls == sorted(pulls, reverse=True) and pulls[1] < 0.2 * pulls[0]
    assert pulls[3] == pytest.approx(pulls[4], abs=1e-5 * pulls[0])


def test_labels_of_a_row_sum_to_one_or_zero() -> None:
    labels = soft_labels(torch.tensor([0, 1, 5]), torch.tensor([0, 1, 1, 2]))
    assert labels.tolist() == [[1, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 0]]


def test_pair_probability_finds_the_wrong_pair() -> None:
    scores = torch.eye(4)
    scores[2] = torch.tensor([0.0, 0.9, 0.1, 0.0])  # caption 2 describes video 1
    items = torch.arange(4)
    found = pair_probability(scores, items, items, items)
    assert found.argmin() == 2 and found[2] < 0.5 and found[0] > 0.99
    logits = scores / 0.05
    one = 0.5 * (logits[1].softmax(0)[1] + logits[:, 1].softmax(0)[1])
    assert float(found[1]) == pytest.approx(float(one))
    assert not pair_probability(scores.requires_grad_(), items, items, items).requires_grad


def test_captions_of_one_item_leave_each_other_their_probability() -> None:
    scores = 0.1 * torch.eye(5) + 0.05 * torch.arange(5.0)
    scores[:, 4], scores[4] = scores[:, 1], scores[1]  # pair 4 is pair 1 once more
    scores[4, 4] = scores[1, 1]
    every, items, twice = torch.arange(5), torch.arange(5), torch.tensor([0, 1, 2, 3, 1])
    found = pair_probability(scores, every, twice, twice)
    alone = pair_probability(scores[:4, :4], every[:4], items[:4], items[:4])
    torch.testing.assert_close(found[[1, 4]], alone[[1, 1]])
    assert pair_probability(scores, every, items, items)[1] < alone[1] - 0.05


def test_a_caption_stands_against_the_videos_of_captions_without_translation() -> None:
    scores, rows, items = unit(2) @ unit(5, 1).T, torch.tensor([3, 1]), torch.tensor([0, 1, 2, 3, 3])
    found = pair_probability(scores, rows, items[rows], items, 0.5)  # soft enough that no probability is 0 or 1
    halved = pair_probability(scores.bfloat16(), rows, items[rows], items, 0.5)
    assert halved.dtype == torch.float32
    torch.testing.assert_close(halved, found.float(), atol=0.01, rtol=0)
    for row, column in enumerate(rows.tolist()):
        logs = scores[row] / 0.5
        others = [at for at in range(5) if at == column or int(items[at]) != int(items[column])]
        of_text = (logs[column] - logs[others].logsumexp(0)).exp()
        of_visual = (scores[:, column] / 0.5).softmax(0)[row]
        assert float(found[row]) == pytest.approx(float(0.5 * (of_text + of_visual)))
