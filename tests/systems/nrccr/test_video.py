"""The visual branch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nrccr.data.batch import VideoBatch
from nrccr.models.video import VideoEncoder


def clips() -> VideoBatch:
    torch.manual_seed(0)
    mask = torch.arange(6) < torch.tensor([6, 2, 4])[:, None]
    return VideoBatch(torch.randn(3, 6, 5) * mask.unsqueeze(-1), mask)


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["padded", "masked"])
def test_layers_follow_each_other_and_the_mean_comes_last(pooling: Any) -> None:
    torch.manual_seed(1)
    encoder = VideoEncoder(5, 16, 4, layers=3, pooling=pooling).eval()
    video = clips()
    hidden = encoder.project(video.frames)
    for block in encoder.blocks:
        hidden = block(hidden, video.mask)
    for n in range(3):
        counted = hidden[n] if pooling == "padded" else hidden[n][video.mask[n]]
        torch.testing.assert_close(encoder(video)[n], counted.mean(0))
    assert len(encoder.blocks) == 3


def test_every_layer_has_weights_of_its_own_that_train() -> None:
    encoder = VideoEncoder(5, 16, 4, layers=3).eval()
    encoder(clips()).square().sum().backward()
    values = [block.value.weight for block in encoder.blocks]
    assert len({value.data_ptr() for value in values}) == 3
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in values)


@torch.no_grad()
def test_reading_reaches_every_block() -> None:
    encoder = VideoEncoder(5, 16, 4, layers=2, mask="key", scale="key_width", feed_forward=True)
    for block in encoder.blocks:
        assert block.mask == "key" and block.scale == (512 / 4) ** 0.5 and block.feed_forward is not None


@torch.no_grad()
def test_eighty_frames_are_the_most() -> None:
    encoder = VideoEncoder(5, 16, 4, layers=1).eval()
    assert encoder.project.positions.num_embeddings == 80
    assert encoder(VideoBatch(torch.zeros(1, 80, 5), torch.ones(1, 80))).shape == (1, 16)
