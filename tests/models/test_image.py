"""The image branch: its formula, where gradients go, and CLIP in OpenAI's names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, SiglipVisionConfig, SiglipVisionModel

from nrccr.data.batch import ImageBatch
from nrccr.errors import UserError
from nrccr.models.image import ImageEncoder, build_image_encoder, encoder_width, image_config
from nrccr.models.openai import visual_config, visual_tensors

SIZES = {
    "hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 24, "patch_size": 8,
}  # fmt: skip
PATH = Path("model.pth.tar")


@pytest.fixture
def clip() -> CLIPVisionModelWithProjection:
    torch.manual_seed(0)
    config = CLIPVisionConfig(**SIZES, projection_dim=20, hidden_act="quick_gelu", layer_norm_eps=1e-5)
    return CLIPVisionModelWithProjection(config).eval()


def in_openai_names(model: CLIPVisionModelWithProjection) -> dict[str, Tensor]:
    """The tensors as OpenAI's code lays them out, with a text half beside them."""
    ours = model.state_dict()
    embeddings = "vision_model.embeddings."
    theirs = {
        "visual.class_embedding": ours[embeddings + "class_embedding"],
        "visual.conv1.weight": ours[embeddings + "patch_embedding.weight"],
        "visual.positional_embedding": ours[embeddings + "position_embedding.weight"],
        "visual.proj": ours["visual_projection.weight"].T,
        "logit_scale": torch.tensor(1.0),
        "token_embedding.weight": torch.ones(3, 4),
    }
    for kind in ("weight", "bias"):
        theirs[f"visual.ln_pre.{kind}"] = ours[f"vision_model.pre_layrnorm.{kind}"]
        theirs[f"visual.ln_post.{kind}"] = ours[f"vision_model.post_layernorm.{kind}"]
        for layer in range(SIZES["num_hidden_layers"]):
            own, block = f"vision_model.encoder.layers.{layer}.", f"visual.transformer.resblocks.{layer}."
            theirs[f"{block}attn.in_proj_{kind}"] = torch.cat(
                [ours[f"{own}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            )
            theirs[f"{block}attn.out_proj.{kind}"] = ours[f"{own}self_attn.out_proj.{kind}"]
            theirs[f"{block}ln_1.{kind}"] = ours[f"{own}layer_norm1.{kind}"]
            theirs[f"{block}ln_2.{kind}"] = ours[f"{own}layer_norm2.{kind}"]
            theirs[f"{block}mlp.c_fc.{kind}"] = ours[f"{own}mlp.fc1.{kind}"]
            theirs[f"{block}mlp.c_proj.{kind}"] = ours[f"{own}mlp.fc2.{kind}"]
    return theirs


def test_vectors_are_linear_and_relu() -> None:
    encoder = ImageEncoder(3, 2)
    vectors = torch.randn(4, 3)
    weight, bias = encoder.linear.weight.detach(), encoder.linear.bias.detach()
    wanted = [[max(0.0, float(weight[j] @ row + bias[j])) for j in range(2)] for row in vectors]
    assert torch.allclose(encoder(ImageBatch(vectors)), torch.tensor(wanted), atol=1e-6)


def test_clip_has_no_activation_and_takes_its_own_vectors(clip: CLIPVisionModelWithProjection) -> None:
    encoder = ImageEncoder(encoder_width(clip), 6, clip)
    pixels = torch.randn(3, 3, 24, 24)
    vectors = clip(pixel_values=pixels).image_embeds
    assert vectors.shape == (3, 20)
    found = encoder(ImageBatch(pixels))
    assert torch.allclose(found, vectors @ encoder.linear.weight.T + encoder.linear.bias, atol=1e-6)
    assert torch.allclose(found, encoder(ImageBatch(vectors)), atol=1e-6)
    assert (found < 0).any(), "no ReLU"


@pytest.mark.parametrize("trainable", [False, True])
def test_gradients_reach_the_encoder_only_if_it_trains(clip: CLIPVisionModelWithProjection, trainable: bool) -> None:
    encoder = ImageEncoder(20, 6, clip, trainable=trainable).train()
    assert clip.training is trainable
    encoder(ImageBatch(torch.randn(2, 3, 24, 24))).square().sum().backward()
    assert encoder.linear.weight.grad is not None
    grads = [parameter.grad is not None for parameter in clip.parameters()]
    assert all(grads) if trainable else not any(grads)


def test_siglip(tmp_path: Path) -> None:
    config = SiglipVisionConfig(**SIZES)
    SiglipVisionModel(config).save_pretrained(tmp_path)
    encoder = build_image_encoder(image_config(str(tmp_path)), str(tmp_path))
    pixels = torch.randn(2, 3, 24, 24)
    visual = ImageEncoder(encoder_width(encoder), 6, encoder)
    assert torch.allclose(visual.encode(pixels), encoder(pixel_values=pixels).pooler_output)
    assert visual.feature_width == 128


def test_pretrained_weights_come_from_the_folder(clip: CLIPVisionModelWithProjection, tmp_path: Path) -> None:
    clip.save_pretrained(tmp_path)
    config = image_config(str(tmp_path))
    loaded, fresh = build_image_encoder(config, str(tmp_path)).eval(), build_image_encoder(config, None).eval()
    pixels = torch.randn(2, 3, 24, 24)
    wanted = clip(pixel_values=pixels).image_embeds
    assert torch.allclose(loaded(pixel_values=pixels).image_embeds, wanted, atol=1e-6)
    assert not torch.allclose(fresh(pixel_values=pixels).image_embeds, wanted, atol=1e-3)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights there") as caught:
        build_image_encoder(config, str(tmp_path))
    assert "\n" not in str(caught.value)


def test_openai_names_round_trip(clip: CLIPVisionModelWithProjection) -> None:
    tensors = visual_tensors({key: value.half() for key, value in in_openai_names(clip).items()}, PATH)
    config = visual_config(tensors, PATH)
    for key, value in (SIZES | {"projection_dim": 20, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}).items():
        assert getattr(config, key) == value, key
    ours = CLIPVisionModelWithProjection(config).eval()
    ours.load_state_dict(visual_tensors(in_openai_names(clip), PATH))
    pixels = torch.randn(2, 3, 24, 24)
    assert torch.equal(ours(pixel_values=pixels).image_embeds, clip(pixel_values=pixels).image_embeds)
    assert {value.dtype for value in tensors.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("visual.layer1.0.conv1.weight", torch.ones(2, 2), "only CLIP's visual transformers"),
        ("visual.transformer.resblocks.0.attn.in_proj_bias", torch.ones(4), "not three times a width"),
        ("visual.positional_embedding", torch.ones(8, 128), "7 positions"),
        ("visual.proj", None, "visual_projection.weight"),
    ],
)
def test_what_is_no_clip_is_one_line(
    clip: CLIPVisionModelWithProjection, name: str, value: Tensor | None, says: str
) -> None:
    theirs = in_openai_names(clip)
    if value is None:
        del theirs[name]
    else:
        theirs[name] = value
    with pytest.raises(UserError) as caught:
        visual_config(visual_tensors(theirs, PATH), PATH)
    assert str(caught.value).startswith(f"{PATH}: ") and says in str(caught.value) and "\n" not in str(caught.value)


def test_other_models_are_refused(tiny_bert: Path) -> None:
    with pytest.raises(UserError, match="a bert model; give one of clip"):
        image_config(str(tiny_bert))
