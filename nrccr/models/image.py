"""An image -> one vector: a linear layer over ResNet-152 vectors, or over CLIP's output.

N images in the batch, D width of the linear layer's input, W width of the branch.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Self

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from nrccr.data.batch import ImageBatch
from nrccr.data.pixels import Preprocessor
from nrccr.errors import UserError, first_line, require_content
from nrccr.models.pretrained import load_pretrained
from nrccr.models.vision import KINDS, vector_of
from nrccr.sizes import require_model_files

# Kinds of configuration, of a whole model or of its visual half, that training and published checkpoints know.
_MODELS = ("clip", "clip_vision_model", "siglip", "siglip_vision_model")


def image_config(model: str) -> PretrainedConfig:
    """The configuration of a CLIP's or SigLIP's visual half, by hub name or folder.

    Raises:
        UserError: no such model, or of another kind.
    """
    require_content(Path(model))
    try:
        require_model_files(model)
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    except Exception as error:  # whatever a damaged file can break
        raise UserError(
            f"image.model={model}: no configuration there ({first_line(error)}); give a folder or hub name"
        ) from error
    if config.model_type not in _MODELS:
        raise UserError(f"image.model={model}: a {config.model_type} model; give one of {', '.join(_MODELS)}")
    return getattr(config, "vision_config", config)


def build_image_encoder(config: PretrainedConfig, pretrained: str | None) -> PreTrainedModel:
    """The visual half of a CLIP or SigLIP, from random weights or from the weights of `pretrained`.

    Raises:
        UserError: no such weights, some that are missing, or a configuration that no model can be built from.
    """
    make = getattr(transformers, KINDS[config.model_type].build)
    if pretrained is None:
        try:
            return make(config).float()
        except Exception as error:  # whatever a configuration can break
            raise UserError(
                f"image.model: no encoder can be built ({first_line(error)}); give another config.json"
            ) from error
    return load_pretrained(partial(make.from_pretrained, dtype=torch.float32), pretrained, "image")


class ImageEncoder(nn.Module):
    """Linear, and ReLU after it where it sees ResNet-152 vectors; CLIP's output is projected without activation.

    Args:
        features: width D of the vectors; that of the encoder's output where there is an encoder.
        width: width W of the branch.
        encoder: for raw images; none for ResNet-152 vectors.
        trainable: whether gradients go through the encoder.
    """

    def __init__(
        self, features: int, width: int, encoder: PreTrainedModel | None = None, *, trainable: bool = False
    ) -> None:
        super().__init__()
        self.width = width
        self.linear = nn.Linear(features, width)
        self.encoder = encoder
        self.trainable = trainable
        if encoder is not None:
            encoder.requires_grad_(trainable)

    @property
    def feature_width(self) -> int:
        """Width D of the vectors it takes."""
        return self.linear.in_features

    def forward(self, images: ImageBatch) -> Tensor:
        """Vectors (N, D) or, with an encoder, pixels (N, 3, H, W) too -> (N, W)."""
        pixels_or_vectors = images.pixels_or_vectors
        vectors = self.encode(pixels_or_vectors) if pixels_or_vectors.ndim == 4 else pixels_or_vectors  # (N, D)
        hidden: Tensor = self.linear(vectors)  # (N, W)
        return hidden if self.encoder is not None else functional.relu(hidden)

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (N, 3, H, W) -> the encoder's vectors (N, D), not normalised."""
        assert self.encoder is not None
        with torch.set_grad_enabled(self.trainable and torch.is_grad_enabled()):
            out = self.encoder(pixel_values=pixels)
        return vector_of(out, KINDS[self.encoder.config.model_type].vector)

    def train(self, mode: bool = True) -> Self:
        """As any module; an encoder that does not train stays in evaluation mode."""
        super().train(mode)
        if self.encoder is not None and not self.trainable:
            self.encoder.eval()
        return self


def save_image_encoder(encoder: PreTrainedModel, preprocess: Preprocessor, folder: Path) -> None:
    """Write an image encoder's configuration and pre-processing; its weights are the network's."""
    encoder.config.save_pretrained(folder)
    preprocess.save(folder)


def require_pixels(encoder: PreTrainedModel, shape: tuple[int, ...], model: str) -> None:
    """Make sure that a pre-processing gives images of the encoder's size.

    Args:
        encoder: of images.
        shape: of a pre-processed image, (3, H, W).
        model: `image.model`, for messages.

    Raises:
        UserError: of another size.
    """
    side = encoder.config.image_size
    if shape != (3, side, side):
        raise UserError(
            f"image.model={model}: its pre-processing gives images of {' x '.join(map(str, shape[1:]))} pixels, its "
            f"encoder sees {side} x {side}; give a config.json and a preprocessor_config.json that belong together"
        )


def encoder_width(encoder: PreTrainedModel) -> int:
    """Width of the vectors that an image encoder gives."""
    projection = getattr(encoder, "visual_projection", None)
    return int(projection.out_features if projection is not None else encoder.config.hidden_size)
