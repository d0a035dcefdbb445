"""Captions -> vectors: the shared multilingual backbone and the attention over its states.

N captions in the batch, L tokens, S and T tokens of source and target, H backbone width, W width of the branch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from nrccr.config.choices import AttentionMask, AttentionScale, Pooling, TeacherKind
from nrccr.config.limits import TEXT_POSITIONS
from nrccr.data.batch import TextBatch
from nrccr.models.attention import AttentionBlock, Heads, Projection
from nrccr.models.backbone import backbone_states
from nrccr.models.layers import mean_over_positions


class TextEncoder(nn.Module):
    """Backbone, token path and the one transformer block of source, target, back and cross (section 3.2)."""

    def __init__(
        self,
        backbone: PreTrainedModel,
        width: int,
        heads: int,
        *,
        mask: AttentionMask = "outer",
        scale: AttentionScale = "value_width",
        feed_forward: bool = False,
        pooling: Pooling = "padded",
        teacher: TeacherKind = "cross_and_target",
    ) -> None:
        super().__init__()
        self.width = width
        self.pooling = pooling
        self.teacher = teacher
        self.real_only = mask == "key" and pooling == "masked"  # nothing reads states at padding
        self.backbone = backbone
        self.project = Projection(int(backbone.config.hidden_size), width, TEXT_POSITIONS)
        self.block = AttentionBlock(width, heads, mask=mask, scale=scale, feed_forward=feed_forward)

    def states(self, texts: Sequence[TextBatch]) -> list[Tensor]:
        """Backbone states m (N, L, H) of several batches; zeros at padding where nothing reads it."""
        return backbone_states(self.backbone, texts, real_only=self.real_only)

    def pool(self, hidden: Tensor, mask: Tensor, heads: Heads | None = None) -> Tensor:
        """c: mean over positions of block(x, x); token path states (N, L, W) -> (N, W)."""
        attended = self.block.attend(hidden, mask, heads if heads is not None else self.block.heads_of(hidden))
        return mean_over_positions(attended, mask, self.pooling)

    def teach(self, source: Heads, source_mask: Tensor, target: Heads, target_mask: Tensor, states: Tensor) -> Tensor:
        """The teacher's vector: source of S tokens attends to target of T tokens -> (N, W) (section 3.3.1).

        Released: the mean over the cross output (N, S, W) and the block's input of the target, `states` (N, T, W), side
        by side; paper: over the cross output alone.
        """
        cross = self.block.cross(source, source_mask, target, target_mask)  # (N, S, W)
        if self.teacher == "cross":
            return mean_over_positions(cross, source_mask, self.pooling)
        both = torch.cat([cross, states], dim=1)  # (N, S + T, W)
        return mean_over_positions(both, torch.cat([source_mask, target_mask], dim=1), self.pooling)
