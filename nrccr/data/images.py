"""Images by id: their vectors on disk, and raw ones in a folder.

N images in a call, D width of a vector, 3 x H x W pixels.
"""

from __future__ import annotations

import re
from collections.abc import KeysView, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from nrccr.config.choices import Pixels
from nrccr.data.bigfile import BigFile
from nrccr.data.captions import shortened
from nrccr.data.pixels import Array, Preprocessor, load_picture, opened_picture, require_range
from nrccr.errors import UserError, first_line, require_content
from nrccr.sizes import SizeError, regular_bytes, require_npy

BLOCK_BYTES = 64 * 2**20
OTHER_ENDINGS = (".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")  # an id may end so; .jpg is left out
ENDINGS = (".jpg", ".JPG", ".jpeg", ".JPEG", ".Jpg")


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
        ids: text file with the image of each row, between white space; a name may end in one of `ENDINGS`.

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
        require_content(self.path)
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


class PictureFiles:
    """Files of raw images in a folder, `<id>.jpg`, or with another of `ENDINGS` where there is none.

    Args:
        folder: where they lie.
        pixels: how they are read, see `load_picture`.

    Raises:
        UserError: no such folder.
    """

    def __init__(self, folder: Path, pixels: Pixels = "stored") -> None:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder of images; give it as image.path=FOLDER")
        self.folder = folder
        self.pixels: Pixels = pixels

    @property
    def image_ids(self) -> list[str]:
        """The names of all files, without endings."""
        return [path.stem for path in self.folder.iterdir()]

    def path(self, image_id: str) -> Path:
        """The file of an image; an id that ends as another kind of image is the file's whole name."""
        if image_id.lower().endswith(OTHER_ENDINGS):
            return self.folder / image_id
        usual, *others = (self.folder / f"{image_id}{ending}" for ending in ENDINGS)
        return usual if usual.is_file() else next((path for path in others if path.is_file()), usual)

    def __contains__(self, image_id: object) -> bool:
        """Whether the image's file exists."""
        return self.path(str(image_id)).is_file()

    def unreadable(self, image_ids: Sequence[str]) -> str | None:
        """One line about files without the header of an image that training reads; they are not decoded."""
        bad: list[str] = []
        for image in tqdm(image_ids, desc="images", unit="", disable=None, leave=False):
            try:
                with opened_picture(self.path(image)) as opened:
                    if self.pixels == "shown":
                        require_range(opened)
            except UserError:
                bad.append(image)
        return f"{self.folder}: {len(bad)} files are no images ({shortened(bad)}); copy them again" if bad else None


class Pictures(PictureFiles):
    """Raw images, decoded and pre-processed when they are read.

    Args:
        folder: where they lie.
        preprocess: of the encoder.
        pixels: how they are read, see `load_picture`.

    Raises:
        UserError: no such folder.
    """

    def __init__(self, folder: Path, preprocess: Preprocessor, pixels: Pixels = "stored") -> None:
        super().__init__(folder, pixels)
        self.preprocess = preprocess
        self.width: int | None = None

    def read(self, image_ids: Sequence[str]) -> Array:
        """Pixels (N, 3, H, W) float32.

        Raises:
            UserError: a file that is no image, or a damaged one.
        """
        return np.stack([self.preprocess(load_picture(self.path(image), self.pixels)) for image in image_ids])

    def problem(self, image_ids: Sequence[str]) -> str | None:
        """None: damaged files are reported when they are decoded."""
        return None


def _read_ids(path: Path) -> list[str]:
    require_content(path)
    try:
        names = regular_bytes(path).decode("utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)}); check the file") from error
    return [re.sub(r"\.jpe?g$", "", name, flags=re.IGNORECASE) for name in names]
