"""Images: their vectors on disk, and raw ones with the pre-processing of their encoder.

N images in a call, D width of a vector, 3 x H x W pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, KeysView, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm
from transformers import AutoConfig, AutoImageProcessor, CLIPImageProcessorPil, SiglipImageProcessorPil
from transformers.image_processing_utils import BaseImageProcessor

from nrccr.data.bigfile import BigFile
from nrccr.data.captions import shortened
from nrccr.data.trial import try_out
from nrccr.errors import UserError, first_line
from nrccr.sizes import SizeError, regular_bytes, require_model_files, require_npy
from nrccr.terminal import without_hints

BLOCK_BYTES = 64 * 2**20
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")  # decoded by libraries in this process; EPS runs programs
OTHER_ENDINGS = (".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")  # an id may end so; .jpg is left out
MAX_PIXELS = 64 * 2**20
MAX_RATIO = 100  # of the longer side to the shorter, which is scaled to the encoder's size
PREPROCESSOR_NAME = "preprocessor_config.json"
Array = npt.NDArray[np.float32]


class ImageSource(Protocol):
    """Images by id, as vectors or as pixels."""

    @property
    def width(self) -> int | None:
        """Width of the vectors; none where they are pixels."""

    def __contains__(self, image_id: object) -> bool:
        """Whether the image exists."""

    def read(self, image_ids: Sequence[str]) -> Array:
        """The images: (N, D) or (N, 3, H, W)."""

    def problem(self, image_ids: Sequence[str]) -> str | None:
        """One line about damaged images among existing ones, or none."""


class Vectors:
    """Vectors of a split's images: a `.npy` matrix, memory-mapped, rows in the order of a list of ids.

    A pickled instance carries no data: a worker maps the file anew.

    Args:
        path: the matrix, (images, D) of floats.
        ids: text file with the image of each row, between white space; a name may end in `.jpg`.

    Raises:
        UserError: a file that is missing, damaged, or of another shape or type; missing or duplicated ids.
    """

    def __init__(self, path: Path, ids: Path) -> None:
        self.path = path
        self._matrix = self._map()
        self.count, width = self._matrix.shape
        self.width = int(width)
        names = _read_ids(ids)
        if len(names) != self.count:
            raise UserError(f"{ids}: {len(names)} ids, but {path} has {self.count} rows; copy both again")
        self._row = {name: row for row, name in enumerate(names)}
        if len(self._row) != len(names):
            duplicate = next(name for row, name in enumerate(names) if self._row[name] != row)
            raise UserError(f"{ids}: id {duplicate!r} is duplicated; each row needs its own")

    @property
    def image_ids(self) -> KeysView[str]:
        """Every image, in the order of the rows."""
        return self._row.keys()

    def __contains__(self, image_id: object) -> bool:
        """Whether the image has a vector."""
        return image_id in self._row

    def read(self, image_ids: Sequence[str]) -> Array:
        """Vectors (N, D) float32."""
        return np.asarray(self._matrix[[self._row[image] for image in image_ids]], dtype=np.float32)

    def problem(self, image_ids: Sequence[str]) -> str | None:
        """One line if vectors hold a NaN or an infinity."""
        step = max(1, BLOCK_BYTES // (4 * self.width))
        bad: list[str] = []
        for start in range(0, len(image_ids), step):
            block = image_ids[start : start + step]
            damaged = (~np.isfinite(self.read(block))).any(axis=1)
            bad += [block[row] for row in np.flatnonzero(damaged).tolist()]
        if not bad:
            return None
        return f"{self.path}: {len(bad)} vectors hold a NaN or an infinity ({shortened(bad)}); extract them again"

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the mapped matrix."""
        return {name: value for name, value in self.__dict__.items() if name != "_matrix"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the ids and map the matrix again."""
        self.__dict__.update(state)
        self._matrix = self._map()

    def _map(self) -> npt.NDArray[Any]:
        try:
            require_npy(self.path)
            matrix = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError, SizeError) as error:
            raise UserError(
                f"{self.path}: not a .npy file of numbers, or truncated ({first_line(error)}); copy it again"
            ) from error
        if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.dtype.kind != "f" or 0 in matrix.shape:
            found = f"{matrix.dtype} {matrix.shape}" if isinstance(matrix, np.ndarray) else "an archive"
            raise UserError(f"{self.path}: must hold floats (images, width), not {found}; extract the vectors again")
        return np.asarray(matrix)


class EncodedImages:
    """Vectors that an image encoder gave, kept in a feature folder with one row an image."""

    def __init__(self, features: BigFile) -> None:
        self.features = features
        self.path = features.folder
        self.count, self.width = len(features.video_ids), features.width
        self.image_ids = features.video_ids

    def __contains__(self, image_id: object) -> bool:
        """Whether the image was encoded."""
        return isinstance(image_id, str) and image_id in self.features

    def read(self, image_ids: Sequence[str]) -> Array:
        """Vectors (N, D) float32."""
        frames, _ = self.features.read([self.features.rows(image) for image in image_ids])  # (N, 1, D)
        return frames[:, 0]

    def problem(self, image_ids: Sequence[str]) -> str | None:
        """One line if vectors hold a NaN or an infinity."""
        bad = self.features.find_nan(np.concatenate([self.features.rows(image) for image in image_ids]))
        return f"{self.path}: {len(bad)} vectors hold a NaN or an infinity ({shortened(bad)})" if bad else None


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


class PictureFiles:
    """Files of raw images in a folder, `<id>.jpg`.

    Args:
        folder: where they lie.

    Raises:
        UserError: no such folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder of images; give it as image.path=FOLDER")
        self.folder = folder

    def path(self, image_id: str) -> Path:
        """The file of an image; an id that ends as another kind of image is the file's whole name."""
        whole = image_id.lower().endswith(OTHER_ENDINGS)
        return self.folder / (image_id if whole else f"{image_id}.jpg")

    def __contains__(self, image_id: object) -> bool:
        """Whether the image's file exists."""
        return self.path(str(image_id)).is_file()

    def unreadable(self, image_ids: Sequence[str]) -> str | None:
        """One line about files without the header of an image that training reads; they are not decoded."""
        bad: list[str] = []
        for image in tqdm(image_ids, desc="images", unit="", disable=None, leave=False):
            try:
                with opened_picture(self.path(image)):
                    pass
            except UserError:
                bad.append(image)
        return f"{self.folder}: {len(bad)} files are no images ({shortened(bad)}); copy them again" if bad else None


class Pictures(PictureFiles):
    """Raw images, decoded and pre-processed when they are read.

    Args:
        folder: where they lie.
        preprocess: of the encoder.

    Raises:
        UserError: no such folder.
    """

    def __init__(self, folder: Path, preprocess: Preprocessor) -> None:
        super().__init__(folder)
        self.preprocess = preprocess
        self.width: int | None = None

    def read(self, image_ids: Sequence[str]) -> Array:
        """Pixels (N, 3, H, W) float32.

        Raises:
            UserError: a file that is no image, or a damaged one.
        """
        return np.stack([self.preprocess(load_picture(self.path(image))) for image in image_ids])

    def problem(self, image_ids: Sequence[str]) -> str | None:
        """None: damaged files are reported when they are decoded."""
        return None


def load_picture(path: Path, *, shown: bool = False) -> Image.Image:
    """Decode an image file.

    Args:
        path: the file.
        shown: as a viewer shows it, see as_shown; else its stored pixels, as the published code reads them.

    Raises:
        UserError: the file is missing, no image, or damaged.
    """
    with opened_picture(path) as image:
        return as_shown(image) if shown else image.convert("RGB")


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
        reason = f"none of {', '.join(FORMATS)}" if isinstance(error, UnidentifiedImageError) else first_line(error)
        raise UserError(f"{path}: cannot be read as an image ({reason}); copy it again") from error


def as_shown(image: Image.Image) -> Image.Image:
    """An image as a viewer shows it, in RGB: turned as its EXIF data says, transparency over white, 16 bits as 8.

    Raises:
        ValueError: 32-bit numbers, which have no known range.
    """
    turned = ImageOps.exif_transpose(image)
    if turned.mode in ("I", "F"):
        raise ValueError(
            f"its pixels are 32-bit numbers without a range (mode {turned.mode}); save it with 8 or 16 bits"
        )
    if turned.mode.startswith("I;16"):
        grey = np.asarray(turned, dtype=np.float64) / 257  # 65535 is white
        return Image.fromarray(np.rint(grey).astype(np.uint8)).convert("RGB")
    if turned.has_transparency_data:
        colours = turned.convert("RGBA")
        white = Image.new("RGBA", colours.size, "white")
        return Image.alpha_composite(white, colours).convert("RGB")
    return turned.convert("RGB")


def _read_ids(path: Path) -> list[str]:
    try:
        names = regular_bytes(path).decode("utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)}); check the file") from error
    return [name.removesuffix(".jpg") for name in names]
