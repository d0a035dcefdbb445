"""How an item looks: a film strip of a video, an image in small; nothing where its media are not there.

H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from nrccr.data.collections import Collection, leads_inside
from nrccr.data.images import PictureFiles
from nrccr.data.items import Images, Videos
from nrccr.data.layouts import GENERATED
from nrccr.data.pixels import load_picture
from nrccr.errors import UserError
from nrccr.features.films import FilmError, frames_of
from nrccr.features.prepare import turns_of
from nrccr.report.captions import collection_of
from nrccr.report.finished import Searched
from nrccr.report.strips import film, side_by_side

Picture = npt.NDArray[np.floating[Any]]  # (H, W) grey or (H, W, 3), 0..1
Look = Callable[[str], Picture | None]
EDGE = 160  # pixels of an image's longer side
FILM_EDGE = 96  # of a film's frames, six of which stand side by side
FPS = Fraction(2)
FIRST_FRAMES = 120  # of a film: its first minute


def looks(searched: Searched) -> Look:
    """A function from an item's id to its picture, none where there is none.

    A strip of the features where these are pixels, as those of the generated collection; else of a film in the
    collection's folder of films, if PyAV is installed; of images the file itself. What cannot be read is not shown.
    """
    visuals = searched.split.visuals
    if isinstance(visuals, Videos) and visuals.place.name == GENERATED.feature:
        places = {item: place for place, item in enumerate(visuals.ids)}
        return lambda item: _of_features(visuals, places[item], item)
    collection = collection_of(searched.run)
    if collection is None:
        return lambda item: None
    if isinstance(visuals, Images):
        pictures = collection.pictures
        if pictures is None or not pictures.is_dir():
            return lambda item: None
        files = PictureFiles(pictures, "shown")
        return lambda item: _of_image(files, item)
    if find_spec("av") is None:
        return lambda item: None
    return lambda item: _of_film(collection, item)


def _of_features(visuals: Videos, place: int, item: str) -> Picture | None:
    try:
        strip: Picture = film(np.clip(visuals.batch([place]).frames[0].numpy(), 0, 1), item)
    except UserError:  # pixels of another shape
        return None
    return strip


def _of_image(files: PictureFiles, item: str) -> Picture | None:
    try:
        return _small(load_picture(files.path(item), files.pixels), EDGE) if leads_inside(item) else None
    except UserError:
        return None


def _of_film(collection: Collection, item: str) -> Picture | None:
    path: Path | None = collection.film(item)
    if path is None:
        return None
    try:
        frames = [
            _small(Image.fromarray(np.rot90(frame.to_ndarray(format="rgb24"), turns_of(frame))), FILM_EDGE)
            for frame in islice(frames_of(path, FPS), FIRST_FRAMES)
        ]
        strip: Picture = side_by_side(np.stack(frames))
    except (FilmError, ValueError):  # ValueError: frames of several sizes
        return None
    return strip


def _small(image: Image.Image, edge: int) -> Picture:
    """An image of at most `edge` pixels a side, (H, W, 3)."""
    image = image.convert("RGB")
    image.thumbnail((edge, edge))
    return np.asarray(image, dtype=np.float32) / 255
