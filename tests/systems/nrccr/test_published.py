"""Published checkpoints: their names, widths read from tensors, and what is refused."""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import nrccr
from nrccr.errors import UserError
from nrccr.systems.nrccr.network import build_discriminator

Make = Callable[..., Any]
Parts = list[dict[str, Tensor]]

# Our names -> the published ones (the golden checkpoint's).
PROJECT = {
    "project.input_norm.": "input_proj_layer.LayerNorm.",
    "project.linear.": "input_proj_layer.net.1.",
    "project.positions.": "pos_embed_layer.position_embeddings.",
    "project.norm.": "pos_embed_layer.LayerNorm.",
}
ATTENTION = {
    "query.": "encoder_layer.self.query.",
    "key.": "encoder_layer.self.key.",
    "value.": "encoder_layer.self.value.",
    "output.": "encoder_layer.output.dense.",
    "norm.": "encoder_layer.output.LayerNorm.",
}
VISUAL = {f"module.{theirs}": ours for ours, theirs in PROJECT.items()} | {
    f"module.{theirs}": f"blocks.0.{ours}" for ours, theirs in ATTENTION.items()
}
TEXT = {f"module.{theirs}": ours for ours, theirs in PROJECT.items()} | {
    f"module.{theirs}": f"block.{ours}" for ours, theirs in ATTENTION.items()
}
TEXT["module.text_bert.text_bert."] = "backbone."
MAPPING = {"mapping.fc1.": "linear.", "mapping.bn_1.": "norm."}
STRONG = {
    "discriminator.convolve.0.": "reduce.",
    **{
        f"discriminator.convolve.{i + 1}.conv{j + 1}.": f"convolutions.{i}.{name}."
        for i in range(3)
        for j, name in enumerate(("first", "second"))
    },
}
DISCRIMINATOR = {"discriminator.model.": "classify."} | STRONG
WIDTHS = ["text.width=40", "text.heads=8", "visual.width=48", "visual.heads=16", "joint.width=20"]


def in_their_names(module: nn.Module, table: Mapping[str, str]) -> dict[str, Tensor]:
    theirs = {}
    for name, value in module.state_dict().items():
        (prefix,) = [(their, our) for their, our in table.items() if name.startswith(our)]
        theirs[prefix[0] + name.removeprefix(prefix[1])] = value.clone()
    return theirs


def options(**changed: Any) -> argparse.Namespace:
    values = {
        "collection": "vatex", "visual_feature": "i3d_kinetics", "text_num_attention": 8, "video_num_attention": 16,
        "layer_list": ["layer.1"], "frozen": "frozen", "disc_type": "strong", "tri_alpha": 0.7, "dtl_beta": 0.3,
        "l1_gama": 0.2, "back_w": 0.6, "scale": 0.002, "margin": 0.25, "model_type": "video", "img_encoder": "clip",
        "data_type": "google_enc2zh", "batch_size": 64, "grad_clip": 3,
    }  # fmt: skip
    return argparse.Namespace(**(values | changed))


@pytest.fixture
def made(make_network: Make, tmp_path: Path) -> Make:
    """A function that writes a checkpoint as published; `change` may spoil its parts and options first."""

    def make(
        change: Callable[[Parts, dict[str, Any]], Any] = lambda parts, opt: None, disc_type: str = "strong"
    ) -> tuple[Path, Any, Any]:
        config, network = make_network(*WIDTHS, f"adversary.discriminator={disc_type}")
        discriminator = build_discriminator(config, 32)
        assert discriminator is not None
        text = in_their_names(network.text, TEXT)
        text["module.text_bert.text_bert.embeddings.position_ids"] = torch.arange(64)[None]
        text["module.text_bert.text_bert.pooler.dense.weight"] = torch.randn(32, 32)
        text["module.text_bert.text_bert.pooler.dense.bias"] = torch.randn(32)
        parts = [
            in_their_names(network.visual, VISUAL),
            text,
            in_their_names(network.map_visual, MAPPING),
            in_their_names(network.map_text, MAPPING),
            in_their_names(discriminator, DISCRIMINATOR),
        ]
        checkpoint: dict[str, Any] = {"epoch": 3, "best_rsum": np.float64(10.5), "Eiters": 7, "model": parts}
        opt = options(disc_type=disc_type)
        change(parts, vars(opt))
        folder = tmp_path / "runs_0"
        folder.mkdir()
        torch.save(checkpoint | {"opt": opt}, folder / "model_best.pth.tar")
        return folder / "model_best.pth.tar", network, discriminator

    return make


@pytest.mark.parametrize("disc_type", ["weak", "not-so-weak", "strong"])
def test_round_trip(made: Make, tiny_bert: Path, make_batch: Make, samples: Any, disc_type: str) -> None:
    path, network, discriminator = made(disc_type=disc_type)
    for place in (path, path.parent):
        model = nrccr.load(place, text_model=str(tiny_bert))
        pairs = make_batch(samples)
        assert torch.equal(model.network.embed_text(pairs.target), network.embed_text(pairs.target))
        assert torch.equal(model.network.embed_visual(pairs.visual), network.embed_visual(pairs.visual))
        assert model.checkpoint == path and model.feature_width == 16 and not model.network.training
    (path.parent / "README.md").write_text("of the folder, not of the model")
    model.save_pretrained(path.parent / "saved")
    saved = nrccr.load(path.parent / "saved")
    assert torch.equal(saved.network.embed_text(pairs.target), network.embed_text(pairs.target))
    assert "## Limits" in (path.parent / "saved" / "README.md").read_text(encoding="utf-8")
    # A test has no discriminator; its kind is still read, so that the configuration says what was trained.
    ours = build_discriminator(nrccr.load(path, text_model=str(tiny_bert)).config, 32)
    assert ours is not None
    shapes, wanted = ({name: value.shape for name, value in own.state_dict().items()} for own in (ours, discriminator))
    assert shapes == wanted


def test_configuration_comes_from_tensors_and_options(made: Make, tiny_bert: Path) -> None:
    path, _, _ = made()
    config = nrccr.load(path, text_model=str(tiny_bert)).config
    assert (config.text.width, config.visual.width, config.joint.width) == (40, 48, 20)
    assert (config.text.heads, config.visual.heads, config.visual.layers) == (8, 16, 1)
    loss = config.loss
    assert (loss.margin, loss.target, loss.similarity, loss.feature, loss.cycle, loss.adversary) == (
        0.25, 0.7, 0.3, 0.2, 0.6, 0.002
    )  # fmt: skip
    assert (config.text.freeze, config.text.trainable_layers, config.text.pretrained) == ("frozen", [1], False)
    assert (config.data.collection, config.data.feature) == ("vatex", "i3d_kinetics")
    assert (config.data.target, config.data.translator) == ("zh", "google")
    assert config.reading == "released" and config.evaluation.target_weight == 0.8


def test_options_that_change_names(made: Make, tiny_bert: Path) -> None:
    def change(parts: Parts, opt: dict[str, Any]) -> None:
        opt.update(data_type="baidu_enc2zh", collection="msrvtt10kcn", visual_feature="resnext101-resnet152")

    path, _, _ = made(change)
    data = nrccr.load(path, text_model=str(tiny_bert)).config.data
    assert (data.translator, data.collection, data.feature) == ("baidu", "msrvtt10kcn", "resnext101-resnet152")


def test_how_it_was_trained_does_not_stop_a_test(made: Make, tiny_bert: Path) -> None:
    def change(parts: Parts, opt: dict[str, Any]) -> None:
        opt.update(layer_list=["layer.1", "layer.9", "pooler", 0], frozen=True, disc_type="huge")

    path, _, _ = made(change, disc_type="not-so-weak")
    config = nrccr.load(path, text_model=str(tiny_bert)).config
    assert (config.text.freeze, config.text.trainable_layers) == ("frozen", [1])
    assert config.adversary.discriminator == "not-so-weak"


def spoil(part: int, name: str, value: Any) -> Callable[[Parts, dict[str, Any]], None]:
    """Set or, with None, remove a tensor."""

    def change(parts: Parts, opt: dict[str, Any]) -> None:
        if value is None:
            del parts[part][name]
        else:
            parts[part][name] = value

    return change


def spoil_part(parts: list[Any], opt: dict[str, Any]) -> None:
    parts[4] = [1]


BERT = "module.text_bert.text_bert."
OTHER = "not a published checkpoint of nrccr, mlcmr, c2kd (a list of state dicts"
SPOILED: list[tuple[str, Callable[[Parts, dict[str, Any]], Any], str]] = [
    ("unknown tensor", spoil(0, "module.extra.weight", torch.ones(2)), "unknown tensor extra.weight"),
    ("unknown mapping", spoil(2, "fc2.weight", torch.ones(2)), "unknown tensor fc2.weight"),
    (
        "missing tensor",
        spoil(1, "module.encoder_layer.self.key.bias", None),
        "tensors missing: ['text.block.key.bias']",
    ),
    ("wrong shape", spoil(1, "module.encoder_layer.self.key.bias", torch.ones(3)), "block.key.bias is (3,)"),
    ("missing width", spoil(0, "module.input_proj_layer.net.1.bias", None), "project.linear.bias"),
    ("missing norm", spoil(0, "module.input_proj_layer.LayerNorm.weight", None), ""),
    ("missing words", spoil(1, BERT + "embeddings.word_embeddings.weight", None), ""),
    ("not a tensor", spoil(0, "module.input_proj_layer.net.1.bias", 3), ""),
    ("scalar", spoil(0, "module.input_proj_layer.LayerNorm.weight", torch.tensor(1.0)), ""),
    ("no image run", lambda parts, opt: opt.update(model_type="img"), "lacks the matrix proj.weight"),
    ("other kind", lambda parts, opt: opt.update(model_type="audio"), "only video and img"),
    ("four parts", lambda parts, opt: parts.pop(), OTHER),
    ("not state dicts", spoil_part, OTHER),
    ("heads", lambda parts, opt: opt.update(text_num_attention=7), "text.heads=7"),
]


@pytest.mark.parametrize(("change", "says"), [row[1:] for row in SPOILED], ids=[row[0] for row in SPOILED])
def test_a_checkpoint_that_does_not_fit_is_one_line(made: Make, tiny_bert: Path, change: Any, says: str) -> None:
    path, _, _ = made(change)
    with pytest.raises(UserError) as caught:
        nrccr.load(path, text_model=str(tiny_bert))
    message = str(caught.value)
    assert "\n" not in message and says in message
    assert str(path) in message


@pytest.mark.parametrize(
    ("key", "value"),
    [("hidden_size", 64), ("vocab_size", 30), ("num_hidden_layers", 3), ("max_position_embeddings", 32),
     ("intermediate_size", 128)],
)  # fmt: skip
def test_another_backbone_is_refused(made: Make, tiny_bert: Path, tmp_path: Path, key: str, value: int) -> None:
    path, _, _ = made()
    other = Path(shutil.copytree(tiny_bert, tmp_path / "other"))
    config = json.loads((other / "config.json").read_text()) | {key: value}
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError) as caught:
        nrccr.load(path, text_model=str(other))
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    assert f"{key}=" in message or key == "intermediate_size"


def test_something_else_is_refused(tmp_path: Path, tiny_bert: Path) -> None:
    path = tmp_path / "model_best.pth.tar"
    contents: list[dict[str, Any]] = [{"model": {}}, {"opt": argparse.Namespace(), "model": {"a": torch.ones(1)}}, {}]
    contents.append({"opt": argparse.Namespace(), "model": [{"a": torch.ones(1)}] * 5})
    for content in contents:
        torch.save(content, path)
        with pytest.raises(UserError, match=re.escape(f"{path}: {OTHER}")):
            nrccr.load(path, text_model=str(tiny_bert))


def test_options_of_training_never_stop_a_test(made: Make, tiny_bert: Path) -> None:
    path, _, _ = made(lambda parts, opt: opt.update(margin="wide", batch_size=1, grad_clip=0, back_w=None, frozen="?"))
    assert nrccr.load(path, text_model=str(tiny_bert)).config.loss.margin == 0.2
