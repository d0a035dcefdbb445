"""Films and images that the tests of extraction make: ordinary, odd and damaged ones."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

SIZE = (64, 48)  # width, height
MOVIE = {"threads": "1"}


def picture(index: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Frame `index` of a film: stripes that move, (height, width, 3) bytes."""
    y, x = np.mgrid[: size[1], : size[0]]
    return np.stack([x * 3 + 5 * index, y * 4 + 3 * index, 2 * x + 2 * y + 7 * index], axis=-1).astype(np.uint8)


def film(
    path: Path,
    codec: str = "libx264",
    *,
    frames: int = 60,
    size: tuple[int, int] = SIZE,
    times: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
) -> Path:
    """Write a film of 30 frames a second, or with the given times in milliseconds."""
    with av.open(str(path), "w", options=container or {}) as out:
        stream = out.add_stream(codec, rate=30, options=MOVIE | (options or {}))
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index in range(frames if times is None else len(times)):
            frame = av.VideoFrame.from_ndarray(picture(index, size), format="rgb24")
            frame.pts = index if times is None else times[index]
            frame.time_base = Fraction(1, 30) if times is None else Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def sound(path: Path) -> Path:
    """A file with sound alone."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=16000, layout="mono")
        for start in range(0, 16000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def turned(path: Path, plain: Path | None = None) -> Path:
    """A film to be shown a quarter turn to the right, as telephones write it: the matrix of its track header.

    Of a given film, or a new one: two encodings of the same frames may differ.
    """
    data = (plain or film(path)).read_bytes()
    upright = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    quarter = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, SIZE[1] << 16, 0, 0x40000000)
    start = data.index(upright, data.index(b"tkhd"))
    path.write_bytes(data[:start] + quarter + data[start + len(quarter) :])
    return path


def cut(path: Path, share: float, **options: object) -> Path:
    """The first part of a film's bytes."""
    data = film(path, **options).read_bytes()  # type: ignore[arg-type]
    path.write_bytes(data[: int(share * len(data))])
    return path


def spoilt(path: Path) -> Path:
    """A film whose frames are overwritten from the second third on; its index is whole."""
    data = bytearray(film(path, frames=90, options={"g": "10"}, container={"movflags": "+faststart"}).read_bytes())
    first = data.index(b"mdat") + 4
    for place in range(first + (len(data) - first) // 3, len(data)):
        data[place] = (place * 89) % 256
    path.write_bytes(bytes(data))
    return path


def without_frames(path: Path) -> Path:
    """A film with a video track and no frame in it."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        out.start_encoding()
    return path


def animated(path: Path) -> Path:
    """Five pictures, 400 ms each: 2 seconds."""
    first, *others = [Image.fromarray(picture(index * 9)) for index in range(5)]
    first.save(path, save_all=True, append_images=others, duration=400, loop=0)
    return path


def image(path: Path, mode: str = "RGB", **options: object) -> Path:
    """One picture in a mode of Pillow."""
    Image.fromarray(picture(0)).convert(mode).save(path, **options)
    return path


def deep(path: Path) -> Path:
    """A grey picture of 16 bits."""
    Image.fromarray(picture(0)[..., 0].astype(np.uint16) * 257).save(path)
    return path


def exif(path: Path) -> Path:
    """A picture that its EXIF data turns."""
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.fromarray(picture(0)).save(path, exif=tags)
    return path


def bomb(path: Path) -> Path:
    """A PNG that says it has ten thousand million pixels."""
    image(path)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">2I", 100_000, 100_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    path.write_bytes(bytes(data))
    return path


def text(content: str) -> Callable[[Path], Path]:
    """A file of text."""

    def write(path: Path) -> Path:
        path.write_text(content)
        return path

    return write
