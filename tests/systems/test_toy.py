"""A new system is one folder and one line: the real commands train, resume, test, rank, bank and check with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import nrccr
from nrccr.systems.table import SYSTEMS
from tests.systems.toy.system import PUBLISHED

Command = Callable[..., Any]


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tiny_bert: Path, tmp_path: Path) -> Path:
    """A configuration of the toy, which the table knows in this test."""
    monkeypatch.setitem(SYSTEMS, "toy", "tests.systems.toy")  # the one line
    path = tmp_path / "toy.yaml"
    values = f"text: {{model: {json.dumps(str(tiny_bert))}}}\njoint: {{width: 12}}\ntoy: {{temperature: 0.2}}\n"
    path.write_text(f"model: toy\n{values}train: {{batch_size: 8, epochs: 3, log_every: 1, learning_rate: 0.01}}\n")
    return path


def losses_of(run: Path) -> list[float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["contrast_loss"] for line in lines if line["kind"] == "train"]


def test_the_commands_know_it(toy: Path, nrccr_command: Command, tiny_collection: Path, tmp_path: Path) -> None:
    at = ("--root", tiny_collection)
    device = ("--device", "cpu")
    assert "no problems found" in nrccr_command("check", toy, *at).out

    run, begun = tmp_path / "run", tmp_path / "begun"
    done = nrccr_command("train", toy, *at, "--out", run, *device)
    assert done.code == 0, done.err
    losses = losses_of(run)
    assert len(losses) == 9 and losses[-1] < losses[0]
    assert nrccr_command("train", toy, *at, "--out", begun, *device, "train.epochs=1").code == 0
    assert nrccr_command("train", toy, *at, "--out", begun, *device, "--resume").code == 0
    assert losses_of(begun) == losses
    assert (begun / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()

    backbone = json.loads((tmp_path / "toy.yaml").read_text().splitlines()[1].partition("model: ")[2].rstrip("}"))
    assert nrccr_command("test", run, *at, *device, "--by-length").code == 0
    metrics = json.loads((run / "test" / "metrics.json").read_text())
    assert metrics["queries"] == 16 and len(metrics["sweep"]) == 5 and metrics["by_length"]
    assert nrccr_command("test", run, *at, *device, "--task", "text-to-text").code == 0
    assert "target_to_source" in json.loads((run / "test-text-to-text" / "metrics.json").read_text())

    assert nrccr_command("bank", run, *at, *device, "--size", "10").code == 0
    done = nrccr_command("test", run, *at, *device, "--out", tmp_path / "normal", "evaluation.normalise=dis", "--tune")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "normal" / "metrics.json").read_text())["normalisation"]["method"] == "dis"

    ranked = nrccr_command("rank", run, "人 跑", *at, *device)
    assert ranked.code == 0 and "8 videos of vatex test" in ranked.out

    model = nrccr.load(run, text_model=backbone)
    assert model.encode_text(["人 跑"]).shape == (1, 12)


def test_its_published_checkpoints_are_read(toy: Path, run_test: Command, tiny_bert: Path, tmp_path: Path) -> None:
    words = len((tiny_bert / "vocab.txt").read_text(encoding="utf-8").split())
    frames = {"frames.weight": torch.randn(12, 16), "frames.bias": torch.zeros(12)}
    torch.save({PUBLISHED: torch.randn(words, 12), "frames": frames}, tmp_path / "latest_model.pth")
    done = run_test(tmp_path / "latest_model.pth", f"text.model={tiny_bert}")
    assert done.code == 0, done.err


def test_its_keys_are_refused_elsewhere(toy: Path, nrccr_command: Command, tiny_collection: Path) -> None:
    done = nrccr_command("check", toy, "--root", tiny_collection, "model=nrccr")
    assert done.code == 2 and "toy.temperature=0.2 is not used by model=nrccr" in done.err
    done = nrccr_command("check", toy, "--root", tiny_collection, "loss.margin=0.1")
    assert done.code == 2 and "loss.margin=0.1 is not used by model=toy" in done.err
