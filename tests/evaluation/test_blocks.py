"""Ranks and scores from embeddings, block by block: those of the whole matrix, whatever a block may take."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from nrccr.config.choices import ScoreKind
from nrccr.evaluation import blocks
from nrccr.evaluation.blocks import Blocks, Columns, Cosines, DenseScores, Transposed, dense, highest_columns
from nrccr.evaluation.metrics import Ties, ranks_and_precision
from nrccr.evaluation.normalise import METHODS, Method, Settings, normalise, normalised
from nrccr.evaluation.score import MinMax, Mixed, mix

TIES: tuple[Ties, ...] = ("index", "average", "optimistic")
Array = npt.NDArray[np.float32]


def unit(rows: int, width: int, seed: int) -> Array:
    """Unit vectors, no two products of which lie near each other."""
    vectors = np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def whole_numbers(rows: int, width: int, seed: int) -> Array:
    """Vectors whose products are exact in blocks of any size: ties in every row."""
    return np.random.default_rng(seed).integers(-1, 2, (rows, width)).astype(np.float32)


def memory_of(times: int) -> float:
    """For so many squares of LEAST_ROWS rows and columns."""
    return times * blocks.LEAST_ROWS**2 * blocks.BYTES_PER_ENTRY / 2**20


def captions_of(owner: npt.NDArray[Any], items: int) -> list[list[int]]:
    return [np.flatnonzero(owner == item).tolist() for item in range(items)]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "LEAST_ROWS", 8)
    monkeypatch.setattr(blocks, "USUAL_ENTRIES", 300)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("kind", ["raw", "minmax"])
@pytest.mark.parametrize("vectors", [whole_numbers, unit])
def test_metrics_from_memory_mapped_embeddings(
    vectors: Callable[..., Array], kind: ScoreKind, ties: Ties, tmp_path: Path, small_blocks: None
) -> None:
    items, owner = 37, np.random.default_rng(0).permutation(np.arange(111) % 37)
    made = {"source": vectors(111, 12, 1), "target": vectors(111, 12, 2), "visual": vectors(items, 12, 3)}
    for name, values in made.items():
        np.save(tmp_path / f"{name}.npy", values)
    mapped = {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in made}
    halves = [made[name] @ made["visual"].T for name in ("source", "target")]
    if kind == "minmax":
        halves = [(half - half.min()) / (half.max() - half.min()) for half in halves]
    whole = mix(*map(torch.from_numpy, halves), 0.75)
    expected = [
        ranks_and_precision(whole, owner, ties),
        ranks_and_precision(whole.T, captions_of(owner, items), ties),
    ]
    for memory in (None, *map(memory_of, (1, 2, 3, 7, 100))):
        parts: list[Blocks] = [Cosines(mapped[name], mapped["visual"]) for name in ("source", "target")]
        if kind == "minmax":
            parts = [MinMax(part, memory) for part in parts]
        mixed = Mixed(parts[0], parts[1], 0.75)
        torch.testing.assert_close(dense(mixed, memory), whole, atol=0.0 if vectors is whole_numbers else 1e-6, rtol=0)
        found = [
            ranks_and_precision(mixed, owner, ties, memory),
            ranks_and_precision(Transposed(mixed), captions_of(owner, items), ties, memory),
        ]
        assert all(np.array_equal(own, wanted) for own, wanted in zip(found, expected, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_normalised_ranks_from_embeddings(method: Method, small_blocks: None) -> None:
    texts, items, bank, gallery = unit(83, 10, 1), unit(29, 10, 2), unit(50, 10, 3), unit(17, 10, 4)
    owner = np.arange(83) % 29
    parts = [vectors @ items.T for vectors in (texts, bank, gallery)]
    settings = Settings(method, beta=25.0, k=3)
    given: dict[str, Any] = {"method": method, "beta": 25.0, "k": 3, "log": True}
    whole = normalise(parts[0], parts[1], gallery_bank_scores=parts[2], **given)
    expected = ranks_and_precision(whole, owner)
    for times in (1, 5, 100):
        lazy = [Cosines(vectors, items) for vectors in (texts, bank, gallery)]
        made = normalised(*lazy, settings=settings, memory_mb=memory_of(times))
        found = ranks_and_precision(made, owner, memory_mb=memory_of(times))
        assert np.array_equal(found, expected)


def test_the_usual_blocks() -> None:
    texts, items = unit(1300, 96, 1), unit(1100, 96, 2)
    owner = np.arange(1300) % 1100
    whole = texts @ items.T
    np.testing.assert_allclose(dense(Cosines(texts, items)).numpy(), whole, atol=1e-6)
    plain = ranks_and_precision(whole, owner)[0]
    biased = normalise(whole, whole[:700], method="is", log=True)
    wanted = ranks_and_precision(biased, owner)[0]
    for memory in (None, *map(memory_of, (1, 2, 9))):
        assert np.array_equal(ranks_and_precision(Cosines(texts, items), owner, memory_mb=memory)[0], plain)
        made = normalised(Cosines(texts, items), Cosines(texts[:700], items), settings=Settings("is"), memory_mb=memory)
        np.testing.assert_allclose(dense(made, memory).numpy(), biased, atol=1e-4)
        assert np.array_equal(ranks_and_precision(made, owner, memory_mb=memory)[0], wanted)


@pytest.mark.parametrize("method", [None, *METHODS])
def test_a_block_asked_for_again_is_the_same_to_the_last_bit(method: Method | None) -> None:
    """A score is read from one and found again among its row: a bit of difference would cost a rank."""
    texts, items, bank = unit(333, 61, 1), unit(451, 61, 2), unit(50, 61, 3)
    scores: Blocks = Cosines(texts, torch.from_numpy(items))
    if method is not None:
        own = Cosines(bank, items)
        scores = normalised(scores, own, own, settings=Settings(method), memory_mb=1.0)
    chosen = np.flatnonzero(np.random.default_rng(0).random(451) < 0.7)
    choose, kept = np.random.default_rng(4), []
    for matrix in (scores, Transposed(scores), Columns(scores, chosen)):
        for _ in range(5):
            rows, columns = (
                range(int(first), int(choose.integers(first + 1, size + 1)))
                for first, size in ((choose.integers(size), size) for size in matrix.shape)
            )
            first = matrix.block(rows, columns)
            kept.append(np.empty(int(choose.integers(1, 5000)), np.uint8))  # moves what is allocated next
            assert torch.equal(matrix.block(rows, columns), first)


def test_a_block_takes_no_more_than_it_may() -> None:
    for shape in ((15_000, 1_500), (1_000_000, 100_000), (3, 2), (512, 1_000_000), (3, 1_000_000), (1_000_000, 3)):
        for memory in (memory_of(1), memory_of(2), 64.0, 1000.0):
            rows, columns = blocks.spans(shape, memory)
            assert len(rows[0]) * len(columns[0]) * blocks.BYTES_PER_ENTRY <= memory * 2**20
            for size, found in zip(shape, (rows, columns), strict=True):
                assert found[0].start == 0 and found[-1].stop == size
                assert all(one.stop == other.start for one, other in pairwise(found))


def test_columns_far_apart_take_no_more_either() -> None:
    asked: list[tuple[int, int]] = []

    class Watched(DenseScores):
        def block(self, rows: range, columns: range) -> Tensor:
            asked.append((len(rows), len(columns)))
            return super().block(rows, columns)

    scores = np.random.default_rng(0).random((20, 3000))
    chosen = np.array([0, 1, 2, 50, 51, 53, 1000, 2990, 2999])
    found = Columns(Watched(scores), chosen).block(range(3, 20), range(1, 9))
    assert np.array_equal(found.numpy(), scores[3:, chosen[1:]])
    assert all(rows == 17 and columns <= 8 for rows, columns in asked) and len(asked) == 5


@pytest.mark.parametrize("k", [1, 3, 10, 50])
def test_highest_columns_are_a_stable_sort(k: int, small_blocks: None) -> None:
    scores = np.random.default_rng(0).integers(0, 6, (41, 30)).astype(np.float32)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    for times in (1, 2, 100):
        assert np.array_equal(highest_columns(DenseScores(scores), k, memory_of(times)).numpy(), expected)


def test_nan_in_a_block_is_named_by_its_row(small_blocks: None) -> None:
    scores = np.zeros((30, 20), np.float32)
    scores[21, 17] = np.nan
    for times in (1, 100):
        with pytest.raises(ValueError, match="NaN in row 21"):
            ranks_and_precision(DenseScores(scores), [0] * 30, memory_mb=memory_of(times))
