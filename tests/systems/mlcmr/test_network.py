"""MLCMR's network: the specification in plain loops, what an embedding depends on, and that it learns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from nrccr.data.batch import TextBatch, VideoBatch, ViewBatch
from nrccr.data.sampling import mask_tokens, masked_view
from nrccr.models.backbone import backbone_config, build_backbone
from nrccr.models.levels import MultiLevelVideo
from nrccr.safeload.unpickle import load_weights, save_weights
from nrccr.systems.mlcmr.network import MLCMR
from nrccr.systems.mlcmr.objective import MLCMRObjective
from nrccr.systems.settings import load_config
from nrccr.training.optim import adam
from nrccr.training.task import total

Make = Callable[..., Any]
LARGE = 1e-3  # released embeddings move by more than this when their batch changes
MASK = 4


@pytest.fixture
def make(tiny_config: Any) -> Make:
    """A function of options: a network with random, not trivial, batch statistics and biases, in evaluation mode."""

    def build(**options: Any) -> MLCMR:
        torch.manual_seed(0)
        text = load_config(tiny_config).text
        backbone = build_backbone(backbone_config(text.model, text.backbone), pretrained=None)
        network = MLCMR(backbone, 16, **{"joint": 24, "gru": 10, "maps": 6} | options)
        for mapping in (network.map_text, network.map_visual):
            mapping.norm.running_mean.normal_(std=0.1)
            mapping.norm.running_var.uniform_(0.5, 1.5)
        for convolution in network.visual.convolutions:  # padding alone then answers with the largest value of some map
            nn.init.uniform_(convolution.bias, -1.0, 1.0)
        return network.eval()

    return build


@pytest.fixture
def views(make_batch: Make) -> Make:
    """A function of samples and extra padding: their batch with masked views."""

    def build(samples: Sequence[Any], extra: int = 0, items: Sequence[int] | None = None) -> ViewBatch:
        pairs = make_batch(samples, extra)
        lengths = [[len(sample.source), len(sample.target)] for sample in samples]
        drawn = [
            masked_view(0, 0, item, len(sample.frames), both)
            for item, sample, both in zip(items or range(len(samples)), samples, lengths, strict=True)
        ]
        kept = [
            sample._replace(frames=sample.frames[torch.from_numpy(view.frames)])
            for sample, view in zip(samples, drawn, strict=True)
        ]
        return ViewBatch(
            source=pairs.source,
            target=pairs.target,
            visual=pairs.visual,
            masked_source=mask_tokens(pairs.source, [view.tokens[0] for view in drawn], MASK),
            masked_target=mask_tokens(pairs.target, [view.tokens[1] for view in drawn], MASK),
            masked_visual=make_batch(kept, extra).visual,
            items=pairs.items,
        )

    return build


def mixed(batch: ViewBatch) -> ViewBatch:
    """The batch as the unparallel scenario has it."""
    return replace(batch, target=None, masked_target=None)


def everything(network: MLCMR, batch: ViewBatch) -> dict[str, Tensor]:
    """All embeddings of a batch."""
    assert batch.target is not None
    with torch.no_grad():
        out = network(batch)
    found = {name: value for name, value in vars(out).items() if name != "items"}
    return found | {
        "embedded source": network.embed_text(batch.source),
        "embedded target": network.embed_text(batch.target),
        "embedded visual": network.embed_visual(batch.visual),
    }


def gru_step(gru: nn.GRU, suffix: str, frame: Tensor, state: Tensor) -> Tensor:
    """One step of one direction, written out."""
    by_input = F.linear(frame, getattr(gru, f"weight_ih_l0{suffix}"), getattr(gru, f"bias_ih_l0{suffix}"))
    by_state = F.linear(state, getattr(gru, f"weight_hh_l0{suffix}"), getattr(gru, f"bias_hh_l0{suffix}"))
    (reset_i, update_i, new_i), (reset_s, update_s, new_s) = by_input.chunk(3), by_state.chunk(3)
    update = (update_i + update_s).sigmoid()
    return (1 - update) * (new_i + (reset_i + reset_s).sigmoid() * new_s).tanh() + update * state


def video_by_hand(branch: MultiLevelVideo, frames: Tensor, length: int) -> Tensor:
    """The released reading of one video, its frames (F, D) padded from `length` on."""
    width = len(frames)
    rows: dict[str, dict[int, Tensor]] = {"": {}, "_reverse": {}}
    for suffix, order in (("", range(width)), ("_reverse", reversed(range(width)))):
        state = torch.zeros(branch.gru.hidden_size)
        for place in order:
            state = rows[suffix][place] = gru_step(branch.gru, suffix, frames[place], state)
    states = torch.stack([torch.cat([rows[""][place], rows["_reverse"][place]]) for place in range(width)])
    pooled = states[:length].mean(0)
    states[length:] = 0
    answers = []
    for size, convolution in zip((2, 3, 4, 5), branch.convolutions, strict=True):
        edge = torch.zeros(size - 1, states.shape[1])
        padded = torch.cat([edge, states, edge])
        kernel, bias = convolution.weight, convolution.bias
        windows = [padded[start : start + size] for start in range(width + size - 1)]
        each = [((kernel * window.T).sum((1, 2)) + bias).relu() for window in windows]
        answers.append(torch.stack(each).max(0).values)
    return torch.cat([pooled, *answers, frames[:length].mean(0)])


@torch.no_grad()
def test_video_branch_by_hand(make: Make, samples: list[Any], make_batch: Make) -> None:
    branch, video = make().visual, make_batch(samples, extra=3).visual
    found = branch(video)
    assert found.shape == (len(samples), branch.width) == (7, 2 * 10 + 4 * 6 + 16)
    for row, sample in enumerate(samples):
        torch.testing.assert_close(found[row], video_by_hand(branch, video.frames[row], len(sample.frames)))


@torch.no_grad()
def test_dropout_takes_the_learned_levels_alone(make: Make, samples: list[Any], make_batch: Make) -> None:
    video = make_batch(samples).visual
    whole, nothing = make().visual(video), make(dropout=1.0).visual.train()(video)
    assert not nothing[:, :-16].any() and (whole[:, :20] != 0).any() and (whole[:, 20:-16] != 0).any()
    assert torch.equal(nothing[:, -16:], whole[:, -16:])


@torch.no_grad()
def test_text_branch_is_the_mean_of_the_backbone(make: Make, samples: list[Any], make_batch: Make) -> None:
    text = make_batch(samples, extra=2).target
    for pooling in ("padded", "masked"):
        network = make(pooling=pooling)
        (found,) = network.text([text])
        hidden = network.text.backbone(input_ids=text.tokens, attention_mask=text.mask.long()).last_hidden_state
        for row, sample in enumerate(samples):
            counted = hidden[row] if pooling == "padded" else hidden[row, : len(sample.target)]
            torch.testing.assert_close(found[row], counted.mean(0))


def test_corrected_embeddings_depend_on_nothing_else(make: Make, views: Make, samples: list[Any]) -> None:
    network = make(pooling="masked")
    assert network.independent
    whole, padded = everything(network, views(samples)), everything(network, views(samples, extra=9))
    order = [3, 0, 6, 2, 5, 1, 4]
    shuffled = everything(network, views([samples[i] for i in order], items=order))
    alone = [everything(network, views([sample], items=[item])) for item, sample in enumerate(samples)]
    for name, expected in whole.items():
        torch.testing.assert_close(expected.norm(dim=1), torch.ones(len(samples)), atol=1e-5, rtol=0)
        torch.testing.assert_close(padded[name], expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(shuffled[name], expected[order], atol=1e-5, rtol=0)
        torch.testing.assert_close(torch.cat([one[name] for one in alone]), expected, atol=1e-5, rtol=0)


def test_released_embeddings_depend_on_padding(make: Make, views: Make, samples: list[Any]) -> None:
    network = make()
    assert not network.independent
    whole, padded = everything(network, views(samples)), everything(network, views(samples, extra=9))
    for name, expected in whole.items():
        assert (padded[name] - expected).abs().max() > LARGE, name


def test_readings_agree_where_nothing_is_padded(make: Make, views: Make, samples: list[Any]) -> None:
    for item, sample in enumerate(samples):
        released, corrected = (everything(make(pooling=p), views([sample], items=[item])) for p in ("padded", "masked"))
        for name, expected in released.items():
            torch.testing.assert_close(corrected[name], expected, atol=1e-6, rtol=0)


@torch.no_grad()
def test_the_mean_may_be_of_more_frames_than_the_rest_sees(make: Make, samples: list[Any], make_batch: Make) -> None:
    network, video = make(), make_batch(samples).visual
    mean = torch.randn(len(samples), 16)
    found, own = network.visual(VideoBatch(video.frames, video.mask, mean)), network.visual(video)
    assert torch.equal(found[:, -16:], mean) and torch.equal(found[:, :-16], own[:, :-16])
    assert not torch.equal(
        network.embed_visual(VideoBatch(video.frames, video.mask, mean)), network.embed_visual(video)
    )


@pytest.mark.parametrize("scenario", ["parallel", "unparallel"])
def test_parts_of_like_length_are_the_whole_batch(make: Make, views: Make, samples: list[Any], scenario: Any) -> None:
    """Cut in parts or not, a corrected training batch gives the same losses, statistics and gradients."""
    found = []
    for cuts in ([range(7)], [range(2), range(2, 3), range(3, 7)]):
        network = make(pooling="masked", dropout=0.0)
        network.map_text.train(), network.map_visual.train()
        parts = [views([samples[i] for i in cut], items=[*cut]) for cut in cuts]
        out = network(*(mixed(part) if scenario == "unparallel" else part for part in parts))
        losses = MLCMRObjective(scenario)(out)
        total(losses).backward()
        gradients = {f"gradient {k}": p.grad for k, p in network.named_parameters() if p.grad is not None}
        assert torch.equal(out.items, torch.tensor([sample.item for sample in samples]))
        found.append(losses | gradients | dict(network.named_buffers()))
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, atol=1e-4, rtol=1e-4, msg=name)


def test_every_kind_has_batch_statistics_of_its_own(make: Make, views: Make, samples: list[Any]) -> None:
    network, batch = make(dropout=0.0), views(samples)
    seen: list[Tensor] = []
    for mapping in (network.map_text, network.map_visual):
        mapping.train()
        mapping.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(batch)
        texts = network.text([batch.source, batch.target, batch.masked_source, batch.masked_target])
        expected = [*texts, network.visual(batch.visual), network.visual(batch.masked_visual)]
    assert len(seen) == 6
    for found, wanted in zip(seen, expected, strict=True):
        torch.testing.assert_close(found, wanted)
    seen.clear()
    with torch.no_grad():
        out = network(mixed(batch))
    assert len(seen) == 4 and out.target is None and out.masked_target is None
    torch.testing.assert_close(seen[1], expected[2])


def test_embedding_keeps_the_mode_and_takes_no_gradient(make: Make, views: Make, samples: list[Any]) -> None:
    network, batch = make(dropout=0.5), views(samples)
    expected = network.embed_text(batch.source), network.embed_visual(batch.visual)
    network.train()
    found = network.embed_text(batch.source), network.embed_visual(batch.visual)
    assert network.training and network.visual.training
    for ours, wanted in zip(found, expected, strict=True):
        assert torch.equal(ours, wanted) and not ours.requires_grad


@pytest.mark.parametrize("pooling", ["padded", "masked"])
@pytest.mark.parametrize("scenario", ["parallel", "unparallel"])
def test_it_learns_and_every_weight_has_a_gradient(
    make: Make, views: Make, samples: list[Any], scenario: Any, pooling: str
) -> None:
    torch.manual_seed(0)
    network, objective = make(pooling=pooling, dropout=0.0).train(), MLCMRObjective(scenario, mask_same_item=True)
    batch = views(samples)
    batch = mixed(batch) if scenario == "unparallel" else batch
    optimizer = adam(network, 3e-3)
    history = []
    for _ in range(12):
        loss = total(objective(network(batch)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.5 * history[0]
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("pooling", ["padded", "masked"])
def test_bfloat16_is_near_float32(make: Make, views: Make, samples: list[Any], pooling: str) -> None:
    network, batch = make(pooling=pooling), views(samples)
    with torch.no_grad():
        plain = network(batch)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(batch)
    for name in ("source", "target", "visual", "masked_visual"):
        assert getattr(half, name).dtype == torch.float32
        torch.testing.assert_close(getattr(half, name), getattr(plain, name), atol=0.05, rtol=0)


def test_saved_weights_come_back(make: Make, views: Make, samples: list[Any], tmp_path: Any) -> None:
    network, batch = make(), views(samples)
    save_weights(network.state_dict(), tmp_path / "model.safetensors")
    other = make(dropout=0.1)
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    other.load_state_dict(load_weights(tmp_path / "model.safetensors"))
    for name, expected in everything(network, batch).items():
        assert torch.equal(everything(other, batch)[name], expected)


def test_published_widths_are_the_defaults(make: Make) -> None:
    text = make().text.backbone
    network = MLCMR(text, 1024)
    assert network.visual.width == 1024 + 2048 + 1024 and network.map_visual.linear.weight.shape == (1536, 4096)
    assert network.visual.dropout.p == network.map_text.dropout.p == network.map_visual.dropout.p == 0.2
    assert [tuple(part.weight.shape) for part in network.visual.convolutions] == [
        (512, 1024, size) for size in (2, 3, 4, 5)
    ]
    assert isinstance(network.embed_text(TextBatch(torch.tensor([[2, 3]]), torch.ones(1, 2))), Tensor)
