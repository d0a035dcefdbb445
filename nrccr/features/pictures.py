"""Images, and animated ones as the films that they are."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from PIL import Image

from nrccr.data.pixels import MAX_PIXELS, as_shown, opened_picture
from nrccr.features.films import MAX_TAKEN, Clock, FilmError, held, require_size

# How files of `nrccr.data.images.FORMATS` begin; WebP has its name at the ninth byte.
_HEADS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_ANIMATED = ("GIF", "WEBP", "PNG")
MAX_ANIMATED = MAX_PIXELS // 4  # pixels of a frame: several copies of the canvas are held at a time
_USUAL_MS = 100  # that a frame stays where its file does not say, as browsers have it
_MS = Fraction(1, 1000)


def is_picture(path: Path) -> bool:
    """Whether a file begins as an image does, whatever its name.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(12)
    return head.startswith(_HEADS) or (head[:4] == b"RIFF" and head[8:] == b"WEBP")


def pictures_of(path: Path, fps: Fraction) -> Iterator[Image.Image]:
    """An image as a viewer shows it, in RGB; of an animated one those on screen at every moment.

    Raises:
        UserError: a damaged image, or one that is too large.
    """
    with opened_picture(path) as image:
        count = int(getattr(image, "n_frames", 1)) if image.format in _ANIMATED else 1
        if count == 1:
            yield as_shown(image)
            return
        if count > MAX_TAKEN:
            raise FilmError(f"more than {MAX_TAKEN:,} frames")
        _require_moderate(image)
        yield from held(_timed(image, count), Clock(fps, _MS))


def _timed(image: Image.Image, count: int) -> Iterator[tuple[int, Image.Image]]:
    begin = 0
    for number in range(count):
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)  # a frame may be larger than those before
            image.seek(number)
        _require_moderate(image)
        shown = as_shown(image)
        yield begin, shown
        begin += int(image.info.get("duration") or _USUAL_MS)


def _require_moderate(image: Image.Image) -> None:
    """Refuse an animation whose canvas is larger than those of images may be, or than a quarter of it.

    Raises:
        FilmError: it is.
    """
    require_size(*image.size)
    if image.width * image.height > MAX_ANIMATED:
        raise FilmError(f"an animation of {image.width} x {image.height} pixels, too many")
