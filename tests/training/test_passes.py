"""A batch in micro-batches: loss, gradients and update of the whole batch, in every system."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nrccr.training.passes import InPieces, pieces_of
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
        (expected,), after = plain.steps(), torch.get_rng_state()
    torch.manual_seed(1)
    (found,) = ours.steps()
    assert torch.equal(torch.get_rng_state(), after)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)
    gradients = plain.gradients()
    close = 1e-5 if precision == "fp32" else 1e-2  # sums of micro-batches are rounded in bfloat16
    largest = max(own.abs().max().item() for own in gradients.values())
    for name, own in ours.gradients().items():
        torch.testing.assert_close(own, gradients[name], rtol=close, atol=close * largest / 10, msg=said_of(name))
