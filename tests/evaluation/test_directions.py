"""Scores of both directions from embeddings: scaled and mixed by hand, and of queries without translations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from nrccr.evaluation import directions
from nrccr.evaluation.blocks import DenseScores, dense
from nrccr.evaluation.directions import Bank, Directions
from nrccr.evaluation.encode import Embeddings
from nrccr.evaluation.normalise import METHODS, Method, Settings, normalise
from nrccr.evaluation.score import MinMax, mix

Array = npt.NDArray[np.float32]


def embeddings(queries: int, items: int, seed: int, translated: bool = False) -> Embeddings:
    made = torch.nn.functional.normalize(
        torch.randn(2 * queries + items, 6, generator=torch.Generator().manual_seed(seed)), dim=1
    )
    target, source, visual = made.split([queries, queries, items])
    return Embeddings(source if translated else None, target, visual)


def minmax(scores: Array) -> Array:
    return (scores - scores.min()) / np.ptp(scores)


@pytest.fixture(params=[True, False], ids=["held", "blocks"])
def held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether whole matrices are held."""
    if not request.param:
        monkeypatch.setattr(directions, "fits", lambda shape, memory_mb: False)
    return bool(request.param)


def test_minmax_and_mix_by_hand() -> None:
    scores = torch.tensor([[0.2, -0.3], [0.7, 0.1]])
    torch.testing.assert_close(dense(MinMax(DenseScores(scores))), torch.tensor([[0.5, 0.0], [1.0, 0.4]]))
    assert dense(MinMax(DenseScores(torch.full((2, 2), 3.0)))).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    mixed = mix(torch.tensor([[1.0]]), torch.tensor([[2.0]]), target_weight=0.8)
    assert mixed.item() == pytest.approx(0.8 * 2 + 0.2 * 1)


@pytest.mark.parametrize("kind", ["raw", "minmax"])
def test_plain_scores_are_scaled_and_mixed(kind: Any, held: bool) -> None:
    own = embeddings(17, 9, 0, translated=True)
    assert own.source is not None
    sides = [(vectors @ own.visual.T).numpy() for vectors in (own.source, own.target)]
    source, target = [minmax(side) if kind == "minmax" else side for side in sides]
    made = Directions(own, kind, 2000)
    for weight in (0.0, 0.3, 1.0):
        forward, backward = made.plain(weight)
        np.testing.assert_allclose(dense(forward).numpy(), weight * target + (1 - weight) * source, atol=1e-6)
        assert torch.equal(dense(backward), dense(forward).T)


@pytest.mark.parametrize("kind", ["raw", "minmax"])
def test_queries_without_translations_have_one_matrix_at_any_weight(kind: Any, held: bool) -> None:
    own = embeddings(17, 9, 0)
    cosines = (own.target @ own.visual.T).numpy()
    made = Directions(own, kind, 2000)
    for weight in (0.0, 0.3, 1.0):
        forward, backward = made.plain(weight)
        np.testing.assert_allclose(dense(forward).numpy(), minmax(cosines) if kind == "minmax" else cosines, atol=1e-6)
        assert torch.equal(dense(backward), dense(forward).T)


@pytest.mark.parametrize("method", METHODS)
def test_they_are_normalised_with_banks_without_translations(method: Method, held: bool) -> None:
    own, others = embeddings(17, 9, 0), embeddings(14, 8, 1)
    settings = Settings(method, beta=15.0, k=2)
    made = Directions(own, "minmax", 2000, Bank(others, [f"b{row}" for row in range(14)], "train", 0, False))
    forward, backward = made.normalised(0.4, settings)
    test, items = own.target.numpy(), own.visual.numpy()
    bank, bank_items = others.target.numpy(), others.visual.numpy()
    given: dict[str, Any] = {"method": method, "beta": 15.0, "k": 2, "log": True, "rankable": True}
    wanted = normalise(test @ items.T, bank @ items.T, gallery_bank_scores=bank_items @ items.T, **given)
    np.testing.assert_allclose(dense(forward).numpy(), wanted, atol=1e-4)
    wanted = normalise(items @ test.T, bank_items @ test.T, gallery_bank_scores=bank @ test.T, **given)
    np.testing.assert_allclose(dense(backward).numpy(), wanted, atol=1e-4)
    # With translations that say the same as the queries nothing changes.
    doubled = [replace(each, source=each.target) for each in (own, others)]
    twin = Directions(doubled[0], "minmax", 2000, Bank(doubled[1], ["b"] * 14, "train", 0, False))
    for one, other in zip(twin.normalised(0.4, settings), (forward, backward), strict=True):
        torch.testing.assert_close(dense(one), dense(other), atol=1e-4, rtol=0)
