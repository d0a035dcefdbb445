"""Encoders of every kind, from a folder with weights to a tested run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel

from nrccr.safeload.unpickle import load_weights
from tests.data.test_tokenizers import KINDS

# How the weights are kept; the rest in one safetensors file.
KEPT = {"XLM-R": "sharded", "RoBERTa": "pickled", "DistilBERT": "sharded"}


def write_weights(folder: Path, how: str) -> Any:
    """Weights of the folder's configuration, drawn with seed 0."""
    torch.manual_seed(0)
    encoder = AutoModel.from_config(AutoConfig.from_pretrained(folder)).eval()
    if how == "pickled":
        torch.save(encoder.state_dict(), folder / "pytorch_model.bin")
    else:
        encoder.save_pretrained(folder, **({"max_shard_size": "5KB"} if how == "sharded" else {}))
    return encoder


@pytest.mark.parametrize("name", KINDS)
def test_a_run_on_each_kind(
    name: str, tiny_config: Path, tiny_collection: Path, tmp_path: Path, nrccr_command: Callable[..., Any]
) -> None:
    folder, run = tmp_path / "encoder", tmp_path / "run"
    folder.mkdir()
    write, kind, _ = KINDS[name]
    write(folder, kind)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    encoder = write_weights(folder, KEPT.get(name, "whole"))
    assert (len(list(folder.glob("*.safetensors"))) > 1) == (KEPT.get(name) == "sharded")
    keys = ("text.pretrained=true", "text.backbone={}", f"text.model={folder}", "text.freeze=frozen")
    where = ("--root", tiny_collection, "--device", "cpu")
    done = nrccr_command(
        "train", tiny_config, *where, "--out", run, *keys, "text.trainable_layers=[1]", "train.epochs=2", "--test"
    )
    assert done.code == 0, done.err
    found = {key: value for key, value in load_weights(run / "model.safetensors").items() if "backbone" in key}
    equal = {own: [torch.equal(value, kept) for key, kept in found.items() if key.endswith(f".{own}")]
             for own, value in encoder.state_dict().items()}  # fmt: skip
    moved = {own for own, same in equal.items() if same and not any(same)}
    assert moved and all("layer.1." in own or "layers.1." in own for own in moved), moved
    assert sum(any(same) for same in equal.values()) > 3  # what is frozen came from the folder and stayed
