"""The whole network: what its mappings see, what an embedding depends on, what is left out and what is saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nrccr.safeload.unpickle import load_weights, save_weights
from nrccr.systems.nrccr.network import NRCCR, build_discriminator
from nrccr.systems.nrccr.objective import NRCCRObjective
from nrccr.training.task import total

Make = Callable[..., Any]
LARGE = 1e-3  # released embeddings move by more than this when their batch changes


def everything(network: NRCCR, batch: Any) -> dict[str, Tensor]:
    """All embeddings of a batch."""
    with torch.no_grad():
        out = network(batch)
    assert out.teacher is not None and out.back is not None
    return {
        "text": network.embed_text(batch.source),
        "query": network.embed_text(batch.target),
        "video": network.embed_visual(batch.visual),
        "source": out.source,
        "target": out.target,
        "visual": out.visual,
        "teacher": out.teacher,
        "back": out.back,
    }


@pytest.mark.parametrize("overrides", [[], ["visual.layers=3"], ["switches.teacher=cross"], ["text.freeze=all_frozen"]])
def test_corrected_embeddings_depend_on_nothing_else(
    make_network: Make, make_batch: Make, samples: list[Any], overrides: list[str]
) -> None:
    _, network = make_network("reading=corrected", *overrides)
    assert network.independent
    whole = everything(network, make_batch(samples))
    padded = everything(network, make_batch(samples, extra=9))
    order = [3, 0, 6, 2, 5, 1, 4]
    shuffled = everything(network, make_batch([samples[i] for i in order]))
    alone = [everything(network, make_batch([sample])) for sample in samples]
    for name, expected in whole.items():
        assert torch.allclose(expected.norm(dim=1), torch.ones(len(samples)), atol=1e-5)
        torch.testing.assert_close(padded[name], expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(shuffled[name], expected[order], atol=1e-5, rtol=0)
        torch.testing.assert_close(torch.cat([one[name] for one in alone]), expected, atol=1e-5, rtol=0)


def test_released_embeddings_depend_on_padding(make_network: Make, make_batch: Make, samples: list[Any]) -> None:
    _, network = make_network("reading=released")
    assert not network.independent
    whole, padded = everything(network, make_batch(samples)), everything(network, make_batch(samples, extra=9))
    for name, expected in whole.items():
        assert (padded[name] - expected).abs().max() > LARGE, name


@pytest.mark.parametrize("switch", ["switches.pooling=padded", "switches.attention_mask=outer"])
def test_either_switch_alone_is_not_independence(make_network: Make, switch: str) -> None:
    _, network = make_network("reading=corrected", switch)
    assert not network.independent


def test_parts_of_like_length_are_the_whole_batch(make_network: Make, make_batch: Make, samples: list[Any]) -> None:
    """Cut in parts or not, a corrected training batch gives the same embeddings, statistics and gradients."""
    found = []
    for cuts in ([samples], [samples[:2], samples[2:3], samples[3:]]):
        config, network = make_network("reading=corrected")
        network.map_text.train(), network.map_visual.train()
        network.map_text.dropout.p = network.map_visual.dropout.p = 0.0
        discriminator = build_discriminator(config, 32)
        assert discriminator is not None
        torch.manual_seed(7)
        for parameter in discriminator.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        objective = NRCCRObjective(config)
        out = network(*map(make_batch, cuts))
        report = objective.discriminate(out, discriminator)
        losses = objective(out, discriminator)
        total(losses).backward()
        gradients = {f"gradient {k}": p.grad for k, p in network.named_parameters() if p.grad is not None}
        found.append(losses | report | gradients | dict(network.named_buffers()) | {"items": out.items})
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, atol=2e-5, rtol=1e-4, msg=name)


def test_text_mapping_sees_source_target_teacher_back(make_network: Make, make_batch: Make, samples: list[Any]) -> None:
    _, network = make_network("joint.dropout=0")
    network.map_text.train()  # the rest stays without dropout
    pairs, text = make_batch(samples), network.text
    seen: list[Tensor] = []
    network.map_text.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    mean, variance = network.map_text.norm.running_mean.clone(), network.map_text.norm.running_var.clone()
    with torch.no_grad():
        network(pairs)
        captions = [pairs.source, pairs.target, pairs.back]
        hidden = [text.project(states) for states in text.states(captions)]
        heads = [text.block.heads_of(states) for states in hidden]
        source, target, back = (
            text.block(states, caption.mask).mean(1) for states, caption in zip(hidden, captions, strict=True)
        )
        teacher = text.teach(heads[0], pairs.source.mask, heads[1], pairs.target.mask, hidden[1])
        expected = [source, target, teacher, back]
        assert len(seen) == 4
        for found, wanted in zip(seen, expected, strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
        for vectors in expected:
            mapped = network.map_text.linear(vectors)
            mean = 0.9 * mean + 0.1 * mapped.mean(0)
            variance = 0.9 * variance + 0.1 * mapped.var(0)
    torch.testing.assert_close(network.map_text.norm.running_mean, mean, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(network.map_text.norm.running_var, variance, atol=1e-6, rtol=1e-5)
    assert network.map_text.norm.num_batches_tracked == 4


def test_basic_model_has_no_teacher_no_back_no_discriminator_and_trains(
    make_network: Make, make_batch: Make, samples: list[Any]
) -> None:
    config, network = make_network("loss.similarity=0", "loss.feature=0", "loss.cycle=0", "loss.adversary=0")
    network.train()
    assert build_discriminator(config, 32) is None
    out = network(make_batch(samples))
    assert out.teacher is None and out.back is None
    assert network.map_text.norm.num_batches_tracked == 2
    losses = NRCCRObjective(config)(out, None)
    assert set(losses) == {"source_loss", "target_loss"}
    total(losses).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name


@pytest.mark.parametrize(("weight", "teacher", "back"), [("similarity", 1, 0), ("feature", 1, 0), ("cycle", 0, 1)])
def test_a_branch_stays_where_one_loss_needs_it(make_network: Make, weight: str, teacher: int, back: int) -> None:
    zeros = [f"loss.{name}=0" for name in ("similarity", "feature", "cycle", "adversary") if name != weight]
    _, network = make_network(*zeros)
    assert (network.with_teacher, network.with_back) == (bool(teacher), bool(back))


def test_embedding_leaves_the_mode_as_it_was_and_makes_no_graph(
    make_network: Make, make_batch: Make, samples: list[Any]
) -> None:
    _, network = make_network()
    pairs = make_batch(samples)
    quiet = network.embed_text(pairs.target), network.embed_visual(pairs.visual)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network.train()
    while_training = network.embed_text(pairs.target), network.embed_visual(pairs.visual)
    assert network.training and network.text.block.training
    for one, other in zip(quiet, while_training, strict=True):
        assert torch.equal(one, other) and not other.requires_grad
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())


def test_more_visual_layers_are_trained_saved_and_loaded(
    make_network: Make, make_batch: Make, samples: list[Any], tmp_path: Path
) -> None:
    config, network = make_network("visual.layers=3", "loss.adversary=0")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=1e-2)
    pairs = make_batch(samples)
    total(NRCCRObjective(config)(network(pairs), None)).backward()
    optimizer.step()
    state = network.state_dict()
    for layer in range(3):
        for part in ("query.weight", "key.weight", "value.weight", "output.weight", "norm.weight"):
            name = f"visual.blocks.{layer}.{part}"
            assert not torch.equal(state[name], before[name]), name
    save_weights(state, tmp_path / "w.safetensors")
    _, other = make_network("visual.layers=3")
    assert not torch.equal(other.embed_visual(pairs.visual), network.embed_visual(pairs.visual))
    other.load_state_dict(load_weights(tmp_path / "w.safetensors"))
    assert torch.equal(other.embed_visual(pairs.visual), network.embed_visual(pairs.visual))


def test_adversary_reading_decides_the_logits(make_network: Make) -> None:
    for reading, logits in (("released", 2), ("corrected", 2), ("paper", 1)):
        config, _ = make_network(f"reading={reading}", "adversary.discriminator=weak")
        discriminator = build_discriminator(config, 32)
        assert discriminator is not None
        assert discriminator(torch.randn(3, 4, 32), torch.ones(3, 4)).shape == (3, logits)
        assert discriminator.pooling == ("padded" if reading == "released" else "masked")
