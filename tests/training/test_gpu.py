"""Training on a CUDA device: the same bits twice, and after a resume. Run with -m gpu."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("options", [(), ("reading=corrected", "data.workers=2"), ("train.precision=bf16",)])
def test_a_gpu_run_repeats_and_resumes_bit_by_bit(
    tiny_config: Path,
    tiny_collection: Path,
    tmp_path: Path,
    nrccr_command: Callable[..., Any],
    options: tuple[str, ...],
) -> None:
    def train(out: Path, *more: str) -> bytes:
        arguments = ("--root", tiny_collection, "--out", out, "--device", "cuda", "--test", *more, *options)
        done = nrccr_command("train", tiny_config, *arguments)
        assert done.code == 0, done.err
        return (out / "model.safetensors").read_bytes()

    whole = train(tmp_path / "whole")
    assert train(tmp_path / "again") == whole
    train(tmp_path / "cut", "train.epochs=1")
    assert train(tmp_path / "cut", "--resume") == whole
    assert json.loads((tmp_path / "cut" / "run.json").read_text())["device"].startswith("cuda")


def test_a_gpu_agrees_with_the_cpu(
    tiny_config: Path, tiny_collection: Path, tmp_path: Path, nrccr_command: Callable[..., Any]
) -> None:
    run = tmp_path / "run"
    arguments = ("--root", tiny_collection, "--device", "cpu")
    assert nrccr_command("train", tiny_config, "--out", run, *arguments).code == 0
    metrics = {}
    for device in ("cpu", "cuda"):
        folder = tmp_path / device
        assert nrccr_command("test", run, "--root", tiny_collection, "--device", device, "--out", folder).code == 0
        metrics[device] = json.loads((folder / "metrics.json").read_text())
    assert metrics["cuda"]["SumR"] == pytest.approx(metrics["cpu"]["SumR"], abs=10.0)  # one swapped pair of sixteen
