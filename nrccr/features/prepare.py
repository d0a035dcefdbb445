"""Frames and images -> what an encoder takes.

Images pass the encoder's own pre-processing of transformers. A film's frame is scaled while it is converted to RGB,
which is many times faster, where that pre-processing is the usual one: scale, crop the middle, subtract a mean, divide
by a deviation. Elsewhere it passes it too.

N images in a batch, T frames of a clip, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from PIL import Image
from torch import Tensor
from transformers import PretrainedConfig
from transformers.image_processing_utils import BaseImageProcessor

from nrccr.data.pixels import Preprocessor, clip_preprocessor, load_preprocessor
from nrccr.data.trial import try_out
from nrccr.errors import UserError, first_line
from nrccr.models.vision import KINDS, PIXELS, PIXELS_SIDE, Kind, vision_config

Prepared = dict[str, npt.NDArray[Any]]
BYTES = "bytes"  # key of pixels that are not yet scaled to numbers around 0
# Processors of transformers that scale, crop the middle and normalise, in this order and no other.
_USUAL = ("CLIP", "ViT", "Siglip", "DeiT", "Bit", "VideoMAE")
# Pillow's number of a filter, and swscale's name of it.
_FILTERS = {0: "POINT", 1: "LANCZOS", 2: "BILINEAR", 3: "BICUBIC", 4: "AREA"}
_MEANS = {
    "half": ([0.5] * 3, [0.5] * 3),
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
}


@dataclass(frozen=True)
class Resize:
    """The usual pre-processing, in the order of its fields.

    Attributes:
        shortest: scale so that the shorter side has this length; if none, to `size`.
        size: height and width, where the shape is not kept.
        crop: height and width of the middle that is kept; all if none.
        resample: Pillow's number of the filter.
        mean: subtracted from each channel, which lies between 0 and 1.
        deviation: divides each channel then.
    """

    shortest: int | None
    size: tuple[int, int] | None
    crop: tuple[int, int] | None
    resample: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def frame(self, frame: Any) -> Prepared:
        """A frame of PyAV, turned as the film says, as bytes (H, W, 3)."""
        turns = turns_of(frame)
        width, height = (frame.height, frame.width) if turns % 2 else (frame.width, frame.height)
        height, width = self._scaled(height, width)
        small = frame.reformat(
            width=height if turns % 2 else width,
            height=width if turns % 2 else height,
            format="rgb24",
            interpolation=_FILTERS[self.resample],
        )
        return {BYTES: self._cropped(np.rot90(small.to_ndarray(), turns))}

    def image(self, image: Image.Image) -> Prepared:
        """An image as bytes (H, W, 3)."""
        height, width = self._scaled(image.height, image.width)
        small = image.convert("RGB").resize((width, height), Image.Resampling(self.resample))
        return {BYTES: self._cropped(np.asarray(small))}

    def tensor(self, pixels: Tensor) -> Tensor:
        """Bytes (..., H, W, 3) -> numbers (..., 3, H, W)."""
        scaled = pixels.float() / 255
        normal = (scaled - scaled.new_tensor(self.mean)) / scaled.new_tensor(self.deviation)
        return normal.movedim(-1, -3).contiguous()

    def _scaled(self, height: int, width: int) -> tuple[int, int]:
        if self.shortest is None:
            assert self.size is not None
            return self.size
        short, long = sorted((height, width))
        longer = int(self.shortest * long / short)
        return (self.shortest, longer) if height <= width else (longer, self.shortest)

    def _cropped(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        if self.crop is not None:
            top, left = ((size - kept) // 2 for size, kept in zip(pixels.shape[:2], self.crop, strict=True))
            pixels = pixels[top : top + self.crop[0], left : left + self.crop[1]]
        return np.ascontiguousarray(pixels)


class Preparation:
    """The pre-processing of one encoder.

    Args:
        processor: of transformers; none for the encoder `pixels`.
        resize: the same, where it is the usual one.
        clips: whether the encoder takes clips, for which frames and images alike pass `resize`.
    """

    def __init__(self, processor: BaseImageProcessor | None, resize: Resize | None, *, clips: bool = False) -> None:
        assert processor is not None or resize is not None
        self.processor = None if clips else processor
        self.resize = resize
        self._settings = processor.to_dict() if processor is not None else {}

    def frame(self, frame: Any) -> Prepared:
        """A frame of PyAV."""
        if self.resize is not None:
            return self.resize.frame(frame)
        upright = np.rot90(frame.to_ndarray(format="rgb24"), turns_of(frame))
        return self.image(Image.fromarray(np.ascontiguousarray(upright)))

    def image(self, image: Image.Image) -> Prepared:
        """An image in RGB."""
        if self.processor is None:
            assert self.resize is not None
            return self.resize.image(image)
        return {name: np.asarray(values)[0] for name, values in self.processor(image, return_tensors="np").items()}

    def batch(self, items: Sequence[Prepared], device: torch.device) -> dict[str, Tensor]:
        """Prepared images of one batch as the encoder's arguments."""
        stacked = {name: torch.from_numpy(np.stack([item[name] for item in items])).to(device) for name in items[0]}
        if BYTES in stacked:
            assert self.resize is not None
            return {"pixel_values": self.resize.tensor(stacked[BYTES])}
        return stacked

    def describe(self) -> dict[str, Any]:
        """Every setting that changes pixels, for a fingerprint."""
        return {"processor": self._settings, "frames": asdict(self.resize) if self.resize else "processor"}


def turns_of(frame: Any) -> int:
    """Quarter turns to the left that show a frame of PyAV upright."""
    return int(round(frame.rotation / 90) % 4)


def load_preparation(model: str, *, revision: str | None = None, random: bool = False) -> Preparation:
    """The pre-processing of a model by hub name or folder.

    Args:
        model: a name, a folder, or `pixels`.
        revision: of the hub's repository; its newest if none.
        random: the model's weights are random ones: take what is usual for its kind where it has no pre-processing.

    Raises:
        UserError: it has none, or one for a video that is not the usual one.
    """
    if model == PIXELS:
        area = Resize(None, (PIXELS_SIDE, PIXELS_SIDE), None, 4, (0.0,) * 3, (1.0,) * 3)
        return Preparation(None, area)
    config = vision_config(model, revision)
    kind = KINDS[config.model_type]
    try:
        processor = _own_processor(model, kind, revision)
    except UserError as error:
        if not random:
            raise UserError(str(error).replace("image.model=", "--model ", 1)) from error
        processor = _usual_processor(config, kind.scaling)
    resize = _as_resize(processor)
    if kind.clips and resize is None:
        raise UserError(f"--model {model}: its pre-processing of clips is not one that is known; give another")
    return Preparation(processor, resize, clips=kind.clips)


def _own_processor(model: str, kind: Kind, revision: str | None) -> BaseImageProcessor:
    if kind.processor is None:
        return load_preprocessor(model, revision=revision).processor
    try:
        made = getattr(transformers, kind.processor).from_pretrained(model, revision=revision or "main")
        try_out(Preprocessor(made), made.to_dict())
        return made
    except Exception as error:  # whatever a damaged file can break
        raise UserError(
            f"--model {model}: no pre-processing of images there ({first_line(error)}); give a folder or hub name"
        ) from error


def _usual_processor(config: PretrainedConfig, scaling: str) -> BaseImageProcessor:
    if "siglip2" in config.model_type:
        return transformers.Siglip2ImageProcessorPil(patch_size=config.patch_size, max_num_patches=config.num_patches)
    size = getattr(config, "image_size", 224)
    side = size if isinstance(size, int) else int(size[0])
    if scaling == "clip":
        return clip_preprocessor(side).processor
    mean, deviation = _MEANS[scaling]
    return transformers.ViTImageProcessorPil(
        size={"height": side, "width": side}, image_mean=mean, image_std=deviation, resample=Image.Resampling.BICUBIC
    )


def _as_resize(processor: BaseImageProcessor) -> Resize | None:
    """A processor's settings, if it does no more than scale, crop and normalise."""
    settings: Mapping[str, Any] = processor.to_dict()
    if not type(processor).__name__.startswith(_USUAL) or type(processor).__name__.startswith("Siglip2"):
        return None
    size, crop = dict(settings.get("size") or {}), dict(settings.get("crop_size") or {})
    needed = [settings.get(name, True) for name in ("do_resize", "do_rescale", "do_normalize")]
    usual = all(needed) and abs(settings.get("rescale_factor", 1 / 255) - 1 / 255) < 1e-9
    if not usual or set(size) not in ({"shortest_edge"}, {"height", "width"}):
        return None
    cropped = settings.get("do_center_crop") and set(crop) == {"height", "width"}
    if settings.get("do_center_crop") and not cropped:
        return None
    shortest, kept = size.get("shortest_edge"), (crop["height"], crop["width"]) if cropped else None
    whole = None if shortest else (size["height"], size["width"])
    least = (shortest, shortest) if shortest else whole
    if kept and least and (kept[0] > least[0] or kept[1] > least[1]):
        return None
    mean, deviation = tuple(settings["image_mean"]), tuple(settings["image_std"])
    if settings.get("resample") not in _FILTERS:
        return None
    if shortest and not kept:
        return None  # frames of different shapes
    return Resize(shortest, whole, kept, int(settings["resample"]), mean, deviation)
