"""Normalisation and ranking: ours beside the dense NumPy way, and a search too large to hold, in bounded memory.

    python benchmarks/normalise.py [--queries 15000] [--items 1500] [--bank 5000] [--threads N]
    python benchmarks/normalise.py --large [--queries 1000000] [--items 100000] [--slice 2048] [--memory-mb 256]

The first checks that both ways give the same ranks (`dis`, both directions), or fails. The second ranks a slice of the
queries among all items, raw and with `nnn`, from memory-mapped embeddings, and multiplies up to all queries; on a GPU
`--slice` may be the number of queries.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from nrccr.evaluation.blocks import Blocks, Cosines, DenseScores, Transposed
from nrccr.evaluation.metrics import ranks_and_precision
from nrccr.evaluation.normalise import Settings, normalised

Array = npt.NDArray[np.float32]
BETA, K, WIDTH = 20.0, 1, 256


def unit(generator: np.random.Generator, rows: int, width: int) -> Array:
    vectors = generator.standard_normal((rows, width), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def dense_ranks(test: Array, bank: Array, relevant: list[list[int]]) -> npt.NDArray[np.float64]:
    """The usual way: dynamic inverted softmax of a copy, one argsort a row (float64, so that nothing overflows)."""
    test, bank = test.astype(np.float64), bank.astype(np.float64)
    active = np.unique(np.argsort(-bank, axis=1, kind="stable")[:, :K])
    sums = np.exp(BETA * bank).sum(axis=0)
    rows = np.isin(test.argmax(axis=1), active)
    test[rows] = np.exp(BETA * test[rows]) / sums
    best = np.empty(len(test))
    for row, (scores, columns) in enumerate(zip(test, relevant, strict=True)):
        place = np.empty(len(scores))
        place[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
        best[row] = place[columns].min()
    return best


def beside_dense(queries: int, items: int, bank_size: int) -> None:
    """Both directions, both ways."""
    generator = np.random.default_rng(0)
    owner = np.arange(queries) * items // queries
    captions = [np.flatnonzero(owner == item).tolist() for item in range(items)]
    visual = unit(generator, items, 64)
    texts = visual[owner] + 0.25 * unit(generator, queries, 64) * np.sqrt(64)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    forward_bank, backward_bank = unit(generator, bank_size, 64) @ visual.T, unit(generator, bank_size, 64) @ texts.T
    scores = texts @ visual.T
    print(f"{queries:,} x {items:,}, bank of {bank_size:,}, dis, {torch.get_num_threads()} threads")
    totals = {"ours": 0.0, "dense": 0.0}
    for label, matrix, bank, relevant in (
        ("text to visual", scores, forward_bank, [[int(item)] for item in owner]),
        ("visual to text", scores.T, backward_bank, captions),
    ):
        start = time.perf_counter()
        made = normalised(DenseScores(matrix), DenseScores(bank), settings=Settings("dis", BETA, K))
        ours, _ = ranks_and_precision(made, relevant)
        middle = time.perf_counter()
        theirs = dense_ranks(matrix, bank, relevant)
        seconds = {"ours": middle - start, "dense": time.perf_counter() - middle}
        print(f"{label}   ours {seconds['ours']:6.2f} s   dense NumPy {seconds['dense']:6.2f} s")
        totals = {name: totals[name] + seconds[name] for name in totals}
        if not np.array_equal(ours, theirs):
            raise SystemExit(f"{label}: {(ours != theirs).sum()} ranks differ")
    print(f"equal ranks; ratio {totals['dense'] / totals['ours']:.1f}")


def large(queries: int, items: int, part: int, memory_mb: float) -> None:
    """A slice of the queries among all items, and what all would take."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        mapped: dict[str, Array] = {}
        for name, rows in (("items", items), ("texts", part), ("bank", min(part, 2048))):
            path = Path(folder) / f"{name}.npy"
            opened = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, WIDTH))
            for start in range(0, rows, 10_000):
                opened[start : start + 10_000] = unit(generator, len(opened[start : start + 10_000]), WIDTH)
            opened.flush()
            mapped[name] = np.load(path, mmap_mode="r")
        del opened
        owner = generator.integers(items, size=part)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        cosines: Blocks = Cosines(mapped["texts"], mapped["items"], device)
        print(f"{part:,} of {queries:,} queries x {items:,} items x {WIDTH}, memory_mb={memory_mb:g}, {device.type}")
        start = time.perf_counter()
        ranks_and_precision(cosines, owner, memory_mb=memory_mb)
        raw = time.perf_counter() - start
        start = time.perf_counter()
        bank = Cosines(mapped["bank"], mapped["items"], device)
        made = normalised(cosines, bank, settings=Settings("nnn", k=10), memory_mb=memory_mb)
        bias = time.perf_counter() - start
        start = time.perf_counter()
        ranks_and_precision(made, owner, memory_mb=memory_mb)
        after = time.perf_counter() - start
        start = time.perf_counter()
        first = Cosines(mapped["texts"], mapped["items"][: items // 10], device)
        captions = [[query % part] for query in range(items // 10)]
        ranks_and_precision(Transposed(first), captions, memory_mb=memory_mb)
        backward = 10 * (time.perf_counter() - start)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    times = queries / part / 3600
    print(f"raw ranks         {raw:7.1f} s   all {raw * times:7.2f} h")
    print(f"bank of {len(mapped['bank']):,}     {bias:7.1f} s   once")
    print(f"normalised ranks  {after:7.1f} s   all {after * times:7.2f} h")
    print(f"visual to text    {backward:7.1f} s   all {backward * times:7.2f} h   (from a tenth of the items)")
    print(f"peak memory grew by {grown:.0f} MB, the mapped items of {items * WIDTH * 4 / 2**20:.0f} MB included;")
    print(f"the matrix of all queries would take {queries * items * 4 / 2**30:,.0f} GB")


def main() -> None:
    """Read the arguments and run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--queries", type=int)
    parser.add_argument("--items", type=int)
    parser.add_argument("--bank", type=int, default=5000)
    parser.add_argument("--slice", type=int, default=2048)
    parser.add_argument("--memory-mb", type=float, default=256.0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.large:
        large(arguments.queries or 1_000_000, arguments.items or 100_000, arguments.slice, arguments.memory_mb)
    else:
        beside_dense(arguments.queries or 15_000, arguments.items or 1_500, arguments.bank)


if __name__ == "__main__":
    main()
