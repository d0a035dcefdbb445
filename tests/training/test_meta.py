"""No step waits for its device: training and encoding run on torch's `meta` device, where there are no values to read.

There `.item()` and copies to the host raise; tensors of two devices in one operation are refused here.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nrccr.data.batch import VideoBatch
from nrccr.data.sampling import epoch_batches
from nrccr.distributed import Runtime
from nrccr.systems.settings import load_config
from nrccr.systems.table import part_of
from nrccr.training import loop
from nrccr.training.loop import Trainer
from nrccr.training.runfolder import RunFolder

META = torch.device("meta")
CACHED = ["text.freeze=frozen", "text.trainable_layers=[1]", "text.cache=cache"]
STEPS = {  # system, fixtures of configuration and collection, overrides
    "nrccr-released": ("nrccr", "tiny_config", "tiny_collection", ["reading=released"]),
    "nrccr-paper": ("nrccr", "tiny_config", "tiny_collection", ["reading=paper"]),
    "nrccr-corrected": ("nrccr", "tiny_config", "tiny_collection", ["reading=corrected"]),
    "nrccr-frozen": ("nrccr", "tiny_config", "tiny_collection", ["text.freeze=frozen", "text.trainable_layers=[1]"]),
    "nrccr-basic": ("nrccr", "tiny_config", "tiny_collection", [f"loss.{name}=0" for name in ("cycle", "adversary")]),
    "nrccr-cached": ("nrccr", "tiny_config", "tiny_collection", ["reading=corrected", *CACHED]),
    "mlcmr-released": ("mlcmr", "mlcmr_config", "both_languages", ["reading=released"]),
    "mlcmr-corrected": ("mlcmr", "mlcmr_config", "both_languages", ["reading=corrected"]),
    "mlcmr-unparallel": ("mlcmr", "mlcmr_config", "both_languages", ["data.scenario=unparallel"]),
    "mlcmr-cached": ("mlcmr", "mlcmr_config", "both_languages", ["reading=corrected", *CACHED]),
    "c2kd-translate-train": ("c2kd", "c2kd_config", "tiny_languages", []),
    "c2kd-zero-shot": ("c2kd", "c2kd_config", "tiny_languages", ["c2kd.stage=zero_shot"]),
    "quartet": ("quartet", "quartet_config", "tiny_collection", []),
    "c2kd-cached": ("c2kd", "c2kd_config", "tiny_languages", ["reading=corrected", *CACHED]),
    "quartet-cached": ("quartet", "quartet_config", "tiny_collection", CACHED),
    "quartet-triplet": ("quartet", "quartet_config", "tiny_collection", ["quartet.ranking=triplet"]),
}


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of two devices, and those that read a value or move one to the host."""

    # A packed sequence keeps its lengths on the host; they are in the batch.
    ON_HOST = ("_pack_padded_sequence", "_pad_packed_sequence", "gru")

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = options or {}
        given = [value for value in tree_leaves((arguments, options)) if isinstance(value, Tensor)]
        name = str(function)
        devices = {value.device.type for value in given if value.dim()}
        if len(devices) > 1 and not any(part in name for part in self.ON_HOST):
            raise AssertionError(f"{name} of tensors on {devices}")
        if "_local_scalar_dense" in name and "meta" in {value.device.type for value in given}:
            raise AssertionError(f"{name} reads a value")
        if "_to_copy" in name and given[0].device.type == "meta" and str(options.get("device", "meta")) != "meta":
            raise AssertionError(f"{name} moves values to the host")
        return function(*arguments, **options)


@pytest.fixture(params=STEPS)
def trainer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Trainer:
    """A trainer of a system on the meta device."""
    system, config, root, overrides = STEPS[request.param]
    monkeypatch.chdir(tmp_path)
    found = load_config(request.getfixturevalue(config), [*overrides, "text.pretrained=false"])
    task = part_of(system, "system").task(found, request.getfixturevalue(root), torch.device("cpu"), test=False)
    # The fused kernel is not made for meta tensors; it reads no values either.
    monkeypatch.setattr(
        loop, "adam", lambda module, rate, apart=None: torch.optim.Adam(loop.trainable(module), rate, foreach=True)
    )
    autocast = torch.autocast  # knows no meta device
    monkeypatch.setattr(
        torch,
        "autocast",
        lambda device_type, **options: nullcontext() if device_type == "meta" else autocast(device_type, **options),
    )
    runtime = Runtime(torch.device("cpu"))
    runtime.device = META
    made = Trainer(found, task, runtime, RunFolder(Path("unused")))
    made.network.train()
    return made


def batches(trainer: Trainer) -> list[Any]:
    """Two batches without an empty sample or, in C2KD, a video without an English caption."""
    size = trainer.config.train.batch_size
    return [trainer.pairs.at_epoch(0)[chosen] for chosen in epoch_batches(len(trainer.pairs), size, 0, 0)[:2]]


def test_a_training_step_reads_no_value(trainer: Trainer) -> None:
    for batch in batches(trainer):
        moved = batch.to(META)
        with OneDevice():
            trainer.progress.window.add(trainer.step(moved))
    sums = trainer.progress.window.sums
    assert {"total", "gradient_norm"} < sums.keys() and {value.device for value in sums.values()} == {META}


def test_encoding_reads_no_value(trainer: Trainer) -> None:
    network: Any = trainer.network
    for part in batches(trainer)[0].to(META).parts:
        texts = part.texts if hasattr(part, "texts") else [part.source]
        texts = [own.text for own in texts.values()] if isinstance(texts, dict) else texts
        with OneDevice():
            found = [*(network.embed_text(text) for text in texts), network.embed_visual(part.visual)]
        assert {vectors.device for vectors in found} == {META} and all(vectors.dim() == 2 for vectors in found)


@pytest.mark.parametrize("kind", ["item", "host", "bool", "mixed", "nonzero"])
def test_the_test_sees_what_waits(kind: str) -> None:
    values = torch.ones(3, device=META)
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), OneDevice():
        if kind == "item":
            values.sum().item()
        elif kind == "host":
            values.cpu()
        elif kind == "bool":
            assert values.all()
        elif kind == "nonzero":
            values.nonzero()
        else:
            values + torch.ones(3)


def test_lengths_stay_on_the_host() -> None:
    lengths = np.array([2, 1])
    video = VideoBatch(torch.ones(2, 2, 4), torch.ones(2, 2), lengths=lengths).to(META)
    assert video.lengths is lengths and video.frames.device == META
