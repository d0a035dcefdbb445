"""Frames of a video -> one vector.

N videos in the batch, F frames, D feature width, W width of the branch.
"""

from __future__ import annotations

from torch import Tensor, nn

from nrccr.config.choices import AttentionMask, AttentionScale, Pooling
from nrccr.config.limits import FRAME_POSITIONS
from nrccr.data.batch import VideoBatch
from nrccr.models.attention import AttentionBlock, Projection
from nrccr.models.layers import mean_over_positions


class VideoEncoder(nn.Module):
    """The paper's visual encoder (section 3.2): projection, attention over frames, mean over positions.

    Args:
        features: width D of the frame features.
        width: width W of the branch.
        heads: attention heads.
        layers: attention blocks, one in the published models.
        mask, scale, feed_forward: the reading of the blocks, see AttentionBlock.
        pooling: "padded" (released: padded frames count, as zero vectors that pass through every layer) or "masked".
    """

    def __init__(
        self,
        features: int,
        width: int,
        heads: int,
        layers: int,
        *,
        mask: AttentionMask = "outer",
        scale: AttentionScale = "value_width",
        feed_forward: bool = False,
        pooling: Pooling = "padded",
    ) -> None:
        super().__init__()
        self.width = width
        self.pooling = pooling
        self.project = Projection(features, width, FRAME_POSITIONS)
        self.blocks = nn.ModuleList(
            AttentionBlock(width, heads, mask=mask, scale=scale, feed_forward=feed_forward) for _ in range(layers)
        )

    @property
    def feature_width(self) -> int:
        """Width D of the frame features it takes."""
        return self.project.linear.in_features

    def forward(self, video: VideoBatch) -> Tensor:
        """Videos -> (N, W)."""
        hidden = self.project(video.frames)  # (N, F, W)
        for block in self.blocks:
            hidden = block(hidden, video.mask)
        return mean_over_positions(hidden, video.mask, self.pooling)  # (N, W)
