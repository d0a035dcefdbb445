"""C2KD's network, student and teachers alike: two encoders compared by cosine, without the losses.

N videos or captions in the batch, L tokens, F frames, H backbone width, W width of the video branch, D joint-space
width. The encoder of the text branch is an argument; everything else is the same in all experiments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from nrccr.config.choices import PoolMask
from nrccr.config.schema import Config
from nrccr.data.batch import PooledTextBatch, TensorRecord, TextBatch, VideoBatch, VisualBatch
from nrccr.models.backbone import backbone_states, freeze_backbone
from nrccr.models.fast import use_fast_layers
from nrccr.models.layers import evaluating, mean_over_positions, unit
from nrccr.models.packing import attention_mask
from nrccr.processes import gather, rows_before, world
from nrccr.systems.c2kd.batch import MultilingualBatch

NORM_EPS = 1e-6


class GatedUnit(nn.Module):
    """y = Wx + b, then y * sigmoid(Vy + c)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, width)
        self.gate = nn.Linear(width, width)

    def forward(self, states: Tensor) -> Tensor:
        """States (..., inputs) -> (..., width)."""
        mapped: Tensor = self.linear(states)
        gate: Tensor = self.gate(mapped).sigmoid()
        return mapped * gate


class TextBranch(nn.Module):
    """Bare encoder -> mean over tokens -> LayerNorm -> gated unit. No pooler, no sentence-transformers head.

    Args:
        backbone: any transformers encoder; all of it trains.
        joint: width D of the joint space.
        pool_mask: which positions the mean covers. "labse" (released): those of LaBSE's tokens of the same caption,
            whatever encoder it is; batches are then PooledTextBatch. "own" (corrected): the encoder's own tokens. For
            LaBSE itself both are the same.
    """

    def __init__(self, backbone: PreTrainedModel, joint: int, pool_mask: PoolMask) -> None:
        super().__init__()
        if pool_mask not in ("labse", "own"):
            raise ValueError(f"pool_mask is {pool_mask!r}: choose labse or own")
        width = int(backbone.config.hidden_size)
        self.pool_mask = pool_mask
        self.backbone = backbone
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.project = GatedUnit(width, joint)

    def forward(self, text: TextBatch) -> Tensor:
        """Captions -> (N, D), of any length.

        Raises:
            ValueError: the reading needs LaBSE's mask and the batch has none.
        """
        return self._project(self._pool([text]))

    def in_parts(self, texts: Sequence[TextBatch], places: Tensor) -> Tensor:
        """Captions in parts of like length -> (N, D) as `forward`, `places` (N,) being where in the parts each is.

        Several parts have one dense gradient of the word vectors, see backbone_states.
        """
        return self._project(self._pool(texts)[places])

    def _pool(self, texts: Sequence[TextBatch]) -> Tensor:
        """The means (all n, H) of several batches, one after the other."""
        means = zip(self._states(texts), texts, strict=True)
        return torch.cat([mean_over_positions(states, self.positions(text), "masked") for states, text in means])

    def _states(self, texts: Sequence[TextBatch]) -> list[Tensor]:
        """The encoder's states (n, L, H) of several batches."""
        if self.pool_mask == "own":
            return backbone_states(self.backbone, texts, real_only=True)
        # LaBSE's mask may cover padding. Ids, not word vectors: from vectors XLM-R would count it as positions.
        return [
            self.backbone(
                input_ids=text.tokens, attention_mask=attention_mask(self.backbone, text.mask)
            ).last_hidden_state
            for text in texts
        ]

    def _project(self, pooled: Tensor) -> Tensor:
        """Means (N, H) -> (N, D)."""
        projected: Tensor = self.project(self.norm(pooled))
        return projected

    def positions(self, text: TextBatch) -> Tensor:
        """The mask (N, L) of the positions that count in the mean."""
        if self.pool_mask == "own":
            return text.mask
        if not isinstance(text, PooledTextBatch):
            raise ValueError("pool_mask is labse: give a PooledTextBatch with LaBSE's mask of the same captions")
        return text.pool


class TransformerBlock(nn.Module):
    """A pre-norm transformer block: attention, then an MLP as wide as its input, both with residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """States (N, F, W), mask (N, F) true at real positions -> (N, F, W)."""
        states = states + self._attend(self.attention_norm(states), mask)
        mixed: Tensor = self.outer(functional.gelu(self.inner(self.mlp_norm(states))))
        return states + mixed

    def _attend(self, states: Tensor, mask: Tensor) -> Tensor:
        count, frames, width = states.shape
        parts = self.query_key_value(states).reshape(count, frames, 3, self.heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each (N, heads, F, W / heads)
        # The usual scale, (W / heads) ** -0.5; hidden keys get -inf.
        context = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])
        attended: Tensor = self.output(context.transpose(1, 2).reshape(count, frames, width))
        return attended


class VideoBranch(nn.Module):
    """Frames -> gated unit -> LayerNorm -> blocks over [CLS, frames] -> gated unit of the CLS. No positions.

    Args:
        features: width of the frame features.
        joint: width D of the joint space.
        width: width W of the branch.
        heads: attention heads.
        layers: blocks.
    """

    def __init__(self, features: int, joint: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.embed = GatedUnit(features, width)
        self.embed_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.cls = nn.Parameter(torch.empty(width))
        self.nothing = nn.Parameter(torch.empty(width))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads) for _ in range(layers))
        self.project = GatedUnit(width, joint)
        for token in (self.cls, self.nothing):
            nn.init.trunc_normal_(token, std=0.02)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, visual: VisualBatch) -> Tensor:
        """Videos -> (N, D), of any length. A video without frames is one learned vector, an image a single frame."""
        video = as_video(visual)
        frames = functional.normalize(video.frames, dim=-1)  # (N, F, features); rows of zeros stay
        hidden = self.embed_norm(self.embed(frames))  # (N, F, W)
        mask = video.mask.bool()  # (N, F)
        first = torch.arange(mask.shape[1], device=mask.device) == 0  # (F,)
        replaced = ~mask.any(dim=1, keepdim=True) & first  # (N, F)
        hidden = torch.where(replaced.unsqueeze(-1), self.nothing.to(hidden.dtype), hidden)
        hidden = torch.cat([self.cls.to(hidden.dtype).expand(len(hidden), 1, -1), hidden], dim=1)  # (N, 1 + F, W)
        mask = functional.pad(mask | replaced, (1, 0), value=True)  # (N, 1 + F)
        for block in self.blocks:
            hidden = block(hidden, mask)
        projected: Tensor = self.project(hidden[:, 0])  # (N, D)
        return projected


@dataclass(frozen=True)
class MultilingualOutput(TensorRecord):
    """What the objective sees of a batch; vectors of unit length.

    Attributes:
        texts: language -> (n, D) captions.
        rows: language -> (n,) the videos that these captions belong to.
        visual: (N, D).
        empty: (N,) bool or none, see MultilingualBatch.
    """

    texts: Mapping[str, Tensor]
    rows: Mapping[str, Tensor]
    visual: Tensor
    empty: Tensor | None = None


def gathered(out: MultilingualOutput) -> MultilingualOutput:
    """The outputs of all processes as one: language by language, and in the order of processes."""
    if world() == 1:
        return out
    count = len(out.visual)
    first = rows_before(count)
    rows = [own + first for own in out.rows.values()]
    empty = out.visual.new_zeros(count, dtype=torch.int64) if out.empty is None else out.empty.long()
    visual, empty, *others = gather(out.visual, empty, *out.texts.values(), *rows)
    texts, rows = others[: len(rows)], others[len(rows) :]
    return MultilingualOutput(
        dict(zip(out.texts, texts, strict=True)), dict(zip(out.rows, rows, strict=True)), visual, empty.bool()
    )


class C2KD(nn.Module):
    """A text encoder and a video encoder with one joint space.

    Args:
        backbone: the text encoder, see nrccr.models.backbone.build_backbone.
        features: width of the frame features.
        joint: width D of the joint space: 512 with CLIP's features, 1024 with S3D's.
        width, heads, layers: of the video branch.
        pool_mask: see TextBranch.
    """

    independent = True  # an embedding depends on its own caption or video alone, whatever else is in its batch

    def __init__(
        self,
        backbone: PreTrainedModel,
        features: int,
        joint: int,
        *,
        width: int = 512,
        heads: int = 4,
        layers: int = 2,
        pool_mask: PoolMask = "own",
    ) -> None:
        super().__init__()
        self.feature_width = features
        self.text = TextBranch(backbone, joint, pool_mask)
        self.video = VideoBranch(features, joint, width, heads, layers)

    def forward(self, batch: MultilingualBatch) -> MultilingualOutput:
        """One training batch. The captions of all languages pass the encoder together.

        Vectors of all processes come together.
        """
        vectors = unit(self.text.in_parts(batch.texts, batch.places))  # (all n, D)
        texts = dict(zip(batch.rows, torch.split(vectors, [len(own) for own in batch.rows.values()]), strict=True))
        return gathered(MultilingualOutput(texts, batch.rows, unit(self.video(batch.visual)), batch.empty))

    def embed_text(self, text: TextBatch) -> Tensor:
        """Captions -> (N, D), unit length; evaluation mode, no gradients."""
        return unit(self.project_text(text))

    def project_text(self, text: TextBatch) -> Tensor:
        """Captions -> (N, D), not of unit length; evaluation mode, no gradients."""
        with evaluating(self):
            projected: Tensor = self.text(text)
            return projected

    def embed_visual(self, visual: VisualBatch) -> Tensor:
        """Videos, or vectors of images -> (N, D), unit length; evaluation mode, no gradients."""
        with evaluating(self):
            return unit(self.video(visual))


def build_c2kd(config: Config, backbone: PreTrainedModel, feature_width: int) -> C2KD:
    """The network a configuration describes, from fresh weights but for the backbone's.

    Args:
        config: the run's configuration.
        backbone: the text encoder, see nrccr.models.backbone.configured_backbone.
        feature_width: width of the features, from the files.

    Raises:
        UserError: a trainable layer that the backbone does not have.
    """
    freeze_backbone(backbone, config.text.freeze, config.text.trainable_layers)
    network = C2KD(
        backbone,
        feature_width,
        config.joint.width,
        width=config.visual.width,
        heads=config.visual.heads,
        layers=config.visual.layers,
        pool_mask=config.switch("pool_mask"),
    )
    return use_fast_layers(network)


def as_video(visual: VisualBatch) -> VideoBatch:
    """Videos as they are; vectors of images (N, features) as videos of one frame."""
    if isinstance(visual, VideoBatch):
        return visual
    frames = visual.pixels_or_vectors.unsqueeze(1)  # (N, 1, features)
    return VideoBatch(frames, torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device))
