"""Frames a second of `nrccr extract` beside plain sequential decoding, on films that it renders.

    OMP_NUM_THREADS=1 python benchmarks/extract.py [--clips 10] [--seconds 30] [--rounds 3] [--model tiny|vit-b]

Plain: PyAV decodes every frame in order; one a second goes through Pillow and the encoder's own pre-processing, then in
batches through the encoder. Both ways use the same random weights, encode the same frames, and take turns; medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from nrccr.data.bigfile import BigFile
from nrccr.features.extract import Extractor, Pace, finish
from nrccr.features.fingerprint import extraction
from nrccr.features.prepare import load_preparation
from nrccr.features.sources import find_sources
from nrccr.features.store import Store
from nrccr.models.vision import Encoder, load_vision

RATE = 30
BATCH = 32
MODELS = {
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128},
    "vit-b": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}


def render(path: Path, seconds: int, seed: int, size: tuple[int, int] = (640, 360)) -> None:
    """A film of moving stripes and a drifting patch of noise."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(seed).integers(0, 256, (90, 160, 3), dtype=np.uint8)
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", rate=RATE, options={"preset": "veryfast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(seconds * RATE):
            pixels = np.stack([x // 4 + index, y // 3 + 2 * index, (x + y) // 5 + 3 * seed], axis=-1).astype(np.uint8)
            left, top = (3 * index + 50 * seed) % (width - 160), (2 * index) % (height - 90)
            pixels[top : top + 90, left : left + 160] = noise
            film.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        film.mux(stream.encode())


def plain(films: list[Path], encoder: Encoder, model: str) -> dict[str, np.ndarray]:
    """The vectors of one frame a second of every film."""
    processor = load_preparation(model, random=True).processor
    assert processor is not None

    def frames(path: Path) -> Iterator[np.ndarray]:
        with av.open(str(path)) as film:
            for number, frame in enumerate(film.decode(video=0)):
                if number % RATE == 0:
                    yield processor(frame.to_image(), return_tensors="np")["pixel_values"][0]

    vectors = {}
    for path in films:
        pixels = list(frames(path))
        with torch.inference_mode():
            batches = [torch.from_numpy(np.stack(pixels[i : i + BATCH])) for i in range(0, len(pixels), BATCH)]
            vectors[path.stem] = torch.cat([encoder({"pixel_values": batch}) for batch in batches]).numpy()
    return vectors


def ours(folder: Path, encoder: Encoder, model: str, out: Path, workers: int) -> dict[str, np.ndarray]:
    """The same by `nrccr extract`, written to disk."""
    preparation, pace = load_preparation(model, random=True), Pace(Fraction(1), BATCH, workers)
    sources, _ = find_sources([folder])
    store = Store(out, extraction(model, encoder, preparation, fps=pace.fps, batch_size=BATCH))
    Extractor(encoder, preparation, pace, torch.device("cpu")).run(sources, store)
    finish(sources, store)
    features = BigFile(out)
    return {video: features.read([features.rows(video)])[0][0] for video in features.video_ids}


def main() -> None:
    """Render, alternate, print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--model", choices=MODELS, default="tiny")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with tempfile.TemporaryDirectory() as place:
        folder, model = Path(place) / "films", Path(place) / "model"
        folder.mkdir()
        model.mkdir()
        shape = {"model_type": "vit", "image_size": 224, "patch_size": 16, **MODELS[options.model]}
        (model / "config.json").write_text(json.dumps(shape))
        films = [folder / f"film{number:02d}.mp4" for number in range(options.clips)]
        for number, path in enumerate(films):
            render(path, options.seconds, number)
        encoder = load_vision(str(model), seed=0)
        seconds: dict[str, list[float]] = {"plain": [], "extract": []}
        for turn in range(options.rounds):
            start = time.perf_counter()
            first = plain(films, encoder, str(model))
            middle = time.perf_counter()
            second = ours(folder, encoder, str(model), Path(place) / f"out{turn}", options.workers)
            end = time.perf_counter()
            seconds["plain"].append(middle - start)
            seconds["extract"].append(end - middle)
            print(f"round {turn + 1}: plain {middle - start:.2f} s, extract {end - middle:.2f} s", flush=True)
    assert first.keys() == second.keys() and all(len(first[name]) == len(second[name]) for name in first)
    pairs = [(first[name], second[name]) for name in first]
    alike = [np.sum(a * b, 1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1) for a, b in pairs]
    taken = sum(map(len, first.values()))
    print(f"{options.model}, {options.clips} films of {options.seconds} s at {RATE} a second, {taken} frames encoded")
    for name, times in seconds.items():
        median = statistics.median(times)
        film = options.clips * options.seconds * RATE / median
        print(f"{name:8s} median {median:6.2f} s  {film:7.0f} frames of film a second, {taken / median:6.1f} encoded")
    ratio = statistics.median(seconds["plain"]) / statistics.median(seconds["extract"])
    print(f"{ratio:.2f} x; cosine of the two ways' vectors at least {np.concatenate(alike).min():.5f}")
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors")


if __name__ == "__main__":
    main()
