"""Batches of training pairs, ours beside the obvious way, in turns in one run: pairs a second of one process.

    python benchmarks/feed.py [CONFIG --root ROOT] [--width 1024] [--frames 32] [--batches 5] [key=value ...]

The obvious way tokenises each caption anew in every batch, opens the feature file for every frame, and makes Python
lists of what it reads. Captions are those of ROOT, or generated ones; frames are random, in a temporary folder, as wide
and as many a video as VATEX's I3D features. Both ways must give the same batches. Opening the folder is measured beside
`ast.literal_eval`.
"""

from __future__ import annotations

import argparse
import array
import ast
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from common import RESULTS, alternating, copy_rate, padded_plainly, record

from nrccr.data.batch import PairBatch, TextBatch, VideoBatch
from nrccr.data.bigfile import BigFile, write_bigfile
from nrccr.data.captions import match, read_captions
from nrccr.data.generated.collection import Recipe, generate
from nrccr.data.items import Videos
from nrccr.data.sampling import epoch_batches
from nrccr.data.tokens import CaptionTokenizer
from nrccr.data.videoframes import read_video_frames
from nrccr.systems.nrccr.data import Pairs, Reader
from nrccr.systems.settings import load_config

CONFIGS = Path(__file__).parents[1] / "configs" / "nrccr"
FLOAT_BYTES = 4


class PlainBatches:
    """Batches made the obvious way, from text and single frames."""

    def __init__(self, reader: Reader, pairs: Pairs, features: BigFile) -> None:
        files = reader.collection.split("train")
        assert files.back is not None
        captions = [read_captions(path) for path in (files.source, files.target, files.back)]
        source, target, back = match(captions, reader.mismatch_tolerance).captions
        self.items = source.items
        self.texts = (reader.cleaning.of_training(source.texts), target.texts, reader.cleaning.of_back(back.texts))
        self.tokenizer, self.max_tokens = reader.tokenizer.tokenizer, reader.tokenizer.max_tokens
        self.max_frames, self.features, self.item_of = reader.max_frames, features, pairs.item_of

    def __call__(self, indices: npt.NDArray[np.int64]) -> PairBatch:
        videos = [self._video(self.items[index]) for index in indices]
        longest = max(map(len, videos))
        frames = torch.zeros(len(videos), longest, self.features.width)
        mask = torch.zeros(len(videos), longest, dtype=torch.bool)
        for row, video in enumerate(videos):
            frames[row, : len(video)] = torch.tensor(video)
            mask[row, : len(video)] = True
        source, target, back = ([texts[index] for index in indices] for texts in self.texts)
        return PairBatch(
            source=self._tokens(source),
            target=self._tokens(target),
            back=self._tokens(back),
            visual=VideoBatch(frames, mask),
            items=torch.from_numpy(self.item_of[indices]),
        )

    def _video(self, video: str) -> list[list[float]]:
        frames = []
        for row in self.features.rows(video)[: self.max_frames]:
            with (self.features.folder / "feature.bin").open("rb") as file:
                file.seek(int(row) * self.features.width * FLOAT_BYTES)
                values = array.array("f")
                values.fromfile(file, self.features.width)
            frames.append(values.tolist())
        return frames

    def _tokens(self, texts: list[str]) -> TextBatch:
        rows = [self.tokenizer(text, truncation=True, max_length=self.max_tokens)["input_ids"] for text in texts]
        return padded_plainly(rows)


def random_videos(videos: list[str], frames: int, width: int) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Videos of `frames` / 2 to 1.5 `frames` random frames."""
    random = np.random.default_rng(0)
    for video in videos:
        count = int(random.integers(max(1, frames // 2), frames + frames // 2 + 1))
        yield video, random.random((count, width), dtype=np.float32)


def opening(folder: Path) -> dict[str, float]:
    """Seconds to read which frames make up which video, ours and by Python's parser, and to open the whole folder."""
    seconds, names = {}, folder / "video2frames.txt"
    found = []
    for name, read in (
        ("ours", lambda: read_video_frames(names)),
        ("literal_eval", lambda: ast.literal_eval(names.read_text("utf-8"))),
        ("whole_folder", lambda: BigFile(folder)),
    ):
        start = time.perf_counter()
        found.append(read())
        seconds[name] = time.perf_counter() - start
    assert found[0] == found[1]
    return seconds


def same(ours: PairBatch, plain: PairBatch) -> bool:
    """Whether all tensors of two batches are equal."""
    pairs: list[tuple[Any, Any]] = [(ours.items, plain.items)]
    for name in ("source", "target", "back"):
        one, other = getattr(ours, name), getattr(plain, name)
        pairs += [(one.tokens, other.tokens), (one.mask, other.mask)]
    assert isinstance(ours.visual, VideoBatch) and isinstance(plain.visual, VideoBatch)
    pairs += [(ours.visual.frames, plain.visual.frames), (ours.visual.mask, plain.visual.mask)]
    return all(torch.equal(one, other) for one, other in pairs)


def measure(config: Any, root: Path, arguments: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Compare both ways on the same batches."""
    tokenizer = CaptionTokenizer(config.text.model, config.text.max_tokens)
    reader = Reader.open(config, root, tokenizer)
    pairs = replace(reader.pairs(), parts=1)
    folder = place / "frames"
    write_bigfile(folder, random_videos(list(pairs.visuals.ids), arguments.frames, arguments.width))
    features = BigFile(folder)
    pairs = replace(pairs, visuals=Videos(features, pairs.visuals.ids, reader.max_frames, "first"))
    plain = PlainBatches(reader, pairs, features)
    batches = epoch_batches(len(pairs), config.train.batch_size, 0, 0)[: arguments.batches]
    if not all(same(pairs.batch(indices), plain(indices)) for indices in batches):
        raise SystemExit("the two ways give different batches")

    ways = {
        "ours": lambda: [len(pairs[indices].parts) for indices in batches],
        "plain": lambda: [len(plain(indices).items) for indices in batches],
    }
    measured = alternating(ways, arguments.rounds)
    count = sum(map(len, batches))
    moved = sum(
        batch.frames.numel() * FLOAT_BYTES for batch in (pairs.visuals.batch(pairs.item_of[one]) for one in batches)
    )
    rate = copy_rate()
    rates = {name: count / own.median for name, own in measured.items()}
    figures = {
        "pairs": count,
        "batch_size": config.train.batch_size,
        "width": arguments.width,
        "ways": {name: own.figures() for name, own in measured.items()},
        "pairs_per_second": rates,
        "ratio": measured["plain"].median / measured["ours"].median,
        "ratio_of_processor_time": measured["plain"].processor / measured["ours"].processor,
        "floor": {"bytes": moved, "bytes_per_second": rate, "seconds": moved / rate},
        "distance": measured["ours"].processor / (moved / rate),
        "opening": opening(folder),
    }
    for name, own in measured.items():
        wall, processor = (1e3 * seconds / len(batches) for seconds in (own.median, own.processor))
        print(
            f"{name:6s} {rates[name]:10,.0f} pairs/s   {wall:8.1f} ms a batch ({processor:.1f} of the processor)   "
            f"peak memory +{own.peak_mb:.0f} MB"
        )
    return figures


def main() -> None:
    """Measure, print, write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, nargs="?")
    parser.add_argument("--root", type=Path, help="of the captions; without one they are generated")
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--frames", type=int, default=32, help="mean frames a video")
    parser.add_argument("--batches", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_intermixed_args()
    if (arguments.config is None) != (arguments.root is None):
        parser.error("give CONFIG and --root together, or neither")
    with tempfile.TemporaryDirectory() as name:
        place, root, overrides = Path(name), arguments.root, arguments.overrides
        if root is None:
            root = place
            overrides = [f"text.model={generate(place, Recipe()) / 'backbone'}", *overrides]
        config = load_config(arguments.config or CONFIGS / "generated.yaml", overrides)
        figures = measure(config, root, arguments, place)
    floor = figures["floor"]["seconds"] / arguments.batches * 1e3
    print(f"equal batches; ratio {figures['ratio']:.1f}, of processor time {figures['ratio_of_processor_time']:.1f}")
    print(f"floor {floor:.1f} ms of the processor a batch, {figures['distance']:.1f} times below ours")
    print(record("feed", {"captions": "given" if arguments.root else "generated", **figures}, arguments.out))


if __name__ == "__main__":
    main()
