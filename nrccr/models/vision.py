"""Vision models of transformers as encoders of frames: which class, which pre-processing, which output is the vector.

N images in the batch, T frames of a clip, H x W pixels, D width of a vector, P patches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from nrccr.errors import UserError, first_line, require_content
from nrccr.models.pretrained import load_pretrained
from nrccr.sizes import require_model_files

Vector = Literal["image_embeds", "pooler_output", "first", "mean"]
Scaling = Literal["clip", "half", "imagenet"]
PIXELS = "pixels"  # the model without weights: a frame's brightness, as the generated collection's features
PIXELS_SIDE = 32
LUMA = (0.299, 0.587, 0.114)  # of red, green, blue; ITU-R BT.601


@dataclass(frozen=True)
class Kind:
    """What is known of a kind of vision model.

    Attributes:
        build: the class of transformers that encodes images.
        vector: its output that is the image's vector: a named one, the first token, or the mean of all tokens.
        scaling: mean and deviation of pixels where the model brings no pre-processing.
        options: of the class, beside the configuration.
        clips: whether one vector stands for several frames.
        processor: the class that reads the model's pre-processing where its own needs torchvision.
    """

    build: str
    vector: Vector
    scaling: Scaling
    options: Mapping[str, Any]
    clips: bool = False
    processor: str | None = None


_PLAIN = "ViTImageProcessorPil"  # scales to one size and normalises
_CLIP = Kind("CLIPVisionModelWithProjection", "image_embeds", "clip", {})
_SIGLIP = Kind("SiglipVisionModel", "pooler_output", "half", {})
_SIGLIP2 = Kind("Siglip2VisionModel", "pooler_output", "half", {})
# By the configuration's model_type. Poolers that pre-training leaves untrained (ViT, DeiT, BEiT) are not built.
KINDS: Mapping[str, Kind] = {
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    "siglip2": _SIGLIP2,
    "siglip2_vision_model": _SIGLIP2,
    "dinov2": Kind("Dinov2Model", "pooler_output", "imagenet", {}),
    "dinov2_with_registers": Kind("Dinov2WithRegistersModel", "pooler_output", "imagenet", {}),
    "dinov3_vit": Kind("DINOv3ViTModel", "pooler_output", "imagenet", {}, processor=_PLAIN),
    "dinov3_convnext": Kind("DINOv3ConvNextModel", "pooler_output", "imagenet", {}, processor=_PLAIN),
    "vit": Kind("ViTModel", "first", "half", {"add_pooling_layer": False}),
    "deit": Kind("DeiTModel", "first", "imagenet", {"add_pooling_layer": False}),
    "beit": Kind("BeitModel", "mean", "half", {"add_pooling_layer": False}),
    "swin": Kind("SwinModel", "pooler_output", "imagenet", {}),
    "resnet": Kind("ResNetModel", "pooler_output", "imagenet", {}),
    "convnext": Kind("ConvNextModel", "pooler_output", "imagenet", {}),
    "convnextv2": Kind("ConvNextV2Model", "pooler_output", "imagenet", {}),
    "videomae": Kind("VideoMAEModel", "mean", "imagenet", {}, clips=True),
}


def vector_of(out: Any, which: Vector) -> Tensor:
    """The vectors (N, D) among the outputs of a model, not normalised."""
    if which == "first":
        return out.last_hidden_state[:, 0]  # type: ignore[no-any-return]
    if which == "mean":
        return out.last_hidden_state.mean(dim=1)  # type: ignore[no-any-return]
    return getattr(out, which).flatten(1)  # type: ignore[no-any-return]  # (N, D, 1, 1) of a ResNet


class VisionEncoder(nn.Module):
    """Pixels -> one vector an image or clip.

    Args:
        encoder: of transformers.
        kind: which output to take.
    """

    def __init__(self, encoder: PreTrainedModel, kind: Kind) -> None:
        super().__init__()
        self.encoder = encoder
        self.kind = kind
        self.clip_frames = int(encoder.config.num_frames) if kind.clips else 1
        self.requires_grad_(False).eval()

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """What pre-processing made of N images or clips, `pixel_values` (N, 3, H, W), (N, T, 3, H, W) -> (N, D)."""
        return vector_of(self.encoder(**inputs), self.kind.vector)


class PixelEncoder(nn.Module):
    """A frame's brightness as its vector, the features of the generated collection; no weights."""

    clip_frames = 1

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """`pixel_values` (N, 3, H, W) from 0 to 1 -> (N, 1024)."""
        pixels = inputs["pixel_values"]
        grey = torch.einsum("nchw,c->nhw", pixels, pixels.new_tensor(LUMA))[:, None]  # (N, 1, H, W)
        small = functional.adaptive_avg_pool2d(grey, PIXELS_SIDE)  # (N, 1, 32, 32)
        return small.flatten(1)


Encoder = VisionEncoder | PixelEncoder


def vision_config(model: str, revision: str | None = None) -> PretrainedConfig:
    """The configuration of a vision model's visual half, by hub name or folder.

    Raises:
        UserError: no such model, or of a kind that is not in `KINDS`.
    """
    require_content(Path(model))
    try:
        require_model_files(model)
        config = AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False)
    except Exception as error:  # whatever a damaged file can break
        raise UserError(
            f"--model {model}: no configuration there ({first_line(error)}); give a folder or hub name"
        ) from error
    if config.model_type not in KINDS:
        raise UserError(
            f"--model {model}: {config.model_type!r} is no kind of vision model that is known; "
            f"give one of {', '.join(KINDS)}, or {PIXELS}"
        )
    return getattr(config, "vision_config", config)


def load_vision(model: str, *, revision: str | None = None, seed: int | None = None) -> Encoder:
    """An encoder of frames by hub name or folder, in evaluation mode.

    Args:
        model: a name, a folder, or `pixels`.
        revision: of the hub's repository; its newest if none.
        seed: of random weights; the model's own if none.

    Raises:
        UserError: no such model, no weights, or some that are missing.
    """
    if model == PIXELS:
        return PixelEncoder()
    config = vision_config(model, revision)
    kind = KINDS[config.model_type]
    make = getattr(transformers, kind.build)
    if seed is None:
        load = partial(make.from_pretrained, dtype=torch.float32, revision=revision, **kind.options)
        return VisionEncoder(load_pretrained(load, model, "--model"), kind)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return VisionEncoder(make(config, **kind.options).float(), kind)
    except Exception as error:  # whatever a configuration can break
        raise UserError(
            f"--model {model}: no encoder can be built ({first_line(error)}); give another config.json"
        ) from error
