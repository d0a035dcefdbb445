"""The text branch: the shared backbone, what of it trains, pooling and the teacher."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nrccr.errors import UserError
from nrccr.models.backbone import backbone_config, build_backbone, freeze_backbone

SMALL = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}


@pytest.fixture
def twelve_layers(tiny_bert: Path) -> nn.Module:
    return build_backbone(backbone_config(str(tiny_bert), SMALL | {"num_hidden_layers": 12}), pretrained=None)


def trained(backbone: nn.Module) -> set[str]:
    return {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}


def test_frozen_trains_exactly_the_named_layers(twelve_layers: nn.Module) -> None:
    names = {name for name, _ in twelve_layers.named_parameters()}
    freeze_backbone(twelve_layers, "frozen", [1])
    assert trained(twelve_layers) == {name for name in names if name.startswith("encoder.layer.1.")}
    freeze_backbone(twelve_layers, "frozen", [5, 6, 7, 8, 9, 10, 11])
    expected = {name for name in names for layer in range(5, 12) if name.startswith(f"encoder.layer.{layer}.")}
    assert trained(twelve_layers) == expected
    assert not any("embeddings" in name for name in expected) and not any("pooler" in name for name in names)


def test_all_frozen_and_none(twelve_layers: nn.Module) -> None:
    freeze_backbone(twelve_layers, "none", [1])
    assert trained(twelve_layers) == {name for name, _ in twelve_layers.named_parameters()}
    freeze_backbone(twelve_layers, "all_frozen", [1])
    assert trained(twelve_layers) == set()


@pytest.mark.parametrize("layer", [12, -1])
def test_a_layer_that_is_not_there_is_refused(twelve_layers: nn.Module, layer: int) -> None:
    with pytest.raises(UserError, match=f"layer {layer} does not exist, the backbone has layers 0 to 11"):
        freeze_backbone(twelve_layers, "frozen", [3, layer])


def test_branch_trains_beside_a_frozen_backbone(make_network: Callable[..., Any]) -> None:
    _, network = make_network("text.freeze=frozen", "text.trainable_layers=[1]")
    trains = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    frozen = {name for name, _ in network.named_parameters()} - trains
    assert frozen == {
        name for name, _ in network.named_parameters()
        if name.startswith(("text.backbone.embeddings.", "text.backbone.encoder.layer.0."))
    }  # fmt: skip


def test_backbone_errors(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"text\.backbone\.hiden_size"):
        backbone_config(str(tiny_bert), {"hiden_size": 3})
    with pytest.raises(UserError, match="no configuration there"):
        backbone_config(str(tmp_path), {})
    with pytest.raises(UserError, match=r"no weights there.*text\.pretrained=false"):
        build_backbone(backbone_config(str(tiny_bert), {}), pretrained=str(tiny_bert))


@torch.no_grad()
def test_states_are_the_backbones_own(make_network: Callable[..., Any], samples: Any, make_batch: Any) -> None:
    _, network = make_network()
    pairs = make_batch(samples)
    texts = [pairs.source, pairs.target, pairs.back]
    for text, states in zip(texts, network.text.states(texts), strict=True):
        expected = network.text.backbone(
            input_ids=text.tokens, attention_mask=text.mask.long(), token_type_ids=torch.zeros_like(text.tokens)
        ).last_hidden_state
        torch.testing.assert_close(states, expected)


def test_gradients_of_shared_embeddings_are_those_of_separate_look_ups(
    make_network: Callable[..., Any], samples: Any, make_batch: Any
) -> None:
    _, network = make_network()
    pairs = make_batch(samples)
    table = network.text.backbone.get_input_embeddings().weight
    together = sum(states.square().sum() for states in network.text.states([pairs.source, pairs.target]))
    apart = sum(network.text.states([text])[0].square().sum() for text in (pairs.source, pairs.target))
    assert isinstance(together, torch.Tensor) and isinstance(apart, torch.Tensor)
    (first,), (second,) = torch.autograd.grad(together, table), torch.autograd.grad(apart, table)
    torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["padded", "masked"])
@pytest.mark.parametrize("teacher", ["cross_and_target", "cross"])
def test_teacher_vector(
    make_network: Callable[..., Any], samples: Any, make_batch: Any, pooling: str, teacher: str
) -> None:
    _, network = make_network(f"switches.pooling={pooling}", f"switches.teacher={teacher}")
    text, pairs = network.text, make_batch(samples)
    states = text.states([pairs.source, pairs.target])
    source, target = (text.project(part) for part in states)
    heads = [text.block.heads_of(part) for part in (source, target)]
    taught = text.teach(heads[0], pairs.source.mask, heads[1], pairs.target.mask, target)
    cross = text.block.cross(heads[0], pairs.source.mask, heads[1], pairs.target.mask)
    for n in range(len(samples)):
        rows = list(cross[n]) if pooling == "padded" else list(cross[n][pairs.source.mask[n]])
        if teacher == "cross_and_target":  # the block's input of the target stands beside the cross output
            rows += list(target[n]) if pooling == "padded" else list(target[n][pairs.target.mask[n]])
        torch.testing.assert_close(taught[n], torch.stack(rows).mean(0), atol=1e-5, rtol=1e-5)


def test_a_backbone_is_float32_whatever_its_folder_says(tiny_bert: Path, tmp_path: Path) -> None:
    config = json.loads((tiny_bert / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"dtype": "float16"}))
    backbone = build_backbone(backbone_config(str(tmp_path), {}), pretrained=None)
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.float32}


@pytest.mark.parametrize("key", ["hidden_size", "num_attention_heads", "hidden_act"])
def test_backbone_values_that_make_no_encoder(tiny_bert: Path, key: str) -> None:
    for value in ("abc", -4, 0, 5):
        with pytest.raises(UserError) as caught:
            build_backbone(backbone_config(str(tiny_bert), {key: value}), pretrained=None)
        assert "text.backbone" in str(caught.value) and "\n" not in str(caught.value)
