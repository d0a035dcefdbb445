"""What makes a step fast leaves its losses: 50 steps beside the plain way, without dropout, in float32.

The plain way calls the backbone once for each branch, with eager attention, torch's own linear layers and unfused Adam,
and trains the whole word table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nrccr.data.sampling import epoch_batches
from nrccr.distributed import Runtime, make_deterministic
from nrccr.models import backbone, fast
from nrccr.systems.settings import load_config
from nrccr.systems.table import part_of
from nrccr.training import loop
from nrccr.training.loop import Trainer
from nrccr.training.optim import Apart, adam
from nrccr.training.rows import UsedRows
from nrccr.training.runfolder import RunFolder

STEPS = 50
# Added to -10000, as that reading has it, a score keeps three decimals: which way it is rounded hangs on its last digit
# whatever computed it, and the steps after the first drift apart by as much as rounding.
ONE = ("nrccr-released",)
SYSTEMS = {  # system, fixtures of configuration and collection, overrides
    "nrccr-released": ("nrccr", "tiny_config", "tiny_collection", ["reading=released"]),
    "nrccr-padded": ("nrccr", "tiny_config", "tiny_collection", ["switches.attention_mask=key"]),
    "nrccr-corrected": ("nrccr", "tiny_config", "tiny_collection", ["reading=corrected"]),
    # Rounding grows with what a step changes: at 1e-4 one loss of fifty is 1.5e-5 apart on processors with AVX2 alone.
    "mlcmr": ("mlcmr", "mlcmr_config", "both_languages", ["reading=released", "train.learning_rate=3e-5"]),
    "c2kd": ("c2kd", "c2kd_config", "tiny_languages", []),
    "quartet": ("quartet", "quartet_config", "tiny_collection", []),
}


def batches(trainer: Trainer) -> Iterator[Any]:
    size = trainer.config.train.batch_size
    for epoch in range(STEPS):
        pairs = trainer.pairs.at_epoch(epoch)
        yield from (pairs[chosen] for chosen in epoch_batches(len(pairs), size, 0, epoch))


def train(system: str, config: Path, root: Path, overrides: list[str], plain: bool) -> tuple[Trainer, list[float]]:
    """A trainer after its steps, and the total loss of each."""
    make_deterministic(0)
    found = load_config(config, ["text.freeze=none", "train.learning_rate=1e-4", "train.grad_clip=2", *overrides])
    task = part_of(system, "system").task(found, root, torch.device("cpu"), test=False)
    for module in task.network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    encoder: Any = task.network.text
    encoder.backbone.config.attention_probs_dropout_prob = 0.0
    if plain:
        encoder.backbone.set_attn_implementation("eager")
    trainer = Trainer(found, task, Runtime(torch.device("cpu")), RunFolder(Path("unused")))
    trainer.network.train()
    return trainer, [float(trainer.step(batch)["total"].detach()) for batch in islice(batches(trainer), STEPS)]


def unfused(module: nn.Module, rate: float, apart: Mapping[str, Apart] | None = None) -> torch.optim.Adam:
    """The same groups, one parameter after the other."""
    groups = adam(module, rate, apart).param_groups
    kept = [{name: group[name] for name in ("params", "lr", "weight_decay")} for group in groups]
    return torch.optim.Adam(kept, rate, foreach=False, decoupled_weight_decay=bool(apart))


@pytest.mark.parametrize("case", SYSTEMS)
def test_fifty_steps(case: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    system, config, root, overrides = SYSTEMS[case]
    given = (system, request.getfixturevalue(config), request.getfixturevalue(root), overrides)
    ours, losses = train(*given, plain=False)
    assert any(isinstance(module, UsedRows) for module in ours.network.modules())
    assert all(optimizer.defaults["fused"] for optimizer in ours.together)
    monkeypatch.setattr(fast, "ASKS_ONEDNN", False)
    monkeypatch.setattr(backbone, "packs", lambda _: False)
    monkeypatch.setattr(loop, "adam", unfused)
    monkeypatch.setattr(f"nrccr.systems.{system}.system.train_used_rows", lambda table, used: None)
    plain, wanted = train(*given, plain=True)
    assert not any(isinstance(module, UsedRows) for module in plain.network.modules())
    equal = 1 if case in ONE else STEPS
    assert len(losses) == len(wanted) == STEPS and losses[-1] != losses[0]
    assert losses[:equal] == pytest.approx(wanted[:equal], rel=1e-5)
    assert losses == pytest.approx(wanted, rel=2e-2)
