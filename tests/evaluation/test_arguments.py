"""What `normalise` and `retrieval_metrics` take: arrays, tensors, lists; all else is a ValueError of one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nrccr.errors import UserError
from nrccr.evaluation.compare import read_outcome
from nrccr.evaluation.metrics import retrieval_metrics
from nrccr.evaluation.normalise import METHODS, normalise

VALUES = np.random.default_rng(0).uniform(-1, 1, (6, 4))
BANK = np.random.default_rng(1).uniform(-1, 1, (5, 4))
RELEVANT = [0, 1, 2, 3, 0, 1]


def test_lists_and_tensors_count_as_arrays() -> None:
    expected = retrieval_metrics(VALUES, RELEVANT)
    for scores in (VALUES.tolist(), tuple(map(tuple, VALUES.tolist())), torch.from_numpy(VALUES), list(VALUES)):
        for relevant in (
            RELEVANT,
            tuple(RELEVANT),
            np.array(RELEVANT),
            torch.tensor(RELEVANT),
            [[r] for r in RELEVANT],
        ):
            assert retrieval_metrics(scores, relevant) == expected
    np.testing.assert_array_equal(normalise(VALUES.tolist(), BANK.tolist()), normalise(VALUES, BANK))
    np.testing.assert_array_equal(normalise(VALUES, torch.from_numpy(BANK)), normalise(VALUES, BANK))


WRONG: list[Any] = [None, 3.0, "scores", [[1.0], [1.0, 2.0]], [["a", "b"]], [[None, 1.0]], VALUES * 1j, {"a": 1}]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: type(wrong).__name__)
def test_what_is_no_matrix(wrong: Any) -> None:
    actions = [lambda: retrieval_metrics(wrong, RELEVANT), lambda: normalise(wrong, BANK)]
    if wrong is not None:
        actions.append(lambda: normalise(VALUES, wrong))
    for action in actions:
        with pytest.raises(ValueError, match="give ") as caught:
            action()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [None, 3, "012301", {0: 1}, {0, 1}, [0, 1, 2, 3, 0, None], [0.5] * 6, [[0], 1, [2], [3], [0], [1]],
     [0, [1], 2, 3, 0, 1], np.array(3), pytest.param((r for r in RELEVANT), id="generator")],
    ids=str,
)  # fmt: skip
def test_what_is_no_list_of_columns(wrong: Any) -> None:
    with pytest.raises(ValueError, match="relevant") as caught:
        retrieval_metrics(VALUES, wrong)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_result_that_overflows_is_refused(method: Any, dtype: Any) -> None:
    """Logits, cosines times 100: exp of them times beta is beyond float32 and float64."""
    scores, bank = (np.asarray(100 * values, dtype=dtype) for values in (VALUES, BANK))
    options: dict[str, Any] = {"gallery_bank_scores": bank} if method.startswith("dual_") else {}
    try:
        made = normalise(scores, bank, method=method, **options)
    except ValueError as error:
        assert "overflows" in str(error) and method not in ("csls", "nnn", "dsl")
    else:
        assert np.isfinite(made).all()
    assert np.isfinite(normalise(scores, bank, method=method, log=True, **options)).all()


def test_overflow_is_refused_where_it_was_silent() -> None:
    scores, bank = (100 * values.astype(np.float32) for values in (VALUES, BANK))
    scores[0, 0], bank[:, 0] = 100, -100
    for method in ("is", "dis"):
        with pytest.raises(ValueError, match="overflows"):
            normalise(scores, bank, method=method, k=4)  # type: ignore[arg-type]


ODD: list[Any] = [
    None,
    "x",
    b"x",
    [],
    {},
    object(),
    np.array(3.0),
    np.array([]),
    torch.tensor([1.0]),
    True,
    {1},
    np.inf,
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["beta", "k", "alpha"])
def test_parameters_that_are_no_numbers(method: Any, name: str) -> None:
    for wrong in (*ODD, float("nan"), -np.inf):
        with pytest.raises(ValueError, match=name) as caught:
            normalise(VALUES, BANK, method=method, gallery_bank_scores=BANK, **{name: wrong})
        assert "\n" not in str(caught.value)
    for right in (np.int64(2), 2, *([] if name == "k" else [np.float32(2)])):
        options: dict[str, Any] = {name: right}
        assert np.isfinite(normalise(VALUES, BANK, method=method, gallery_bank_scores=BANK, **options)).all()


def test_an_outcome_is_named_by_text() -> None:
    for wrong in ODD:
        if not isinstance(wrong, str):
            for arguments in ((wrong, "test"), (".", wrong)):
                with pytest.raises(UserError, match="as text"):
                    read_outcome(*arguments)


def test_infinite_scores_of_the_user_stay() -> None:
    """-inf masks an item."""
    masked = VALUES.copy()
    masked[0, 1] = -np.inf
    assert normalise(masked, BANK, method="nnn")[0, 1] == -np.inf
    assert normalise(masked, BANK, method="is")[0, 1] == 0
