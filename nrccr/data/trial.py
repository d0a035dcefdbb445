"""Pre-processing tried out before it is used: a stranger's file can give it settings of any type and size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image

MAX_SIDE = 4096  # of an image as an encoder sees it


def try_out(preprocess: Callable[[Image.Image], Any], settings: Mapping[str, Any]) -> None:
    """Pre-process a small image.

    Args:
        preprocess: of an encoder.
        settings: its own, as transformers names them.

    Raises:
        ValueError: it makes images of more than `MAX_SIDE` pixels a side.
        Exception: of any kind, where the settings do not work.
    """
    for key in ("size", "crop_size", "pad_size"):
        sides = dict(settings.get(key) or {}).values()
        if any(not 0 < side <= MAX_SIDE for side in sides if side is not None):
            raise ValueError(f"{key} is not from 1 to {MAX_SIDE}")
    preprocess(Image.new("RGB", (9, 7)))
