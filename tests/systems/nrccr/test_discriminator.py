"""The language discriminator against the published blocks written out."""

from __future__ import annotations

import sys
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from nrccr.models.discriminator import Discriminator, in_a_row

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))
from step import PlainDiscriminator  # noqa: E402

STRENGTHS = ["weak", "not-so-weak", "strong"]


def made(strength: Any, logits: int = 2, pooling: Any = "padded") -> Discriminator:
    torch.manual_seed(0)
    discriminator = Discriminator(32, strength, logits, pooling)
    for parameter in discriminator.parameters():  # large enough for convolutions to matter
        parameter.data *= 2
    return discriminator


def states_and_mask() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(4, 6, 32), torch.arange(6) < torch.tensor([6, 3, 1, 5])[:, None]


@torch.no_grad()
def test_weak_and_not_so_weak_average_their_logits() -> None:
    states, mask = states_and_mask()
    weak, middle = made("weak"), made("not-so-weak")
    linear: Any = weak.classify
    torch.testing.assert_close(weak(states, mask), F.linear(states.mean(1), linear.weight, linear.bias))
    layers: Any = middle.classify
    assert [tuple(layer.weight.shape) for layer in layers[::2]] == [(256, 32), (128, 256), (2, 128)]
    one = [layers[4](layers[2](layers[0](row).tanh()).tanh()) for row in states[1]]
    torch.testing.assert_close(middle(states, mask)[1], torch.stack(one).mean(0))


@torch.no_grad()
def test_strong_is_the_published_block_with_its_relu_in_place() -> None:
    discriminator = made("strong")
    states, mask = states_and_mask()
    hidden = discriminator.reduce(states.transpose(1, 2))
    for block in discriminator.convolutions:
        x = hidden.clone()
        branch = block.second(F.relu(block.first(F.relu(x, inplace=True))))
        hidden = x + 0.3 * branch  # x has become relu(x)
    expected = discriminator.classify(hidden.mean(dim=2))
    torch.testing.assert_close(discriminator(states, mask), expected)
    first: Any = discriminator.convolutions[0]
    assert first.first.weight.shape == (128, 128, 5) and discriminator.reduce.weight.shape == (128, 32, 1)


@pytest.mark.parametrize("pooling", ["padded", "masked"])
@pytest.mark.parametrize("length", [1, 3, 9])  # shorter than a kernel, as long as half of it and longer
@pytest.mark.parametrize("all_stand", [True, False])  # padding too stands in the row, as on other devices than the CPU
def test_captions_in_a_row_equal_padded_ones_with_gradients(
    pooling: Any, length: int, all_stand: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if all_stand:
        monkeypatch.setattr("nrccr.models.discriminator.in_a_row", partial(in_a_row, real_only=False))
    discriminator = made("strong", pooling=pooling).double()
    plain = copy(discriminator)  # of the same weights
    plain.__class__ = PlainDiscriminator
    mask = torch.arange(length) < torch.tensor([length, max(1, length // 2), 0, length])[:, None]
    states = torch.randn(4, length, 32, dtype=torch.float64)
    weights = torch.randn(4, 2, dtype=torch.float64)
    found = []
    for way in (plain, discriminator):
        own = states.clone().requires_grad_()
        logits = way(own, mask)
        found.append([logits, *torch.autograd.grad((logits * weights).sum(), [own, *discriminator.parameters()])])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
        assert one.abs().max() > 0


def test_nothing_but_real_tokens_stands_in_the_row_where_only_they_count() -> None:
    mask = states_and_mask()[1]
    own = {pooling: in_a_row(mask, pooling).own for pooling in ("masked", "padded")}  # type: ignore[arg-type]
    assert own["padded"] is None and torch.equal(own["masked"], mask.flatten().nonzero().squeeze(1))
    assert in_a_row(mask.to("meta"), "masked").own is None  # it would have to be waited for


@pytest.mark.parametrize("rows", [[[0, 1, 1], [1, 1, 1]], [[1, 0, 1], [1, 1, 0]]])
def test_a_caption_not_padded_at_its_end_is_refused(rows: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="padded at their end"):
        made("strong", pooling="masked")(torch.randn(2, 3, 32), torch.tensor(rows))


@torch.no_grad()
@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("logits", [1, 2])
def test_padding_counts_when_padded_and_not_when_masked(strength: str, logits: int) -> None:
    states, mask = states_and_mask()
    longer, longer_mask = F.pad(states, (0, 0, 0, 5), value=3.0), F.pad(mask, (0, 5))
    released = made(strength, logits)
    assert (released(longer, longer_mask) - released(states, mask)).abs().max() > 1e-2
    masked = made(strength, logits, "masked")
    whole = masked(states, mask)
    assert whole.shape == (4, logits)
    torch.testing.assert_close(masked(longer, longer_mask), whole, atol=1e-5, rtol=1e-5)
    for n, length in enumerate(mask.sum(1).tolist()):
        alone = masked(states[n : n + 1, :length], mask[n : n + 1, :length])
        torch.testing.assert_close(alone[0], whole[n], atol=1e-5, rtol=1e-5)
