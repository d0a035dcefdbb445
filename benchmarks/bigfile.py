"""Time opening and reading 1.2 million frames: ours beside ast.literal_eval and a seek for every frame.

    python benchmarks/bigfile.py [--videos 35000] [--frames 35] [--width 64] [--batch 128] [--folder DIR]

Makes a synthetic feature folder in a temporary place, checks that both ways give the same, prints the ratios.
"""

from __future__ import annotations

import argparse
import ast
import pickle
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nrccr.data.bigfile import BigFile, read_video_frames, write_bigfile


def synthetic(videos: int, frames: int, width: int) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Videos of `frames` / 2 to 1.5 `frames` random frames, named like VATEX's."""
    random = np.random.default_rng(0)
    for index in range(videos):
        count = int(random.integers(max(1, frames // 2), frames + frames // 2 + 1))
        yield f"video{index:06d}_000000_000010", random.random((count, width), dtype=np.float32)


def timed(name: str, function: Callable[[], Any]) -> tuple[Any, float]:
    """Call once and print the seconds."""
    start = time.perf_counter()
    result = function()
    seconds = time.perf_counter() - start
    print(f"{name:45s} {seconds:9.3f} s")
    return result, seconds


def read_by_seeking(path: Path, rows: list[npt.NDArray[np.int64]], width: int) -> npt.NDArray[np.float32]:
    """The obvious way: a seek, a read and an assignment for every frame."""
    frames = np.zeros((len(rows), max(map(len, rows)), width), dtype=np.float32)
    with path.open("rb") as file:
        for video, video_rows in enumerate(rows):
            for position, row in enumerate(video_rows):
                file.seek(int(row) * width * 4)
                frames[video, position] = np.frombuffer(file.read(width * 4), dtype=np.float32)
    return frames


def measure(folder: Path, batch: int, batches: int) -> None:
    """Compare both ways on an existing feature folder."""
    names = folder / "video2frames.txt"
    ours, quick = timed("video2frames.txt, ours", lambda: read_video_frames(names))
    theirs, slow = timed("video2frames.txt, ast.literal_eval", lambda: ast.literal_eval(names.read_text("utf-8")))
    assert ours == theirs
    print(f"{'':45s} {slow / quick:9.1f} x")
    del ours, theirs

    features, _ = timed("BigFile opened (names, checks, rows)", lambda: BigFile(folder))
    pickled = len(pickle.dumps(features)) / 2**20
    print(f"{features.count} frames of {len(features.video_ids)} videos; pickled {pickled:.1f} MiB")
    videos = np.random.default_rng(1).permutation(np.array(list(features.video_ids)))[: batch * batches]
    rows = [features.rows(str(video)) for video in videos]
    parts = [rows[start : start + batch] for start in range(0, len(rows), batch)]
    timed("pages warmed", lambda: [features.read(part) for part in parts])
    label = f"{len(parts)} batches of {batch} videos"
    ours, quick = timed(f"{label}, ours", lambda: [features.read(part)[0] for part in parts])
    path = folder / "feature.bin"
    theirs, slow = timed(
        f"{label}, seek per frame",
        lambda: [read_by_seeking(path, part, features.width) for part in parts],
    )
    assert all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))
    print(f"{'':45s} {slow / quick:9.1f} x")
    timed("scan for NaN", features.find_nan)


def main() -> None:
    """Parse the command line, make the folder, measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=35_000)
    parser.add_argument("--frames", type=int, default=35, help="mean frames a video")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="measure this feature folder instead of a synthetic one")
    options = parser.parse_args()
    if options.folder:
        measure(options.folder, options.batch, options.batches)
    else:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "synthetic"
            timed("written", lambda: write_bigfile(folder, synthetic(options.videos, options.frames, options.width)))
            measure(folder, options.batch, options.batches)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB")


if __name__ == "__main__":
    main()
