"""Ranks and scores from embeddings, block by block: equal to those of the whole matrix to the last rank and bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from nrccr.config.choices import ScoreKind
from nrccr.evaluation import blocks
from nrccr.evaluation.blocks import Blocks, Cosines, DenseScores, Transposed, dense, highest_columns
from nrccr.evaluation.metrics import Ties, ranks_and_precision
from nrccr.evaluation.normalise import METHODS, Method, Settings, normalise, normalised
from nrccr.evaluation.score import MinMax, Mixed, mix

TIES: tuple[Ties, ...] = ("index", "average", "optimistic")
Array = npt.NDArray[np.float32]


def unit(rows: int, width: int, seed: int, repeats: int = 0) -> Array:
    """Unit vectors, the last `repeats` of which repeat the first: ties in every row."""
    vectors = np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    if repeats:
        vectors[-repeats:] = vectors[:repeats]
    return vectors


def memory_of(tiles: int) -> float:
    return tiles * blocks.TILE**2 * blocks.BYTES_PER_ENTRY / 2**20


def cosines(texts: Array, items: Array, kind: ScoreKind = "raw") -> Tensor:
    """All of them at once."""
    whole = dense(Cosines(texts, items))
    return (whole - whole.min()) / (whole.max() - whole.min()) if kind == "minmax" else whole


def captions_of(owner: npt.NDArray[Any], items: int) -> list[list[int]]:
    return [np.flatnonzero(owner == item).tolist() for item in range(items)]


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "TILE", 8)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("kind", ["raw", "minmax"])
def test_metrics_from_memory_mapped_embeddings(kind: ScoreKind, ties: Ties, tmp_path: Path, small_tiles: None) -> None:
    items, owner = 37, np.random.default_rng(0).permutation(np.arange(111) % 37)
    made = {"source": unit(111, 12, 1, 30), "target": unit(111, 12, 2, 30), "visual": unit(items, 12, 3, 9)}
    for name, vectors in made.items():
        np.save(tmp_path / f"{name}.npy", vectors)
    mapped = {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in made}
    halves = [cosines(made[name], made["visual"], kind) for name in ("source", "target")]
    whole = mix(halves[0], halves[1], 0.8)
    expected = [
        ranks_and_precision(whole, owner, ties),
        ranks_and_precision(whole.T, captions_of(owner, items), ties),
    ]
    for memory in (None, *map(memory_of, (1, 2, 3, 7, 100))):
        parts: list[Blocks] = [Cosines(mapped[name], mapped["visual"]) for name in ("source", "target")]
        if kind == "minmax":
            parts = [MinMax(part, memory) for part in parts]
        mixed = Mixed(parts[0], parts[1], 0.8)
        assert torch.equal(dense(mixed, memory), whole)
        found = [
            ranks_and_precision(mixed, owner, ties, memory),
            ranks_and_precision(Transposed(mixed), captions_of(owner, items), ties, memory),
        ]
        for (best, precision), (wanted, wanted_precision) in zip(found, expected, strict=True):
            assert np.array_equal(best, wanted) and np.array_equal(precision, wanted_precision)


@pytest.mark.parametrize("method", METHODS)
def test_normalised_ranks_from_embeddings(method: Method, small_tiles: None) -> None:
    texts, items, bank, gallery = unit(83, 10, 1), unit(29, 10, 2, 5), unit(50, 10, 3), unit(17, 10, 4)
    owner = np.arange(83) % 29
    parts = [cosines(vectors, items) for vectors in (texts, bank, gallery)]
    settings = Settings(method, beta=25.0, k=3)
    given: dict[str, Any] = {"method": method, "beta": 25.0, "k": 3, "log": True}
    whole = normalise(parts[0], parts[1], gallery_bank_scores=parts[2], **given)
    expected = ranks_and_precision(whole, owner)
    for tiles in (1, 5, 100):
        lazy = [Cosines(vectors, items) for vectors in (texts, bank, gallery)]
        made = normalised(*lazy, settings=settings, memory_mb=memory_of(tiles))
        found = ranks_and_precision(made, owner, memory_mb=memory_of(tiles))
        assert np.array_equal(found[0], expected[0]) and np.array_equal(found[1], expected[1])


def test_the_usual_tiles() -> None:
    texts, items = unit(1300, 96, 1, 200), unit(1100, 96, 2, 200)
    owner = np.arange(1300) % 1100
    whole = cosines(texts, items)
    np.testing.assert_allclose(whole.numpy(), texts @ items.T, atol=1e-6)
    made = normalised(Cosines(texts, items), Cosines(texts[:700], items), settings=Settings("is"))
    expected = ranks_and_precision(whole, owner), ranks_and_precision(dense(made), owner)
    for tiles in (1, 2, 9):
        memory = memory_of(tiles)
        found = ranks_and_precision(Cosines(texts, items), owner, memory_mb=memory)
        assert np.array_equal(found[0], expected[0][0])
        assert np.array_equal(ranks_and_precision(made, owner, memory_mb=memory)[0], expected[1][0])


def test_a_block_takes_no_more_than_it_may() -> None:
    for shape in ((15_000, 1_500), (1_000_000, 100_000), (3, 2), (512, 1_000_000)):
        for memory in (memory_of(1), memory_of(2), 64.0, 1000.0):
            rows, columns = blocks.spans(shape, memory)
            assert len(rows[0]) * len(columns[0]) * blocks.BYTES_PER_ENTRY <= memory * 2**20
            assert rows[-1].stop == shape[0] and columns[-1].stop == shape[1]
            assert all(span.start % blocks.TILE == 0 for span in [*rows, *columns])


@pytest.mark.parametrize("k", [1, 3, 10, 50])
def test_highest_columns_are_a_stable_sort(k: int, small_tiles: None) -> None:
    scores = np.random.default_rng(0).integers(0, 6, (41, 30)).astype(np.float32)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    for tiles in (1, 2, 100):
        assert np.array_equal(highest_columns(DenseScores(scores), k, memory_of(tiles)).numpy(), expected)


def test_nan_in_a_block_is_named_by_its_row(small_tiles: None) -> None:
    scores = np.zeros((30, 20), np.float32)
    scores[21, 17] = np.nan
    for tiles in (1, 100):
        with pytest.raises(ValueError, match="NaN in row 21"):
            ranks_and_precision(DenseScores(scores), [0] * 30, memory_mb=memory_of(tiles))
