"""Tiny networks and batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from nrccr.config.schema import Config
from nrccr.data.batch import PairBatch, TextBatch, VideoBatch
from nrccr.models.backbone import backbone_config, build_backbone
from nrccr.systems.nrccr.network import NRCCR, build_nrccr
from nrccr.systems.settings import load_config

FEATURE_WIDTH = 16


class Sample(NamedTuple):
    """One training pair, unpadded: three token lists, frames (F, 16), its item."""

    source: list[int]
    target: list[int]
    back: list[int]
    frames: Tensor
    item: int


MakeNetwork = Callable[..., tuple[Config, NRCCR]]
MakeBatch = Callable[..., PairBatch]


@pytest.fixture
def make_network(tiny_config: Path) -> MakeNetwork:
    """A function of overrides: configuration and network with random, not trivial, batch statistics, in eval mode."""

    def make(*overrides: str) -> tuple[Config, NRCCR]:
        torch.manual_seed(0)
        config = load_config(tiny_config, overrides)
        backbone = build_backbone(backbone_config(config.text.model, config.text.backbone), pretrained=None)
        network = build_nrccr(config, backbone, FEATURE_WIDTH)
        for mapping in (network.map_text, network.map_visual):
            mapping.norm.running_mean.normal_(std=0.1)
            mapping.norm.running_var.uniform_(0.5, 1.5)
        for block in (network.text.block, *network.visual.blocks):  # sharper attention: masks then matter
            block.query.weight.data *= 5
        return config, network.eval()

    return make


@pytest.fixture
def samples() -> list[Sample]:
    """Seven pairs of differing lengths; two of one item."""
    generator = torch.Generator().manual_seed(1)

    def tokens(length: int) -> list[int]:
        return [2, *torch.randint(5, 26, (length,), generator=generator).tolist(), 3]

    lengths = [(1, 6, 3, 1), (4, 2, 5, 7), (7, 3, 1, 2), (2, 2, 2, 3), (5, 1, 6, 5), (3, 5, 4, 1), (6, 4, 2, 6)]
    return [
        Sample(tokens(s), tokens(t), tokens(b), torch.randn(f, FEATURE_WIDTH, generator=generator), min(i, 5))
        for i, (s, t, b, f) in enumerate(lengths)
    ]


def text_batch(rows: Sequence[list[int]], extra: int) -> TextBatch:
    length = max(map(len, rows)) + extra
    tokens = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    mask = torch.tensor([[True] * len(row) + [False] * (length - len(row)) for row in rows])
    return TextBatch(tokens, mask)


@pytest.fixture
def make_batch() -> MakeBatch:
    """A function of samples, and of how many positions to pad beyond the longest."""

    def make(samples: Sequence[Sample], extra: int = 0) -> PairBatch:
        longest = max(len(sample.frames) for sample in samples) + extra
        frames = torch.zeros(len(samples), longest, FEATURE_WIDTH)
        mask = torch.zeros(len(samples), longest, dtype=torch.bool)
        for row, sample in enumerate(samples):
            frames[row, : len(sample.frames)] = sample.frames
            mask[row, : len(sample.frames)] = True
        return PairBatch(
            source=text_batch([sample.source for sample in samples], extra),
            target=text_batch([sample.target for sample in samples], extra),
            back=text_batch([sample.back for sample in samples], extra),
            visual=VideoBatch(frames, mask),
            items=torch.tensor([sample.item for sample in samples]),
        )

    return make
