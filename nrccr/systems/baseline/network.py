"""A frozen pair of encoders: text -> linear map -> space of the visual features.

N captions or items in the batch, L tokens, F frames, T text width, D feature width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from nrccr.config.schema import Config
from nrccr.data.batch import ImageBatch, TextBatch, VisualBatch
from nrccr.data.tokens import CaptionTokenizer
from nrccr.errors import UserError
from nrccr.models.backbone import backbone_config, backbone_states, configured_backbone
from nrccr.models.image import encoder_width
from nrccr.models.layers import mean_over_positions, unit
from nrccr.models.statedicts import Trained
from nrccr.models.towers import TOWERS, build_tower, tower_vectors
from nrccr.models.vision import KINDS, vector_of
from nrccr.systems.baseline.settings import BaselineSection, TextPooling


class FrozenText(nn.Module):
    """A caption's vector by a frozen encoder.

    Args:
        backbone: of transformers.
        pooling: of its last states; a CLIP's or SigLIP's text side has its own.
        pad: the tokeniser's padding.
    """

    def __init__(self, backbone: PreTrainedModel, pooling: TextPooling, pad: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.pad = pad

    @property
    def width(self) -> int:
        """Width T of its vectors."""
        config = self.backbone.config
        names = {"text_embeds": "projection_dim", "pooler_output": "projection_size"}
        tower = TOWERS.get(config.model_type)
        return int(config.hidden_size if tower is None else getattr(config, names[tower.vector]))

    def forward(self, text: TextBatch) -> Tensor:
        """Captions -> (N, T)."""
        if self.backbone.config.model_type in TOWERS:
            return tower_vectors(self.backbone, text, self.pad)
        (states,) = backbone_states(self.backbone, [text])  # (N, L, T)
        return states[:, 0] if self.pooling == "first" else mean_over_positions(states, text.mask, "masked")


class FrozenVisual(nn.Module):
    """An item's vector: the mean of its frames' features, its feature, or what a frozen encoder makes of its pixels."""

    def __init__(self, encoder: PreTrainedModel | None) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, visual: VisualBatch) -> Tensor:
        """Items -> (N, D)."""
        if not isinstance(visual, ImageBatch):
            return visual.mean if visual.mean is not None else mean_over_positions(visual.frames, visual.mask, "masked")
        if self.encoder is None:
            return visual.pixels_or_vectors
        return vector_of(
            self.encoder(pixel_values=visual.pixels_or_vectors), KINDS[self.encoder.config.model_type].vector
        )


class Baseline(nn.Module):
    """Both sides and the map between them; all vectors have unit length before and after it.

    Args:
        text: of captions.
        visual: of items.
        features: width D of the features.
        mapped: whether text vectors are mapped; both sides then count from the mean of the training items.
    """

    independent = True  # padding never counts
    mean: Tensor

    def __init__(self, text: FrozenText, visual: FrozenVisual, features: int, *, mapped: bool) -> None:
        super().__init__()
        self.text = text
        self.visual = visual
        self.map = nn.Linear(text.width, features) if mapped else None
        self.register_buffer("mean", torch.zeros(1, features))  # of the training items
        self.requires_grad_(False)

    @property
    def feature_width(self) -> int:
        """Width D of the features."""
        return int(self.mean.shape[1])

    @property
    def joint_width(self) -> int:
        """Width of the space of both sides, which is that of the features."""
        return self.feature_width

    def text_vectors(self, text: TextBatch) -> Tensor:
        """Captions -> (N, T), unit length, before the map."""
        return unit(self.text(text))

    def visual_vectors(self, visual: VisualBatch) -> Tensor:
        """Items -> (N, D), unit length, before the mean is taken off."""
        return unit(self.visual(visual))

    def embed_text(self, text: TextBatch) -> Tensor:
        """Captions -> (N, D), unit length."""
        vectors = self.text_vectors(text)  # (N, T)
        if self.map is None:
            return vectors
        with torch.autocast(vectors.device.type, enabled=False):
            return unit(self.map(vectors))

    def embed_visual(self, visual: VisualBatch) -> Tensor:
        """Items -> (N, D), unit length."""
        return unit(self.visual_vectors(visual) - self.mean)


def build_baseline(
    config: Config,
    tokenizer: CaptionTokenizer,
    features: int | None,
    encoder: PreTrainedModel | None,
    trained: Trained | None = None,
) -> Baseline:
    """The network of a configuration; its map, if it has one, is to be fitted or loaded.

    Args:
        config: of the run.
        tokenizer: of `text.model`.
        features: width of the features; none for raw images.
        encoder: of raw images.
        trained: weights that will be loaded.

    Raises:
        UserError: no such encoder, a pooling that it does not have, or widths that differ without a map.
    """
    own = config.section(BaselineSection)
    text = FrozenText(_backbone(config, trained), own.pooling, int(tokenizer.tokenizer.pad_token_id or 0))
    if encoder is not None:
        features = encoder_width(encoder)
    assert features is not None
    if own.map == "none" and text.width != features:
        raise UserError(
            f"baseline.map=none: text.model={config.text.model} gives vectors of width {text.width}, features are "
            f"{features} wide; give the text side of the encoder that they come from, or baseline.map=ridge"
        )
    return Baseline(text, FrozenVisual(encoder), features, mapped=own.map == "ridge")


def _backbone(config: Config, trained: Trained | None) -> PreTrainedModel:
    """The text side of a CLIP or SigLIP, or an encoder of text."""
    model, pooling = config.text.model, config.section(BaselineSection).pooling
    described = backbone_config(model, {})
    described = getattr(described, "text_config", described)
    if described.model_type not in TOWERS:
        return configured_backbone(config, trained)
    if pooling != "usual":
        raise UserError(f"baseline.pooling={pooling}: text.model={model} has a vector of its own; leave it out")
    if config.text.backbone:
        raise UserError(f"text.backbone: the sizes of text.model={model} are those of its config.json; leave it out")
    return build_tower(described, model if config.text.pretrained and trained is None else None)
