"""Pre-trained weights: complete ones are loaded, others refused by name, and nothing is printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    BertConfig,
    BertForMaskedLM,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

from nrccr.errors import UserError
from nrccr.models.backbone import backbone_config, build_backbone
from nrccr.models.image import build_image_encoder, image_config

SIZES: dict[str, Any] = {
    "vocab_size": 30, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 40,
}  # fmt: skip
VISION: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 64, "image_size": 16,
    "patch_size": 8,
}  # fmt: skip
TEXT_MODELS = {
    "bert with a head": lambda: BertForMaskedLM(BertConfig(**SIZES)),
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(vocab_size=30, dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=40)
    ),
    "roberta": lambda: RobertaModel(RobertaConfig(**SIZES)),
    "xlm-roberta with a head": lambda: XLMRobertaForMaskedLM(XLMRobertaConfig(**SIZES)),
}
IMAGE_MODELS = {
    "clip": lambda: CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION, projection_dim=24)),
    "whole clip": lambda: CLIPModel(
        CLIPConfig(text_config=SIZES, vision_config=VISION | {"projection_dim": 24}, projection_dim=24)
    ),
    "siglip": lambda: SiglipVisionModel(SiglipVisionConfig(**VISION)),
}


def text_encoder(folder: Path) -> PreTrainedModel:
    return build_backbone(backbone_config(str(folder), {}), pretrained=str(folder))


def image_encoder(folder: Path) -> PreTrainedModel:
    return build_image_encoder(image_config(str(folder)), str(folder))


def without(folder: Path, part: str) -> list[str]:
    """Take the tensors with `part` in their names out of a folder's weights."""
    tensors = load_file(folder / "model.safetensors")
    gone = [name for name in tensors if part in name]
    save_file({name: value for name, value in tensors.items() if name not in gone}, folder / "model.safetensors")
    return gone


@pytest.mark.parametrize("kind", TEXT_MODELS)
def test_complete_weights_are_loaded_without_a_word(kind: str, tmp_path: Path, capfd: Any) -> None:
    whole = TEXT_MODELS[kind]().eval()
    whole.save_pretrained(tmp_path)
    capfd.readouterr()
    encoder = text_encoder(tmp_path)
    ids = torch.tensor([[2, 5, 7, 3]])
    found = encoder(ids).last_hidden_state
    assert torch.equal(found, whole(ids, output_hidden_states=True).hidden_states[-1])
    assert capfd.readouterr() == ("", "")


def test_only_a_pooler_may_be_missing(tmp_path: Path) -> None:
    AutoModel.from_config(BertConfig(**SIZES)).save_pretrained(tmp_path)
    assert without(tmp_path, "pooler")
    text_encoder(tmp_path)
    gone = without(tmp_path, "encoder.layer.1.attention.self.query")
    with pytest.raises(UserError, match=r"lack 2 tensors .*encoder\.layer\.1\.attention\.self\.query") as caught:
        text_encoder(tmp_path)
    assert len(gone) == 2 and "\n" not in str(caught.value) and "text.pretrained=false" in str(caught.value)


@pytest.mark.parametrize("kind", TEXT_MODELS)
def test_weights_of_something_else_are_refused(kind: str, tmp_path: Path) -> None:
    TEXT_MODELS[kind]().save_pretrained(tmp_path)
    save_file({"something.weight": torch.ones(3)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="its weights lack .*embeddings"):
        text_encoder(tmp_path)


def test_weights_of_other_sizes_are_refused(tmp_path: Path) -> None:
    BertForMaskedLM(BertConfig(**SIZES)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    with pytest.raises(UserError, match=r"have other shapes .*encoder\.layer\.0\.intermediate.*\(64,\), not \(48,\)"):
        text_encoder(tmp_path)


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("clip", "visual_projection"),
        ("clip", "layers.0.mlp.fc1"),
        ("whole clip", "vision_model.post_layernorm"),
        ("siglip", "head.probe"),
    ],
)
def test_image_encoders_need_all(kind: str, part: str, tmp_path: Path, capfd: Any) -> None:
    IMAGE_MODELS[kind]().save_pretrained(tmp_path)
    capfd.readouterr()
    image_encoder(tmp_path)
    assert capfd.readouterr() == ("", "")
    assert without(tmp_path, part)
    with pytest.raises(UserError, match=rf"image\.model=.* lack .*{part}.*image\.pretrained=false"):
        image_encoder(tmp_path)


def test_a_damaged_file_of_weights_is_one_line(tmp_path: Path) -> None:
    BertForMaskedLM(BertConfig(**SIZES)).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"text\.model=.*no weights there") as caught:
        text_encoder(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("prefix", ["module.", "module.module.", "_orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("kind", ["bert with a head", "distilbert"])
def test_names_that_wrappers_left_are_read(kind: str, prefix: str, tmp_path: Path) -> None:
    whole = TEXT_MODELS[kind]().eval()
    whole.save_pretrained(tmp_path)
    wrapped = {
        prefix + name.replace(".layer.", "._orig_mod.layer."): value
        for name, value in load_file(tmp_path / "model.safetensors").items()
    }
    assert any("r._orig_mod.layer" in name for name in wrapped)
    save_file(wrapped, tmp_path / "model.safetensors", metadata={"format": "pt"})
    ids = torch.tensor([[2, 5, 7, 3]])
    expected = whole(ids, output_hidden_states=True).hidden_states[-1]
    assert torch.equal(text_encoder(tmp_path)(ids).last_hidden_state, expected)


def test_an_image_encoder_that_was_wrapped_is_read(tmp_path: Path) -> None:
    whole = IMAGE_MODELS["siglip"]().eval()
    whole.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({f"module.{name}": value for name, value in tensors.items()}, tmp_path / "model.safetensors")
    loaded = image_encoder(tmp_path).state_dict()
    assert loaded and all(torch.equal(value, whole.state_dict()[name]) for name, value in loaded.items())
