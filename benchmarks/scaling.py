"""The feed of a web-scale collection, simulated: the order of an epoch, and what tokens take in memory.

No data is needed. Positions are drawn for COUNT captions as a training draws them, cut into batches, and shared among
processes. What tokens, captions and features hold in memory is measured on SAMPLE of them.

    python benchmarks/scaling.py [--count 100000000] [--batch 128] [--processes 8] [--sample 1000000]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from nrccr.data.bigfile import BigFile, write_bigfile
from nrccr.data.captions import read_captions
from nrccr.data.items import Videos
from nrccr.data.sampling import epoch_batches, shares
from nrccr.data.tokens import TokenTable

READ = 100_000  # batches that are read to measure the feed


def memory() -> int:
    """Bytes of main memory that this process holds now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def order(count: int, batch: int, processes: int) -> dict[str, float]:
    """An epoch's order: seconds and memory to draw it, and batches a second in one process's share."""
    before, begun = memory(), time.perf_counter()
    batches = epoch_batches(count, batch, seed=0, epoch=0, least=processes)
    drawn = time.perf_counter()
    held = memory() - before
    read = min(READ, len(batches))
    taken = sum(len(shares(batches[place], processes)[0]) for place in range(len(batches) - read, len(batches)))
    seconds = time.perf_counter() - drawn
    resumed = time.perf_counter()
    later = batches[len(batches) // 2 :]
    assert len(later[0]) == batch and taken >= read
    return {
        "batches": len(batches),
        "seconds to draw": drawn - begun,
        "bytes held": held,
        "bytes held a caption": held / count,
        "batches read a second": read / seconds,
        "seconds to resume in the middle": time.perf_counter() - resumed,
    }


def tokens(count: int) -> dict[str, float]:
    """Tokens of captions of 5 to 40: bytes a caption, and captions a second in batches of 128, padded."""
    lengths = np.random.default_rng(0).integers(5, 41, count)
    before = memory()
    table = TokenTable([range(length) for length in lengths.tolist()], 0)
    held = memory() - before
    chosen = np.random.default_rng(1).permutation(count)[: 128 * 2000]
    begun = time.perf_counter()
    for place in range(0, len(chosen), 128):
        table.batch(chosen[place : place + 128])
    seconds = time.perf_counter() - begun
    return {
        "a caption": float(lengths.mean()),
        "bytes a caption": held / count,
        "captions a second": len(chosen) / seconds,
    }


def collection(videos: int, frames: int, captions: int) -> dict[str, float]:
    """What a reader holds for each frame, video and caption while a training begins."""
    width = 4  # vectors stay on disk
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vectors = np.zeros((frames, width), dtype=np.float32)
        write_bigfile(folder / "features", ((f"video{number:08d}", vectors) for number in range(videos)))
        start = memory()
        features = BigFile(folder / "features")
        opened = memory()
        items = Videos(features, [f"video{number:08d}" for number in range(videos)], frames, "first")
        chosen = memory()
        lines = (
            f"video{number % videos:08d}#enc#{number // videos} a man sings a song\n" for number in range(captions)
        )
        (folder / "a.caption.txt").write_text("".join(lines))
        before = memory()
        texts = read_captions(folder / "a.caption.txt")
        after = memory()
    assert len(items) == videos and len(texts) == captions
    return {
        "bytes a frame, index of features": (opened - start) / (videos * frames),
        "bytes a video, chosen frames": (chosen - opened) / videos,
        "bytes a caption, as read": (after - before) / captions,
    }


def main() -> None:
    """Print what was measured, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000_000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--sample", type=int, default=1_000_000)
    given = parser.parse_args()
    found = {"captions": given.count, "batch": given.batch, "processes": given.processes}
    found |= order(given.count, given.batch, given.processes)
    found |= {"tokens": tokens(given.sample), "objects": collection(given.sample // 10, 10, given.sample)}
    found |= {"load": os.getloadavg()[0], "cores": os.cpu_count()}
    found["peak bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
