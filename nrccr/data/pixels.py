"""Pixels of one image file: what is read, how its colours are taken, and the pre-processing of its encoder.

3 x H x W pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from transformers import AutoConfig, AutoImageProcessor, CLIPImageProcessorPil, SiglipImageProcessorPil
from transformers.image_processing_utils import BaseImageProcessor

from nrccr.config.choices import Pixels
from nrccr.data.trial import try_out
from nrccr.errors import UserError, first_line, require_content
from nrccr.sizes import require_model_files
from nrccr.terminal import without_hints

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")  # decoded by libraries in this process; EPS runs programs
MAX_PIXELS = 64 * 2**20
MAX_RATIO = 100  # of the longer side to the shorter, which is scaled to the encoder's size
PREPROCESSOR_NAME = "preprocessor_config.json"
Array = npt.NDArray[np.float32]


def load_picture(path: Path, pixels: Pixels = "stored") -> Image.Image:
    """Decode an image file, in RGB.

    Args:
        path: the file.
        pixels: "shown" as a viewer shows it, see as_shown; "stored" as in the file, as the published code reads it:
            not turned, transparency dropped.

    Raises:
        UserError: the file is missing, no image, or damaged.
    """
    with opened_picture(path) as image:
        return as_shown(image) if pixels == "shown" else image.convert("RGB")


@contextmanager
def opened_picture(path: Path) -> Iterator[Image.Image]:
    """An image file of a known format and moderate size, its header read; errors of decoding are ours, too.

    Raises:
        UserError: the file is missing, no image of `FORMATS`, too large, or damaged.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("not a regular file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is lower
            image = Image.open(path, formats=FORMATS)
        with image:
            if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_RATIO * min(image.size):
                raise ValueError(f"{image.width} x {image.height} pixels, too many or too narrow")
            yield image
    except Exception as error:  # decoders fail in any way at all
        require_content(path)
        reason = f"none of {', '.join(FORMATS)}" if isinstance(error, UnidentifiedImageError) else first_line(error)
        raise UserError(f"{path}: cannot be read as an image ({reason}); copy it again") from error


def as_shown(image: Image.Image) -> Image.Image:
    """An image as a viewer shows it, in RGB: turned as its EXIF data says, transparency over white, 16 bits as 8.

    Raises:
        ValueError: 32-bit numbers, which have no known range.
    """
    require_range(image)
    turned = ImageOps.exif_transpose(image)
    if turned.mode.startswith("I;16"):
        grey = np.asarray(turned, dtype=np.float64) / 257  # 65535 is white
        return Image.fromarray(np.rint(grey).astype(np.uint8)).convert("RGB")
    if turned.has_transparency_data:
        colours = turned.convert("RGBA")
        shown = Image.new("RGB", colours.size, "white")
        shown.paste(colours, mask=colours.getchannel("A"))
        return shown
    return turned.convert("RGB")


def require_range(image: Image.Image) -> None:
    """Refuse an image that nobody knows how to show.

    Raises:
        ValueError: 32-bit numbers.
    """
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are 32-bit numbers without a range (mode {image.mode}); save 8 or 16 bits")


class Preprocessor:
    """An encoder's own pre-processing of images, without torchvision.

    Args:
        processor: of transformers; for CLIP: shorter side to 224, bicubic, centre crop, CLIP's mean and deviation.
    """

    def __init__(self, processor: BaseImageProcessor) -> None:
        self.processor = processor

    def __call__(self, image: Image.Image) -> Array:
        """Pixels (3, H, W) float32."""
        pixels: Array = self.processor(image.convert("RGB"), return_tensors="np")["pixel_values"][0]
        return np.ascontiguousarray(pixels, dtype=np.float32)

    def describe(self) -> dict[str, Any]:
        """Every setting that changes pixels."""
        settings: dict[str, Any] = self.processor.to_dict()
        return settings

    def save(self, folder: Path) -> None:
        """Write the settings into a folder, from which `load_preprocessor` reads them again."""
        self.processor.save_pretrained(folder)


def load_preprocessor(model: str, *, pretrained: bool = True, revision: str | None = None) -> Preprocessor:
    """The pre-processing of a hub name or folder.

    Args:
        model: as `image.model`.
        pretrained: false takes its kind's default where the model has none.
        revision: of a hub's repository; its newest if none.

    Raises:
        UserError: none there.
    """
    require_content(Path(model))
    options = {"backend": "pil", "trust_remote_code": False, "revision": revision or "main"}
    try:
        require_model_files(model)
        with without_hints():  # that torchvision could be used
            made = Preprocessor(AutoImageProcessor.from_pretrained(model, **options))
            try_out(made, made.describe())
            return made
    except Exception as error:  # whatever a damaged file can break
        default = None if pretrained else _default_preprocessor(model)
        if default is not None:
            return default
        raise UserError(
            f"image.model={model}: no pre-processing of images there ({first_line(error)}); "
            f"give a hub name, or a folder with {PREPROCESSOR_NAME}"
        ) from error


def clip_preprocessor(size: int) -> Preprocessor:
    """CLIP's: shorter side to `size`, bicubic, centre crop, CLIP's mean and deviation."""
    crop = {"height": size, "width": size}
    return Preprocessor(CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size=crop))


def _default_preprocessor(model: str) -> Preprocessor | None:
    """That of CLIP or SigLIP, at the size that the model's configuration names."""
    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    except Exception:  # whatever a damaged file can break
        return None
    size = getattr(getattr(config, "vision_config", config), "image_size", None)
    if not isinstance(size, int):
        return None
    if str(config.model_type).startswith("siglip"):
        return Preprocessor(SiglipImageProcessorPil(size={"height": size, "width": size}))
    return clip_preprocessor(size)
