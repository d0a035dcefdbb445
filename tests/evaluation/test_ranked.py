"""One language's scores in both directions: items without a query are searched but ask nothing, at any memory limit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nrccr.evaluation import blocks
from nrccr.evaluation.blocks import Blocks, Columns, Cosines, DenseScores, Transposed, dense
from nrccr.evaluation.metrics import Ties, geometric_mean
from nrccr.evaluation.ranked import Scored

Brute = Callable[..., dict[str, dict[str, float]]]
Array = npt.NDArray[np.float32]
LIMITS = (None, *(times * 8 * 8 * blocks.BYTES_PER_ENTRY / 2**20 for times in (1, 2, 3, 7, 1000)))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "LEAST_ROWS", 8)
    monkeypatch.setattr(blocks, "USUAL_ENTRIES", 200)


def whole_numbers(*shape: int, seed: int = 0) -> Array:
    """Vectors whose products are exact, with many ties."""
    return np.random.default_rng(seed).integers(-1, 2, shape).astype(np.float32)


@pytest.mark.parametrize("memory_mb", LIMITS)
@pytest.mark.parametrize("chosen", [[0], [29], [0, 1, 2, 3], [3, 7, 8, 16, 17, 28], range(5, 30), range(30)])
def test_columns_of_a_matrix(chosen: Any, memory_mb: float | None) -> None:
    texts, items = whole_numbers(41, 6), whole_numbers(30, 6, seed=1)
    whole, columns = texts @ items.T, np.array(chosen)
    for scores in (DenseScores(whole), Cosines(texts, items), Transposed(Cosines(items, texts))):
        cut = Columns(scores, columns)
        assert cut.shape == (41, len(columns))
        assert np.array_equal(dense(cut, memory_mb).numpy(), whole[:, columns])
        turned = dense(Transposed(cut), memory_mb)
        assert np.array_equal(turned.numpy(), whole[:, columns].T)
    # Rows of the other direction, which is what visual to text asks for.
    rows = Transposed(Columns(Transposed(Cosines(items, texts)), columns))
    assert np.array_equal(dense(rows, memory_mb).numpy(), whole.T[columns])


@pytest.mark.parametrize("ties", ["index", "optimistic"])
@pytest.mark.parametrize("memory_mb", LIMITS)
def test_against_a_brute_force_twin(ties: Ties, memory_mb: float | None, brute: Brute) -> None:
    """Both directions may have scores of their own, as normalised ones do."""
    item_of = np.random.default_rng(2).integers(0, 27, 70)
    texts, items, other = whole_numbers(70, 6), whole_numbers(30, 6, seed=1), whole_numbers(30, 6, seed=2)
    for back in (items, other):
        forward: Blocks = Cosines(texts, items)
        scored = Scored.of((forward, Transposed(Cosines(texts, back))), item_of, memory_mb)
        assert scored.queried.tolist() == sorted(set(item_of.tolist())) and len(scored.queried) < 28
        assert scored.backward.shape == (len(scored.queried), 70)
        # Cut down once where it may be held, else whenever it is asked for.
        assert isinstance(scored.backward, DenseScores) == (memory_mb == LIMITS[-1])
        found = scored.ranked(ties, memory_mb).language_metrics()
        wanted = brute(texts @ items.T, item_of, ties, (texts @ back.T).T)
        for name, values in wanted.items():
            assert found[name] == pytest.approx(values), name
        recalls = [found[name][f"R@{k}"] for name in wanted for k in (1, 5, 10)]
        assert found["SumR"] == pytest.approx(sum(recalls))
        usual = scored.ranked(ties, memory_mb).metrics()
        assert usual["SumR"] == found["SumR"] and usual["mean_recall"] == pytest.approx(sum(recalls) / 6)
        assert all(usual[name] | {"geometric_mean": values["geometric_mean"]} == found[name]
                   for name, values in found.items() if name in wanted)  # fmt: skip


def test_items_that_all_have_a_query_are_left_as_they_are() -> None:
    forward = DenseScores(whole_numbers(6, 3))
    backward = Transposed(forward)
    scored = Scored.of((forward, backward), np.array([2, 0, 1, 1, 0, 2]), 2000)
    assert scored.backward is backward and scored.queried.tolist() == [0, 1, 2]


def test_by_hand() -> None:
    # Captions 0 and 1 describe item 0, caption 2 item 1.
    scores = DenseScores(np.array([[0.9, 0.1], [0.2, 0.3], [0.8, 0.4]]))
    metrics = Scored.of((scores, Transposed(scores)), np.array([0, 0, 1])).ranked().metrics()
    assert metrics["text_to_visual"]["R@1"] == pytest.approx(100 / 3)
    assert metrics["text_to_visual"]["MeanR"] == pytest.approx(5 / 3)
    assert metrics["visual_to_text"]["R@1"] == 100.0  # items 0 and 1 both find a caption of theirs first
    first = (1 / 1 + 2 / 3) / 2  # item 0: captions 0, 2, 1
    assert metrics["visual_to_text"]["mAP"] == pytest.approx(100 * (first + 1.0) / 2)
    recalls = [metrics[d][f"R@{k}"] for d in ("text_to_visual", "visual_to_text") for k in (1, 5, 10)]
    assert metrics["SumR"] == pytest.approx(sum(recalls))


def test_golden_metrics(shared: Path) -> None:
    folder = shared / "golden" / "c2kd"
    wanted = json.loads((folder / "expected.json").read_text())["loss"]["metrics_optimistic"]
    with np.load(folder / "inputs.npz") as arrays:
        scores = DenseScores(arrays["sims_for_metrics"])
    scored = Scored.of((scores, Transposed(scores)), np.arange(20))
    found = scored.ranked("optimistic").language_metrics()["text_to_visual"]
    names = {"R1": "R@1", "R5": "R@5", "R10": "R@10", "MedR": "MedR", "MeanR": "MeanR"}
    for theirs, ours in (names | {"geometric_mean_R1-R5-R10": "geometric_mean"}).items():
        assert found[ours] == pytest.approx(wanted[theirs], rel=1e-9)
    assert found != scored.ranked("index").language_metrics()["text_to_visual"]
    assert geometric_mean({"R@1": 0.0, "R@5": 50.0, "R@10": 50.0}) == 0
