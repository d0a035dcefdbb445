"""The generated collection's videos as films to look at, and to extract features from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from nrccr.data.generated.scenes import FRAMES, Pixels, Scene, draw
from nrccr.extras import need

RATE = 12  # frames a second
SECONDS = (4.0, 6.0)  # of the scenes with the fewest and with the most frames
ENLARGED = 8  # a pixel's edge; films of 256 x 256
CODEC = {"crf": "18", "preset": "veryfast", "threads": "1"}  # the pictures are too small for several


def write_media(folder: Path, scenes: Iterable[Scene], pixels: Pixels) -> None:
    """Write `<id>.mp4` of every scene, in H.264.

    Args:
        folder: made if it is missing.
        scenes: what happens.
        pixels: those of `handwriting()`.

    Raises:
        UserError: PyAV is not installed.
    """
    need("av", "extract")
    folder.mkdir(parents=True, exist_ok=True)
    for scene in scenes:
        write_film(folder / f"{scene.video}.mp4", draw(scene, pixels, film_frames(scene)))


def film_frames(scene: Scene) -> int:
    """How many frames the film of a scene has: 4 to 6 seconds."""
    (fewest, most), (shortest, longest) = FRAMES, SECONDS
    return round(RATE * (shortest + (longest - shortest) * (scene.frames - fewest) / (most - fewest)))


def write_film(path: Path, frames: Pixels) -> None:
    """Encode grey frames (frames, side, side), 0 black to 1 white, enlarged."""
    av = need("av", "extract")
    large = np.rint(frames * 255).astype(np.uint8).repeat(ENLARGED, axis=1).repeat(ENLARGED, axis=2)
    with av.open(str(path), "w", format="mp4") as film:
        stream = film.add_stream("libx264", rate=RATE, options=CODEC)
        stream.height, stream.width, stream.pix_fmt = *large.shape[1:], "yuv420p"
        for grey in large:
            film.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="gray")))
        film.mux(stream.encode())
