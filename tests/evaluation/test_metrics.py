"""Metrics against a loop with one stable argsort a row, on integer-valued scores full of ties."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from nrccr.evaluation import counting, metrics
from nrccr.evaluation.blocks import DenseScores
from nrccr.evaluation.metrics import Ties, ranks, recall_sum, retrieval_metrics

TIES: tuple[Ties, ...] = ("index", "average", "optimistic")
Array = npt.NDArray[Any]


def positions(row: list[float], ties: Ties) -> list[float]:
    """The 1-based position of every entry of a row, from a stable sort and the groups of equal entries in it."""
    order = sorted(range(len(row)), key=lambda column: (-row[column], column))
    place = {column: index + 1 for index, column in enumerate(order)}
    result = []
    for column in range(len(row)):
        tied = [place[other] for other in range(len(row)) if row[other] == row[column]]
        chosen = {"index": place[column], "average": sum(tied) / len(tied), "optimistic": min(tied)}
        result.append(chosen[ties])
    return result


def brute(scores: Array, relevant: list[list[int]], ties: Ties) -> tuple[list[float], dict[str, float]]:
    best, precisions, gains = [], [], []
    for row, columns in zip(scores.tolist(), relevant, strict=True):
        overall = positions(row, ties)
        within = positions([row[column] for column in sorted(columns)], ties)
        pairs = zip(within, (overall[column] for column in sorted(columns)), strict=True)
        precisions.append(sum(order / rank for order, rank in pairs) / len(columns))
        best.append(min(overall[column] for column in columns))
        most = sum(1 / math.log2(1 + place) for place in within if place < 11)
        found = sum(1 / math.log2(1 + overall[column]) for column in columns if overall[column] < 11)
        gains.append(found / most if most else 0.0)
    ordered, count = sorted(best), len(best)
    zero_based = [rank - 1 for rank in best]
    return best, {
        "R@1": 100 * sum(rank == 0 for rank in zero_based) / count,
        "R@5": 100 * sum(rank < 5 for rank in zero_based) / count,
        "R@10": 100 * sum(rank < 10 for rank in zero_based) / count,
        "MedR": (ordered[(count - 1) // 2] + ordered[count // 2]) / 2,
        "MeanR": sum(best) / count,
        "mAP": 100 * sum(precisions) / count,
        "MRR": 100 * sum(1 / rank for rank in best) / count,
        "nDCG@10": 100 * sum(gains) / count,
    }


def case(levels: int, seed: int, queries: int = 41, items: int = 23) -> tuple[Array, list[list[int]]]:
    random = np.random.default_rng(seed)
    scores = random.integers(0, levels, (queries, items)).astype(np.float64)
    relevant = [random.choice(items, size=int(random.integers(1, 6)), replace=False).tolist() for _ in range(queries)]
    return scores, relevant


@pytest.mark.parametrize("block", [1, 100, 1 << 20])
@pytest.mark.parametrize("levels", [1, 3, 8, 10_000])
@pytest.mark.parametrize("ties", TIES)
def test_equal_to_the_loop(ties: Ties, levels: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "BLOCK_ENTRIES", block)
    scores, relevant = case(levels, seed=levels)
    best, expected = brute(scores, relevant, ties)
    assert ranks(scores, relevant, ties).tolist() == best
    assert retrieval_metrics(scores, relevant, ties) == pytest.approx(expected, rel=1e-12)


def test_gain_by_hand() -> None:
    """Relevant items at the places 1, 3 and 11 of eleven; and twelve of them, of which ten can be among the first."""
    scores = -np.arange(11.0)[None]
    third = (1 + 1 / 2) / (1 + 1 / math.log2(3) + 1 / 2)
    assert retrieval_metrics(scores, [[0, 2, 10]])["nDCG@10"] == pytest.approx(100 * third)
    assert retrieval_metrics(-np.arange(30.0)[None], [list(range(12))])["nDCG@10"] == pytest.approx(100)
    assert retrieval_metrics(-np.arange(30.0)[None], [[10]])["nDCG@10"] == 0


@pytest.mark.parametrize(("ties", "expected"), [("index", 100.0), ("average", 0.0), ("optimistic", 100.0)])
def test_more_tied_relevant_items_than_places(ties: Ties, expected: float) -> None:
    """All 21 share the place 11 on average: none is among the first ten, and nothing is divided by 0."""
    assert retrieval_metrics(np.zeros((1, 21)), [list(range(21))], ties)["nDCG@10"] == pytest.approx(expected)


@pytest.mark.parametrize("ties", TIES)
def test_wide_blocks_equal_narrow_ones(ties: Ties, monkeypatch: pytest.MonkeyPatch) -> None:
    scores, relevant = case(50, seed=7, queries=300, items=400)
    wide = ranks(scores, relevant, ties), retrieval_metrics(scores, relevant, ties)
    monkeypatch.setattr(metrics, "BLOCK_ENTRIES", 1)
    assert np.array_equal(ranks(scores, relevant, ties), wide[0])
    assert retrieval_metrics(scores, relevant, ties) == wide[1]
    assert wide[0][:20].tolist() == brute(scores[:20], relevant[:20], ties)[0]


@pytest.mark.parametrize("few", [0, 3, 1 << 40])  # scores ahead are picked out at once, later, never
@pytest.mark.parametrize(
    ("tall", "entries", "columns", "line"),
    # In the third each of 60 columns is compared together with another, and the last alone.
    [(7, 1, 1, 1), (7, 700, 3, 70), (64, 1 << 19, 255, 70), (7, 1 << 19, 255, 1 << 14)],
)
@pytest.mark.parametrize("levels", [2, 9, 10_000])
@pytest.mark.parametrize("ties", TIES)
def test_a_matrix_and_its_transposed_equal_the_loop_in_parts_of_any_size(
    ties: Ties, levels: int, tall: int, entries: int, columns: int, line: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "FEW", few)
    monkeypatch.setattr(counting, "PART_ENTRIES", entries)
    monkeypatch.setattr(counting, "PART_COLUMNS", columns)
    monkeypatch.setattr(counting, "LINE_ENTRIES", line)
    monkeypatch.setattr(metrics, "TALL", tall)
    monkeypatch.setattr(metrics, "BLOCK_ENTRIES", 300)
    scores, relevant = case(levels, seed=11 + levels, queries=30, items=61)
    random = np.random.default_rng(levels)
    scores[random.random(scores.shape) < 0.1] = -np.inf  # below which there is no number
    scores[random.random(scores.shape) < 0.1] = np.inf
    scores[random.random(scores.shape) < 0.1] = -0.0  # equal to 0
    best, expected = brute(scores, relevant, ties)
    for dtype in (np.float32, np.float64):
        for given in (scores.astype(dtype), np.asfortranarray(scores, dtype=dtype)):
            assert ranks(given, relevant, ties).tolist() == best
            assert retrieval_metrics(given, relevant, ties) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("ties", TIES)
def test_more_columns_than_a_byte_counts(ties: Ties) -> None:
    # Sums of masks are kept in the smallest integers that hold them, here of one byte, two and four.
    for width in (255, 256, 65_535, 65_536):
        scores = np.zeros((2, width), dtype=np.float32)
        scores[1, :-1] = 1
        expected = {"index": [width, width], "average": [(width + 1) / 2, width], "optimistic": [1, width]}
        for given in (scores, np.asfortranarray(scores)):
            assert ranks(given, [width - 1, width - 1], ties).tolist() == expected[ties]


@pytest.mark.parametrize("ties", TIES)
def test_the_way_of_other_devices_counts_the_same(ties: Ties) -> None:
    scores, relevant = case(4, seed=12)
    columns = torch.tensor([row[0] for row in relevant])[:, None] - 3  # of a block that begins at column 3
    own = torch.from_numpy(scores).gather(1, columns + 3)
    block = torch.from_numpy(scores)[:, 3:15]
    found = counting._ahead_on_device(block, own[:, 0], columns[:, 0], ties)
    assert torch.equal(found, counting.places_ahead(block, own, columns, ties)[:, 0])


@pytest.mark.parametrize("ties", TIES)
def test_one_relevant_column_and_masks_are_the_same_as_lists(ties: Ties) -> None:
    scores, relevant = case(4, seed=1)
    first = [columns[0] for columns in relevant]
    expected = retrieval_metrics(scores, [[column] for column in first], ties)
    for form in (first, np.array(first), np.array(first, dtype=np.int32), torch.tensor(first), np.array([first]).T):
        assert retrieval_metrics(scores, form, ties) == expected
    mask = np.zeros(scores.shape, dtype=np.bool_)
    for row, columns in enumerate(relevant):
        mask[row, columns] = True
    expected = retrieval_metrics(scores, relevant, ties)
    for form in (mask, torch.from_numpy(mask), [columns[::-1] for columns in relevant]):
        assert retrieval_metrics(scores, form, ties) == expected


def test_every_kind_of_scores_gives_the_same() -> None:
    scores, relevant = case(6, seed=2)
    expected = retrieval_metrics(scores, relevant)
    read_only = scores.copy()
    read_only.flags.writeable = False
    forms: list[Any] = [
        scores.astype(np.float32), scores.astype(np.int64), scores.astype(np.float16), np.asfortranarray(scores),
        scores[::-1].copy()[::-1], read_only, torch.from_numpy(scores), torch.from_numpy(scores).bfloat16(),
        torch.from_numpy(scores.T.copy()).T, torch.from_numpy(scores).requires_grad_(), torch.from_numpy(scores).int(),
    ]  # fmt: skip
    for form in forms:
        assert retrieval_metrics(form, relevant) == expected


def test_transposed_view_ranks_the_other_way() -> None:
    scores, _ = case(5, seed=3, queries=30, items=6)
    owner = [query // 5 for query in range(30)]
    captions = [[query for query in range(30) if owner[query] == item] for item in range(6)]
    assert ranks(scores.T, captions).tolist() == brute(scores.T, captions, "index")[0]


def test_float32_neighbours_are_told_apart() -> None:
    low = np.float32(0.1)
    scores = np.array([[low, np.nextafter(low, np.float32(1)), low]], dtype=np.float32)
    assert [ranks(scores, [column]).item() for column in range(3)] == [2, 1, 3]
    # Equal in float32, but not in the float64 they are given in.
    close = np.array([[0.1, 0.1 + 1e-12]])
    assert ranks(close, [0]).item() == 2


def test_infinite_scores_rank_at_the_ends() -> None:
    scores = np.array([[0.0, -np.inf, np.inf, -np.inf]])
    assert [ranks(scores, [column]).item() for column in range(4)] == [2, 3, 1, 4]


def test_worked_example() -> None:
    scores = np.array([[0.9, 0.8, 0.7, 0.6], [0.1, 0.4, 0.3, 0.2]])
    found = retrieval_metrics(scores, [[1, 3], [0]])
    assert ranks(scores, [[1, 3], [0]]).tolist() == [2, 4]
    precision = ((1 / 2 + 2 / 4) / 2 + 1 / 4) / 2
    first = (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3))
    gain = (first + 1 / math.log2(5)) / 2
    assert found == pytest.approx(
        {"R@1": 0, "R@5": 100, "R@10": 100, "MedR": 3, "MeanR": 3}
        | {"mAP": 100 * precision, "MRR": 100 * (1 / 2 + 1 / 4) / 2, "nDCG@10": 100 * gain}
    )


def test_averaged_ties_follow_the_rule_of_qbnorm() -> None:
    tie_for_first = np.array([[1.0, 1.0, 0.0]])
    assert retrieval_metrics(tie_for_first, [0], "average")["R@1"] == 0  # rank 1.5
    assert retrieval_metrics(tie_for_first, [0], "average")["R@5"] == 100
    across_five = np.array([[9.0, 8.0, 7.0, 6.0, 5.0, 5.0, 0.0]])
    assert ranks(across_five, [5], "average").item() == 5.5
    assert retrieval_metrics(across_five, [5], "average")["R@5"] == 100  # 0-based 4.5 < 5
    assert retrieval_metrics(across_five, [5], "index")["R@5"] == 0
    assert retrieval_metrics(across_five, [5], "optimistic")["R@5"] == 100


@pytest.mark.parametrize("ties", TIES)
def test_a_tie_of_relevant_items_alone_costs_no_precision(ties: Ties) -> None:
    assert retrieval_metrics(np.array([[2.0, 2.0, 1.0]]), [[0, 1]], ties)["mAP"] == pytest.approx(100)


def test_inputs_are_not_changed() -> None:
    scores, relevant = case(4, seed=4)
    mask = np.eye(41, 23, dtype=np.bool_) | (np.arange(23) == 3)
    kept = scores.copy(), mask.copy(), [list(columns) for columns in relevant]
    tensor = torch.from_numpy(scores)
    for given in (scores, tensor):
        retrieval_metrics(given, mask)
        retrieval_metrics(given, relevant, "average")
    assert np.array_equal(scores, kept[0])
    assert np.array_equal(mask, kept[1])
    assert relevant == kept[2]


def test_recall_sum() -> None:
    one = {"R@1": 1.0, "R@5": 2.0, "R@10": 3.0, "MedR": 50.0, "mAP": 9.0}
    other = {"R@1": 10.0, "R@5": 20.0, "R@10": 30.0, "MedR": 70.0, "mAP": 8.0}
    assert recall_sum(one, other) == 66.0


@pytest.mark.parametrize(
    ("scores", "relevant", "message"),
    [
        (np.zeros((0, 3)), [], "at least one query"),
        (np.zeros((3, 0)), [0, 0, 0], "at least one query"),
        (np.zeros(3), [0, 0, 0], "give a matrix"),
        (np.zeros((2, 3)), [0], "one entry for each row"),
        (np.zeros((2, 3)), [0, 3], "column 3 of row 1: scores have columns 0 to 2"),
        (np.zeros((2, 3)), [-1, 0], "column -1 of row 0"),
        (np.zeros((2, 3)), [[0], []], "row 1 has no relevant item"),
        (np.zeros((2, 3)), [[], []], "row 0 has no relevant item"),
        (np.zeros((2, 3)), np.array([[True, False, False], [False] * 3]), "row 1 has no relevant item"),
        (np.zeros((2, 3)), np.array([True, False]), "bool mask has shape"),
        (np.zeros((2, 3)), [[0, 2, 0], [1]], "row 0 duplicates column 0"),
        (np.zeros((2, 3)), np.array([[0, 1, 0], [1, 0, 0]]), "give a bool mask"),
        (np.zeros((2, 3)), [0.0, 1.0], "give integer columns"),
        (np.array([[0.0, 1.0], [np.nan, 1.0]]), [0, 1], "NaN in row 1"),
        (torch.tensor([[0.0, np.nan], [0.0, 1.0]]), [0, 1], "NaN in row 0"),
    ],
)
def test_bad_input_says_what_to_do(scores: Any, relevant: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        retrieval_metrics(scores, relevant)
    with pytest.raises(ValueError, match=message):
        ranks(scores, relevant)


def test_nan_is_named_by_its_row_in_any_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "BLOCK_ENTRIES", 10)
    scores = np.zeros((9, 4))
    scores[7, 2] = np.nan
    for given in (scores, np.asfortranarray(scores), DenseScores(scores)):
        with pytest.raises(ValueError, match="NaN in row 7"):
            retrieval_metrics(given, [0] * 9)
    scores[3, 0] = np.nan  # the relevant one's own
    with pytest.raises(ValueError, match="NaN in row 3"):
        retrieval_metrics(scores, [[0, 1]] * 9)


def test_a_gap_is_neither_ahead_nor_equal() -> None:
    block = torch.tensor([[0.5, torch.nan, 0.5], [torch.nan, 0.1, 0.2]])
    own, columns = block[:, 2:], torch.tensor([[2], [2]])
    assert counting.places_ahead(block, own, columns, "index", gaps=True).tolist() == [[1.0], [0.0]]
    assert counting.places_ahead(block, own, columns, "index").isnan().all()


def test_an_unknown_tie_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="choose index, average or optimistic"):
        retrieval_metrics(np.zeros((1, 1)), [0], "random")  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.parametrize("ties", TIES)
def test_a_gpu_gives_the_same(ties: Ties) -> None:
    scores, relevant = case(5, seed=5)
    assert retrieval_metrics(torch.from_numpy(scores).cuda(), relevant, ties) == pytest.approx(
        retrieval_metrics(scores, relevant, ties), rel=1e-12
    )
