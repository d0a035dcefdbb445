"""MLCMR's published checkpoints: names, widths read from tensors, and what is refused."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import nrccr
from nrccr.data.batch import TextBatch, VideoBatch
from nrccr.errors import UserError
from nrccr.models.backbone import backbone_config, build_backbone
from nrccr.models.fast import use_fast_layers
from nrccr.systems.mlcmr.network import MLCMR
from nrccr.systems.mlcmr.published import is_mlcmr, published
from nrccr.systems.settings import load_config

Make = Callable[..., Any]
Parts = list[Any]
BERT = "text_bert.text_bert."
WIDTH = 16
RENAMED = {  # ours -> theirs
    "gru.": "rnn.", "convolutions.": "convs1.", "backbone.": BERT, "linear.": "mapping.fc1.", "norm.": "mapping.bn_1.",
}  # fmt: skip


def in_their_names(part: torch.nn.Module, prefix: str = "") -> dict[str, Tensor]:
    theirs = {}
    for name, value in part.state_dict().items():
        (ours,) = [ours for ours in RENAMED if name.startswith(ours)]
        if name.startswith("convolutions.") and name.endswith("weight"):
            value = value.transpose(1, 2).unsqueeze(1)
        theirs[prefix + RENAMED[ours] + name.removeprefix(ours)] = value.clone()
    return theirs


@pytest.fixture
def made(tiny_config: Path, tmp_path: Path) -> Make:
    """A function that writes a checkpoint as published; `change` may spoil its four parts first."""

    def make(change: Callable[[Parts], Any] = lambda parts: None, prefix: str = "") -> tuple[Path, MLCMR]:
        torch.manual_seed(0)
        text_section = load_config(tiny_config).text
        backbone = build_backbone(backbone_config(text_section.model, text_section.backbone), pretrained=None)
        network = use_fast_layers(MLCMR(backbone, WIDTH, joint=20, gru=6, maps=5)).eval()
        text = in_their_names(network.text, prefix)
        text[prefix + BERT + "embeddings.position_ids"] = torch.arange(64)[None]
        text[prefix + BERT + "pooler.dense.weight"] = torch.randn(32, 32)
        text[prefix + BERT + "pooler.dense.bias"] = torch.randn(32)
        visual = in_their_names(network.visual, prefix)
        parts = [visual, text, in_their_names(network.map_visual), in_their_names(network.map_text)]
        change(parts)
        options = argparse.Namespace(train_mode="unparallel", label_situation="human_label", target_language="zh")
        path = tmp_path / "model_best.pth.tar"
        torch.save({"epoch": 3, "best_rsum": 10.5, "Eiters": 7, "opt": options, "model": parts}, path)
        return path, network

    return make


@pytest.mark.parametrize("prefix", ["", "module."])
def test_round_trip(made: Make, tiny_bert: Path, prefix: str) -> None:
    path, network = made(prefix=prefix)
    model = nrccr.load(path, text_model=str(tiny_bert))
    loaded = model.network
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    text = TextBatch(torch.randint(5, 20, (2, 4)) * mask, mask)
    video = VideoBatch(torch.randn(2, 4, WIDTH) * mask.unsqueeze(-1), mask)
    assert torch.equal(loaded.embed_text(text), network.embed_text(text))
    assert torch.equal(loaded.embed_visual(video), network.embed_visual(video))
    assert model.feature_width == WIDTH and not loaded.independent and not loaded.training
    assert model.config.data.scenario == "unparallel" and model.checkpoint == path
    assert nrccr.load(path, str(tiny_bert), overrides=["switches.pooling=masked"]).network.independent


def test_the_commands_take_it(
    made: Make, tiny_bert: Path, both_languages: Path, nrccr_command: Callable[..., Any]
) -> None:
    path, network = made()
    model = nrccr.load(path, text_model=str(tiny_bert))
    assert isinstance(model.network, MLCMR) and model.config.data.scenario == "unparallel"
    assert model.config.evaluation.target_weight == 0.55 and model.feature_width == WIDTH
    text = TextBatch(torch.tensor([[2, 7, 8, 3]]), torch.ones(1, 4))
    assert torch.equal(model.network.embed_text(text), network.embed_text(text))
    where = ("--root", both_languages, "--device", "cpu", f"text.model={tiny_bert}")
    done = nrccr_command("test", path.parent, *where, "--split", "val")
    assert done.code == 2 and "vatexval_google_enc2zh" in done.err  # a collection without that file
    done = nrccr_command("test", path.parent, *where)
    assert done.code == 0, done.err
    for folder, language in ((path.parent / "test", "zh"), (path.parent / "test" / "en", "en")):
        metrics = json.loads((folder / "metrics.json").read_text())
        assert (metrics["queries_in"], metrics["target_weight"], metrics["queries"]) == (language, 0.55, 16)


def drop(part: int, name: str) -> Callable[[Parts], Any]:
    return lambda parts: parts[part].pop(name)


def put(part: int, name: str, value: Any) -> Callable[[Parts], Any]:
    return lambda parts: parts[part].update({name: value})


SPOILED: list[tuple[str, Callable[[Parts], Any], str]] = [
    ("five parts", lambda parts: parts.append({}), "four state dicts"),
    ("not a state dict", lambda parts: parts.__setitem__(1, [1]), "four state dicts"),
    ("nothing of ours", lambda parts: parts.__setitem__(0, [1]), "not a published checkpoint of nrccr, mlcmr, c2kd"),
    ("not a tensor", put(3, "mapping.fc1.bias", 3), "four state dicts"),
    ("no recurrent weights", drop(0, "rnn.weight_ih_l0"), "lacks the tensor rnn.weight_ih_l0 of 2 dimensions"),
    ("a scalar for a matrix", put(3, "mapping.fc1.weight", torch.tensor(1.0)), "lacks the tensor mapping.fc1.weight"),
    ("a missing kernel", drop(0, "convs1.3.weight"), "lacks the tensor convs1.3.weight of 4 dimensions"),
    (
        "a fifth kernel",
        put(0, "convs1.4.weight", torch.ones(5, 1, 6, 12)),
        "not expected: ['visual.convolutions.4.weight']",
    ),
    (
        "a kernel of two images",
        put(0, "convs1.1.weight", torch.ones(5, 2, 3, 12)),
        "visual.convolutions.1.weight is (5,",
    ),
    ("an empty matrix", put(0, "rnn.weight_hh_l0", torch.ones(0, 0)), "lacks the tensor rnn.weight_hh_l0"),
    ("a missing bias", drop(0, "convs1.1.bias"), "tensors missing: ['visual.convolutions.1.bias']"),
    ("a missing layer", drop(1, BERT + "encoder.layer.1.output.dense.bias"), "encoder.layer.1.output.dense.bias"),
    ("an unknown tensor", put(2, "mapping.fc2.weight", torch.ones(2)), "unknown tensor mapping.fc2.weight"),
    (
        "a wrong shape",
        put(0, "convs1.0.bias", torch.ones(4)),
        "visual.convolutions.0.bias is (4,), the network has (5,)",
    ),
    ("another joint space", put(2, "mapping.fc1.bias", torch.ones(9)), "map_visual.linear.bias is (9,)"),
]


@pytest.mark.parametrize(("change", "says"), [row[1:] for row in SPOILED], ids=[row[0] for row in SPOILED])
def test_a_checkpoint_that_does_not_fit_is_one_line(made: Make, tiny_bert: Path, change: Any, says: str) -> None:
    path, _ = made(change)
    with pytest.raises(UserError) as caught:
        nrccr.load(path, text_model=str(tiny_bert))
    message = str(caught.value)
    assert "\n" not in message and message.startswith(str(path)) and says in message


@pytest.mark.parametrize(("key", "value"), [("hidden_size", 64), ("vocab_size", 30), ("num_hidden_layers", 3)])
def test_another_backbone_is_refused(made: Make, tiny_bert: Path, key: str, value: int) -> None:
    path, _ = made()
    with pytest.raises(UserError) as caught:
        nrccr.load(path, text_model=str(tiny_bert), overrides=[f"text.backbone.{key}={value}"])
    message = str(caught.value)
    assert "\n" not in message and message.startswith(str(path)) and f"its backbone has {key}=" in message


@pytest.mark.parametrize("content", [{"model": [{}] * 4}, {"model": {}, "opt": {}}, {"opt": {}}, {}])
def test_something_else_is_not_ours(content: dict[str, Any], tmp_path: Path, tiny_bert: Path) -> None:
    path = tmp_path / "model_best.pth.tar"
    assert not is_mlcmr(content) and published(path, content) is None
    torch.save(content, path)
    with pytest.raises(UserError, match=r"not a published checkpoint of nrccr, mlcmr, c2kd .*; give a run folder"):
        nrccr.load(path, text_model=str(tiny_bert))


def test_a_checkpoint_without_options_is_refused() -> None:
    with pytest.raises(UserError, match="a.tar: not an MLCMR checkpoint"):
        published(Path("a.tar"), {"model": [{"rnn.weight_ih_l0": torch.ones(2, 2)}, {}, {}, {}]})
