"""Micro-batches, checkpointing and both: loss, gradients and update of the whole batch, in every system."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nrccr.distributed import Runtime
from nrccr.errors import UserError
from nrccr.systems.settings import load_config
from nrccr.training.passes import InPieces, passes, pieces_of
from tests.training.started import Started, require_same_step, said_of

Places = dict[str, tuple[Path, Path]]
CASES = {
    "released": ("nrccr", "reading=released"),
    "paper": ("nrccr", "reading=paper"),
    "corrected": ("nrccr", "reading=corrected", "text.freeze=none"),
    "basic": ("nrccr", "loss.adversary=0", "loss.similarity=0", "loss.feature=0", "loss.cycle=0"),
    "mlcmr": ("mlcmr",),
    "mlcmr corrected": ("mlcmr", "reading=corrected"),
    "c2kd": ("c2kd",),
    "quartet": ("quartet",),
    "quartet, all": (
        "quartet", "quartet.pooling=attention", "text.width=32", "text.heads=4", "loss.similarity=0.4",
        "loss.feature=0.1", "loss.cycle=0.5", "loss.adversary=0.01", "train.average=0.9",
    ),
}  # fmt: skip


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("case", CASES)
def test_micro_batches_take_the_step_of_the_whole_batch(case: str, size: int, places: Places) -> None:
    system, *overrides = CASES[case]
    where = (*places[system], "train.batch_size=7", *overrides)
    require_same_step(Started(*where), Started(*where, f"train.micro_batch={size}"))


def with_graph(self: InPieces, parts: Any) -> Any:
    """Every micro-batch with its gradients at once: the plain way, without a second pass."""
    rows = []
    for piece in pieces_of(parts, self.size):
        with self.runtime.autocast():
            rows.append(self.network.apart(*piece))
    with self.runtime.autocast():
        return self.network.together(rows, *parts)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("case", ["released", "corrected", "mlcmr", "c2kd", "quartet, all"])
def test_the_second_pass_draws_what_the_first_drew(
    case: str, precision: str, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout on, two passes are one with the same random numbers, and leave the generator where that does."""
    system, *overrides = CASES[case]
    dropout = "text.backbone={hidden_size: 32, num_attention_heads: 4, intermediate_size: 64, hidden_dropout_prob: 0.3}"
    where = (*places[system], *overrides, dropout, "train.micro_batch=3", f"train.precision={precision}")
    ours, plain = Started(*where, dropout=True), Started(*where, dropout=True)
    with monkeypatch.context() as patched:
        patched.setattr(InPieces, "forward", with_graph)
        (expected,) = plain.steps()
    (found,) = ours.steps()
    assert torch.equal(ours.random, plain.random)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)
    gradients = plain.gradients()
    close = 1e-5 if precision == "fp32" else 1e-2  # sums of micro-batches are rounded in bfloat16
    largest = max(own.abs().max().item() for own in gradients.values())
    for name, own in ours.gradients().items():
        torch.testing.assert_close(own, gradients[name], rtol=close, atol=close * largest / 10, msg=said_of(name))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("case", ["released", "corrected", "mlcmr corrected", "c2kd", "quartet"])
def test_checkpointing_changes_nothing_with_dropout_on(case: str, precision: str, places: Places) -> None:
    system, *overrides = CASES[case]
    where = (*places[system], *overrides, "text.freeze=none", f"train.precision={precision}")
    plain, ours = Started(*where, dropout=True), Started(*where, "train.checkpointing=true", dropout=True)
    calls = [calls_of_layers(own) for own in (plain, ours)]
    require_same_step(plain, ours)
    assert torch.equal(plain.random, ours.random)
    assert calls[0] and calls[1] == [*calls[0], *reversed(calls[0])]  # once more for the gradients, the last first


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_checkpointing_in_micro_batches(places: Places, precision: str) -> None:
    where = (*places["nrccr"], "reading=corrected", "train.micro_batch=3", f"train.precision={precision}")
    plain, ours = Started(*where, dropout=True), Started(*where, "train.checkpointing=true", dropout=True)
    require_same_step(plain, ours)
    assert torch.equal(plain.random, ours.random)


def calls_of_layers(started: Started) -> list[str]:
    """A list that grows by a name whenever a layer of the backbone computes its feed-forward sub-layer."""
    called: list[str] = []
    for name, module in started.trainer.network.text.backbone.named_modules():
        if name.endswith("intermediate"):
            module.register_forward_hook(lambda *_, name=name: called.append(name))
    return called


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("train.checkpointing=true", "text.freeze=all_frozen"), "train.checkpointing=true: no encoder trains"),
        (("train.micro_batch=8",), "train.micro_batch=8 is not below train.batch_size=8"),
        (("train.micro_batch=0",), "train.micro_batch=0 is out of range; it must be above 0"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    options: tuple[str, ...], says: str, start: Callable[..., Any]
) -> None:
    done = start(*options)
    assert done.code == 2 and says in done.err and len(done.err.splitlines()) == 1


@pytest.mark.parametrize("options", [("train.micro_batch=3", "train.checkpointing=true")])
def test_a_run_resumes_to_the_byte(
    options: tuple[str, ...], train: Callable[..., Any], results: Callable[..., Any], tmp_path: Path
) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    assert train(whole, *options, "train.epochs=2").code == 0
    assert train(parted, *options, "train.epochs=1").code == 0
    assert train(parted, *options, "train.epochs=2", "--resume").code == 0
    assert results(parted) == results(whole)


class Span:
    """A part that is nothing but its rows."""

    def __init__(self, rows: range) -> None:
        self.rows = rows

    @property
    def count(self) -> int:
        return len(self.rows)

    def between(self, start: int, stop: int) -> Span:
        return Span(self.rows[start:stop])


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (1, [[[row]] for row in range(9)]),
        (3, [[[0, 1, 2]], [[3]], [[4, 5, 6]], [[7, 8]]]),
        (4, [[[0, 1, 2, 3]], [[4, 5, 6]], [[7, 8]]]),
        (7, [[[0, 1, 2, 3], [4, 5, 6]], [[7, 8]]]),
        (99, [[[0, 1, 2, 3], [4, 5, 6], [7, 8]]]),
    ],
)
def test_micro_batches_fill_with_pieces_of_parts(size: int, expected: list[list[list[int]]]) -> None:
    parts = [Span(range(4)), Span(range(4, 7)), Span(range(7, 9))]
    assert [[[*piece.rows] for piece in pieces] for pieces in pieces_of(parts, size)] == expected


def test_a_network_without_the_halves_is_refused(places: Places) -> None:
    config = load_config(places["nrccr"][0], ["train.micro_batch=2"])
    with pytest.raises(UserError, match=r"train\.micro_batch=2: model=nrccr takes its batches whole; remove it"):
        passes(config, torch.nn.Linear(2, 2), Runtime(torch.device("cpu")))
