"""Indexes of random unit vectors around centres: time to build, size, queries, recall, adding and removing 1 %.

    python benchmarks/search.py FOLDER [--count 1000000] [--width 256] [--queries 500] [--intrinsic 30] [--kinds hnsw]

Vectors lie around 10,000 centres, each with noise of half the centre's length in all dimensions, queries beside vectors
of the set. With --intrinsic they are a smooth function of so few numbers, as a network's embeddings are, around 1,000
centres; a query's numbers are those of a vector of the set, a little changed.
Exact, IVF-PQ and HNSW are built, written, and searched from a map of the file, one query at a time. FOLDER gets
the files.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import faiss
import numpy as np

from nrccr.search.vectors import KINDS, Shape, Vectors, read_vectors

CHANGED = 0.3  # of a query's numbers, whose deviation is 1
SHAPES = (
    Shape("exact"),
    Shape("ivfpq", lists=1024, code_bytes=32),
    Shape("ivfpq", lists=1024, code_bytes=64),
    Shape("hnsw", links=16, effort=40),
)
EFFORTS: dict[str, tuple[int | None, ...]] = {"exact": (None,), "ivfpq": (1, 8, 32, 128), "hnsw": (16, 64, 256)}


def drawn(count: int, width: int, seed: int) -> np.ndarray:
    """Unit vectors (count, width) around the same 10,000 centres for every seed."""
    centres = np.random.default_rng(0).standard_normal((10_000, width), dtype=np.float32)
    random = np.random.default_rng(seed)
    rows = centres[random.integers(0, len(centres), count)]
    rows += 0.5 * random.standard_normal((count, width), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def smooth(count: int, width: int, intrinsic: int, queries: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors (count, width), a hundredth more, and queries, all smooth functions of a few numbers each."""
    fixed, random = np.random.default_rng(0), np.random.default_rng(1)
    centres = fixed.standard_normal((1000, intrinsic), dtype=np.float32)
    first = fixed.standard_normal((intrinsic, 2 * width), dtype=np.float32) / np.sqrt(intrinsic)
    second = fixed.standard_normal((2 * width, width), dtype=np.float32)
    total = count + count // 100
    numbers = centres[random.integers(0, len(centres), total)] * np.float32(0.8)
    numbers += np.float32(0.6) * random.standard_normal(numbers.shape, dtype=np.float32)
    asked = numbers[random.integers(0, count, queries)]
    asked = asked + np.float32(CHANGED) * random.standard_normal(asked.shape, dtype=np.float32)
    rows = np.concatenate([np.tanh(part @ first) @ second for part in (*np.array_split(numbers, 64), asked)])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows[:count], rows[count:total], rows[total:]


def main() -> None:
    """Build, search, add and remove; a line of JSON for each measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="besides exact")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--intrinsic", type=int, help="numbers that a vector depends on")
    options = parser.parse_args()
    count, width = options.count, options.width
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.intrinsic:
        vectors, more, queries = smooth(count, width, options.intrinsic, options.queries)
    else:
        vectors, more, queries = (
            drawn(size, width, seed) for seed, size in ((1, count), (2, count // 100), (3, options.queries))
        )
    keys, nothing = np.arange(count), np.empty(0, dtype=np.int64)
    right: np.ndarray | None = None
    sys.stdout.write(f"{count} x {width}, {faiss.omp_get_max_threads()} threads, load {os.getloadavg()[0]:.1f}\n")
    for shape in (shape for shape in SHAPES if shape.kind in ("exact", *options.kinds)):
        started = time.perf_counter()
        built = Vectors.build(vectors, keys, shape)
        figures: dict[str, object] = {"kind": shape.kind}
        if shape.kind == "ivfpq":
            figures["code_bytes"] = shape.code_bytes
        figures |= {"build_s": round(time.perf_counter() - started, 1)}
        path = options.folder / f"{shape.kind}.faiss"
        built.write(path)
        figures["megabytes"] = round(path.stat().st_size / 1e6)
        started = time.perf_counter()
        built.add(more, np.arange(count, count + len(more)))
        figures["add_s"] = round(time.perf_counter() - started, 2)
        started = time.perf_counter()
        built.remove(keys[::100])
        figures["remove_s"] = round(time.perf_counter() - started, 2)
        del built
        sys.stdout.write(json.dumps(figures) + "\n")
        mapped = read_vectors(path, shape, width, count, mapped=True)
        for effort in EFFORTS[shape.kind]:
            times, found = [], []
            for query in queries:
                started = time.perf_counter()
                found.append(mapped.search(query[None], 10, nothing, effort)[1][0])
                times.append(1000 * (time.perf_counter() - started))
            if right is None:
                right = np.array(found)
            recall = np.mean([len({*mine} & {*best}) for mine, best in zip(found, right, strict=True)]) / 10
            median, last = np.percentile(times, [50, 99])
            line = {
                "effort": effort,
                "median_ms": round(median, 3),
                "p99_ms": round(last, 3),
                "recall@10": round(recall, 3),
            }
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
