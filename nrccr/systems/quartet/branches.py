"""Quartet's branches: captions of any language to one vector, videos by one encoder or several.

n captions, L tokens, H backbone width, W width of the text branch, N videos.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from nrccr.data.batch import VideoBatch
from nrccr.models.layers import mean_over_positions
from nrccr.models.levels import MeanVideo, MultiLevelVideo
from nrccr.models.text import TextEncoder
from nrccr.models.video import VideoEncoder
from nrccr.systems.quartet.settings import TextPooling

VideoPart: TypeAlias = MeanVideo | MultiLevelVideo | VideoEncoder


class PooledText(nn.Module):
    """Captions -> one of the backbone's states or their mean."""

    def __init__(self, backbone: PreTrainedModel, pooling: TextPooling) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.width = int(backbone.config.hidden_size)

    def pool_states(self, states: Tensor, mask: Tensor) -> Tensor:
        """Backbone states (n, L, H) -> (n, H)."""
        return states[:, 0] if self.pooling == "first" else mean_over_positions(states, mask, "masked")


class AttendedText(TextEncoder):
    """NRCCR's text branch: a transformer block over the backbone's states, and the cross-attention teacher."""

    def pool_states(self, states: Tensor, mask: Tensor) -> Tensor:
        """Backbone states (n, L, H) -> (n, W)."""
        return self.pool(self.project(states), mask)

    def teach_states(self, source: Tensor, source_mask: Tensor, target: Tensor, target_mask: Tensor) -> Tensor:
        """The teacher's vectors (n, W) of captions and their translations, from backbone states."""
        hidden = [self.project(states) for states in (source, target)]  # (n, S, W), (n, T, W)
        heads = [self.block.heads_of(part) for part in hidden]
        return self.teach(heads[0], source_mask, heads[1], target_mask, hidden[1])


class JoinedVideo(nn.Module):
    """Several encoders of the same video side by side."""

    def __init__(self, parts: list[VideoPart]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.width = sum(part.width for part in parts)
        self.feature_width = parts[0].feature_width

    def forward(self, video: VideoBatch) -> Tensor:
        """Videos -> (N, the widths of all)."""
        return torch.cat([part(video) for part in self.parts], dim=1)
