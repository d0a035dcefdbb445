"""Every normalisation against its formula written out in loops, and what must hold at any size and temperature."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from nrccr.evaluation import blocks
from nrccr.evaluation.blocks import DenseScores
from nrccr.evaluation.normalise import (
    METHODS,
    Method,
    Settings,
    fold_bias,
    nearest_neighbour_bias,
    normalise,
    normalised,
)

Array = npt.NDArray[Any]
K = 3
BETA = 4.0
ALPHA = 0.6


def cosines(rows: int, columns: int, seed: int, dtype: Any = np.float64) -> Array:
    random = np.random.default_rng(seed)
    hubs = 0.2 * random.random(columns)
    return np.clip(random.uniform(-0.9, 0.7, (rows, columns)) + hubs, -1, 1).astype(dtype)


def matrices(dtype: Any = np.float64) -> tuple[Array, Array, Array]:
    return cosines(17, 9, 1, dtype), cosines(14, 9, 2, dtype), cosines(11, 9, 3, dtype)


def best(row: list[float], k: int) -> list[int]:
    return sorted(range(len(row)), key=lambda g: (-row[g], g))[:k]


def total(bank: Array, item: int) -> float:
    return sum(math.exp(BETA * float(row[item])) for row in bank)


def brute(method: Method, test: Array, bank: Array, gallery: Array) -> Array:
    made = test.copy()
    count = range(test.shape[1])
    if method in ("is", "dis", "dual_is", "dual_dis"):
        banks = [bank, gallery] if method.startswith("dual") else [bank]
        active = {g for one in banks for row in one.tolist() for g in best(row, K)}
        for i, row in enumerate(test.tolist()):
            if method in ("is", "dual_is") or best(row, 1)[0] in active:
                for g in count:
                    made[i, g] = math.prod(math.exp(BETA * row[g]) / total(one, g) for one in banks)
        return made
    if method == "sinkhorn":
        made = np.exp(BETA * test)
        for _ in range(K):
            for g in count:
                made[:, g] /= made[:, g].sum() * len(count)
            for i in range(len(test)):
                made[i] /= made[i].sum() * len(test)
        return made
    for i, row in enumerate(test.tolist()):
        for g in count:
            nearest = np.mean(sorted(bank[:, g])[-K:])
            if method == "csls":
                made[i, g] = 2 * row[g] - np.mean(sorted(row)[-K:]) - nearest
            elif method == "nnn":
                made[i, g] = row[g] - ALPHA * nearest
            else:
                made[i, g] = row[g] * math.exp(BETA * row[g]) / total(test, g)
    return made


@pytest.fixture(params=[True, False], ids=["whole", "cut"])
def whole(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a block holds a whole matrix, as it does at these sizes, or a part of it."""
    if not request.param:
        monkeypatch.setattr(blocks, "LEAST_ROWS", 4)
        monkeypatch.setattr(blocks, "USUAL_ENTRIES", 16)
    return bool(request.param)


@pytest.mark.parametrize("method", METHODS)
def test_equal_to_loops(method: Method, whole: bool) -> None:
    test, bank, gallery = matrices()
    given = {"method": method, "beta": BETA, "k": K, "alpha": ALPHA}
    found = normalise(test, bank, gallery_bank_scores=gallery, **given)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, brute(method, test, bank, gallery), rtol=1e-12)


@pytest.mark.parametrize("method", ["is", "dual_is", "sinkhorn"])
def test_log_is_the_logarithm(method: Method) -> None:
    test, bank, gallery = matrices()
    given = {"gallery_bank_scores": gallery, "method": method, "beta": BETA, "k": K}
    found = normalise(test, bank, log=True, **given)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, np.log(normalise(test, bank, **given)), rtol=1e-12)  # type: ignore[arg-type]


def test_log_of_dsl_keeps_sign_and_order() -> None:
    test = matrices()[0]
    test[3, 2] = 0
    plain, log = (normalise(test, method="dsl", beta=BETA, log=log) for log in (False, True))
    assert np.array_equal(np.sign(plain), np.sign(log))
    assert np.array_equal(np.argsort(plain, axis=None), np.argsort(log, axis=None))


@pytest.mark.parametrize("method", ["dis", "dual_dis"])
def test_log_leaves_inactive_rows_raw(method: Method) -> None:
    test, bank, gallery = matrices()
    bank[:, :5] -= 1
    gallery[:, :5] -= 1
    given = {"gallery_bank_scores": gallery, "method": method, "beta": BETA}
    plain = normalise(test, bank, **given)  # type: ignore[arg-type]
    log = normalise(test, bank, log=True, **given)  # type: ignore[arg-type]
    inactive = test.argmax(axis=1) < 5
    assert 0 < inactive.sum() < len(test)
    assert np.array_equal(plain[inactive], test[inactive]) and np.array_equal(log[inactive], test[inactive])
    np.testing.assert_allclose(log[~inactive], np.log(plain[~inactive]), rtol=1e-12)


@pytest.mark.parametrize("method", ["dis", "dual_dis"])
@pytest.mark.parametrize("beta", [1.0, 20.0, 10_000.0])
def test_rankable_ranks_rows_alike_on_one_scale(method: Method, beta: float) -> None:
    test, bank, gallery = matrices()
    bank[:, :5] -= 1
    gallery[:, :5] -= 1
    given = {"gallery_bank_scores": gallery, "method": method, "beta": beta}
    log = normalise(test, bank, log=True, **given)  # type: ignore[arg-type]
    rankable = normalise(test, bank, rankable=True, **given)  # type: ignore[arg-type]
    assert np.array_equal(np.argsort(log, axis=1), np.argsort(rankable, axis=1))
    inactive = test.argmax(axis=1) < 5
    assert np.array_equal(rankable[inactive], test[inactive])
    # On the scale of the raw scores: an active row moves by what the items' biases are, and those have mean 0.
    moved = test[~inactive] - rankable[~inactive]
    np.testing.assert_allclose(moved.mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(moved - moved[0], 0, atol=1e-12)


@pytest.mark.parametrize("beta", [1.0, 20.0, 88.0, 1000.0, 10_000.0])
def test_log_is_finite_and_in_exact_order(beta: float) -> None:
    """Against rational arithmetic: log Z to within 1e-10 of its own largest term, the scores themselves exact."""
    test, bank, _ = matrices(np.float32)
    found = normalise(test, bank, method="dis", beta=beta, k=100, log=True)
    assert np.isfinite(found).all() and found.dtype == np.float64
    biases = []
    for g in range(test.shape[1]):
        terms = [Fraction(beta) * Fraction(float(s)) for s in bank[:, g]]
        high = max(terms)
        biases.append(high + Fraction(math.log(math.fsum(math.exp(float(term - high)) for term in terms))))
    for row, values in zip(test.tolist(), found, strict=True):
        exact = [Fraction(beta) * Fraction(s) - b for s, b in zip(row, biases, strict=True)]
        assert sorted(range(9), key=lambda g: -exact[g]) == np.argsort(-values).tolist()
        np.testing.assert_allclose(values, [float(value) for value in exact], rtol=1e-11)


def test_the_published_arithmetic_fails_where_ours_does_not() -> None:
    test, bank, _ = matrices(np.float32)
    with np.errstate(all="ignore"):
        published = np.exp(np.float32(1000) * test) / np.exp(np.float32(1000) * bank).sum(axis=0)
    assert np.isnan(published).any()
    assert np.isfinite(normalise(test, bank, beta=1000, k=100, log=True)).all()


@pytest.mark.parametrize("method", METHODS)
def test_finite_at_any_beta(method: Method) -> None:
    test, bank, gallery = matrices(np.float32)
    for beta in (1e-6, 1.0, 1e4, 1e6):
        given = {"gallery_bank_scores": gallery, "method": method, "beta": beta, "log": True}
        assert np.isfinite(normalise(test, bank, **given)).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_blocks_of_any_size_are_close(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "LEAST_ROWS", 8)
    parts = [cosines(rows, 45, seed, np.float32) for seed, rows in enumerate((70, 33, 21))]
    settings = Settings(method, beta=30.0, k=2)
    whole = normalise(parts[0], parts[1], gallery_bank_scores=parts[2], method=method, beta=30.0, k=2, log=True)
    for entries in (1, 64 * 3, 64 * 7, 10**6):
        memory = entries * blocks.BYTES_PER_ENTRY / 2**20
        made = normalised(*map(DenseScores, parts), settings=settings, memory_mb=memory)
        np.testing.assert_allclose(blocks.dense(made, memory).numpy(), whole, rtol=1e-10, atol=1e-10)


def test_activation_takes_the_first_of_equal_items() -> None:
    bank = np.array([[0.5, 0.5, 0.1, 0.5]])
    test = np.eye(4) * 0.5
    changed = [(normalise(test, bank, k=k) != test).any(axis=1).tolist() for k in (0, 1, 2, 3, 4, 100)]
    assert changed == [
        [False] * 4,
        [True, False, False, False],
        [True, True, False, False],
        [True, True, False, True],
        [True] * 4,
        [True] * 4,
    ]


def test_settings_tell_what_their_method_looks_at() -> None:
    assert {method: {*Settings(method).used()} for method in METHODS} == {
        "is": {"beta"}, "dis": {"beta", "k"}, "dual_is": {"beta"}, "dual_dis": {"beta", "k"}, "csls": {"k"},
        "nnn": {"k", "alpha"}, "dsl": {"beta"}, "sinkhorn": {"beta", "k"},
    }  # fmt: skip


def test_an_item_that_either_bank_activates_is_normalised() -> None:
    test, bank, gallery = np.eye(4) * 0.5, np.array([[0.9, 0.1, 0.1, 0.1]]), np.array([[0.1, 0.1, 0.9, 0.1]])
    found = normalise(test, bank, gallery_bank_scores=gallery, method="dual_dis", k=1)
    assert (found != test).any(axis=1).tolist() == [True, False, True, False]


@pytest.mark.parametrize("method", METHODS)
def test_arguments_are_left_alone_and_kinds_kept(method: Method) -> None:
    arrays = matrices(np.float32)
    kept = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    given = {"method": method, "k": 2}
    found = normalise(arrays[0], arrays[1], gallery_bank_scores=arrays[2], **given)  # type: ignore[arg-type]
    assert isinstance(found, np.ndarray) and found.dtype == np.float32
    assert all(np.array_equal(array, copy) for array, copy in zip(arrays, kept, strict=True))
    tensors = [torch.from_numpy(copy) for copy in kept]
    again = normalise(tensors[0], tensors[1], gallery_bank_scores=tensors[2], **given)  # type: ignore[arg-type]
    assert isinstance(again, torch.Tensor) and again.dtype == torch.float32
    assert np.array_equal(again.numpy(), found)
    found += 1
    assert np.array_equal(tensors[0].numpy(), kept[0])
    views = [np.asfortranarray(copy) for copy in kept]
    assert np.array_equal(
        normalise(views[0], views[1], gallery_bank_scores=views[2], **given),  # type: ignore[arg-type]
        again.numpy(),
    )


def test_sinkhorn_converges_to_even_sums() -> None:
    found = normalise(matrices()[0], method="sinkhorn", beta=3.0, k=200)
    np.testing.assert_allclose(found.sum(axis=1), 1 / 17, rtol=1e-12)
    np.testing.assert_allclose(found.sum(axis=0), 1 / 9, rtol=1e-9)


def test_a_folded_bias_ranks_as_nnn() -> None:
    random = np.random.default_rng(0)
    queries, bank, items = (random.standard_normal((count, 6)).astype(np.float32) for count in (20, 30, 10))
    bias = nearest_neighbour_bias(DenseScores(bank @ items.T), K, ALPHA)
    folded = np.concatenate([queries, np.ones((20, 1), np.float32)], axis=1) @ fold_bias(items, bias.numpy()).T
    expected = normalise(queries @ items.T, bank @ items.T, method="nnn", k=K, alpha=ALPHA)
    np.testing.assert_allclose(folded, expected, atol=1e-5)


def test_order_of_the_bank_and_of_queries_does_not_matter() -> None:
    test, bank, gallery = matrices()
    order = np.random.default_rng(5).permutation(len(test))
    for method in METHODS:
        given = {"method": method, "beta": BETA, "k": 2}
        found = normalise(test, bank, gallery_bank_scores=gallery, **given)  # type: ignore[arg-type]
        again = normalise(test[order], bank[::-1], gallery_bank_scores=gallery[::-1], **given)  # type: ignore[arg-type]
        np.testing.assert_allclose(again, found[order], rtol=1e-10)


NAN = np.full((2, 9), np.nan)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "softmax"}, "choose one of is, dis"),
        ({"bank_scores": None}, "dis needs bank_scores"),
        ({"method": "dual_is", "gallery_bank_scores": None}, "dual_is needs gallery_bank_scores"),
        ({"bank_scores": np.zeros((3, 8))}, r"shape \(3, 8\): give at least one row, of 9 items"),
        ({"bank_scores": np.zeros((0, 9))}, "at least one row"),
        ({"bank_scores": NAN}, "bank's scores hold NaN"),
        ({"bank_scores": NAN, "method": "nnn"}, "bank's scores hold NaN"),
        ({"bank_scores": NAN, "method": "csls"}, "bank's scores hold NaN"),
        ({"gallery_bank_scores": NAN, "method": "dual_dis"}, "bank's scores hold NaN"),
        ({"test_scores": NAN}, "test_scores hold NaN"),
        ({"test_scores": NAN, "method": "dsl"}, "test_scores hold NaN"),
        ({"test_scores": NAN, "method": "sinkhorn"}, "test_scores hold NaN"),
        ({"test_scores": np.zeros((0, 9))}, "at least one query"),
        ({"test_scores": np.zeros(9)}, "give a matrix"),
        ({"beta": 0}, "give a number above 0"),
        ({"beta": math.inf}, "give a number above 0"),
        ({"k": -1}, "0 or more for dis"),
        ({"k": 0, "method": "csls"}, "1 or more for csls"),
        ({"k": 1.5}, "whole number"),
        ({"alpha": math.nan}, "alpha is nan"),
    ],
)
def test_bad_input_says_what_to_do(change: dict[str, Any], message: str) -> None:
    test, bank, gallery = matrices()
    given = {"test_scores": test, "bank_scores": bank, "gallery_bank_scores": gallery} | change
    with pytest.raises(ValueError, match=message):
        normalise(**given)


@pytest.mark.gpu
@pytest.mark.parametrize("method", METHODS)
def test_a_gpu_gives_the_same(method: Method) -> None:
    parts = [torch.from_numpy(part) for part in matrices()]
    found = [
        normalise(test, bank, gallery_bank_scores=gallery, method=method, log=True).cpu()
        for test, bank, gallery in (parts, [part.cuda() for part in parts])
    ]
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)
