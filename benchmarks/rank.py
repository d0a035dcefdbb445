"""Ranks and metrics of five weights, both directions: ours beside plain loops over label lists, in turns.

    python benchmarks/rank.py [--queries 15000] [--items 1500] [--rounds 3] [--noise 4] [--out benchmarks/results]

The plain way sorts, for each query, a list of labels (1 at its relevant items) by a stable argsort of its scores and
walks through it. Both get the ground truth as lists, mix the two languages' scores as the sweep does, and must agree on
every metric. Scores are random cosines with as many captions an item as divide evenly; more noise, harder to find.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from common import RESULTS, alternating, best_seconds, read_rate, record

from nrccr.evaluation.counting import PART_ENTRIES
from nrccr.evaluation.evaluate import SWEEP
from nrccr.evaluation.metrics import recall_sum, retrieval_metrics

Matrix = npt.NDArray[np.float32]
Relevant = list[list[int]]
WIDTH = 64  # of the vectors behind the scores


def plain_metrics(scores: Matrix, relevant: Relevant) -> dict[str, float]:
    """A label list built, sorted and walked through for every query."""
    best, precision = [], []
    for row, columns in zip(scores, relevant, strict=True):
        labels = [0] * len(row)
        for column in columns:
            labels[column] = 1
        ordered = [labels[column] for column in np.argsort(-row, kind="stable")]
        best.append(ordered.index(1) + 1)
        found, total = 0, 0.0
        for place, label in enumerate(ordered, start=1):
            if label:
                found += 1
                total += found / place
        precision.append(total / found)
    recalls = {f"R@{k}": 100.0 * float(np.mean(np.array(best) <= k)) for k in (1, 5, 10)}
    rest = {"MedR": np.median(best), "MeanR": np.mean(best), "mAP": 100.0 * np.mean(precision)}
    return recalls | {name: float(value) for name, value in rest.items()}


class Scores:
    """Scores of two languages and what is relevant in both directions."""

    def __init__(self, queries: int, items: int, noise: float) -> None:
        owner = np.arange(queries) * items // queries
        self.text_relevant: Relevant = [[int(item)] for item in owner]
        self.visual_relevant: Relevant = [np.flatnonzero(owner == item).tolist() for item in range(items)]
        random = np.random.default_rng(0)
        visual = random.standard_normal((items, WIDTH), dtype=np.float32)
        self.sides = []
        for _ in range(2):
            texts = visual[owner] + noise * random.standard_normal((queries, WIDTH), dtype=np.float32)
            unit = [vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (texts, visual)]
            self.sides.append(unit[0] @ unit[1].T)

    def swept(
        self, metrics: Callable[[Matrix, Relevant], dict[str, float]], direction: str
    ) -> Callable[[], list[dict[str, float]]]:
        """A function that computes the metrics of one direction at all weights, mixing included."""

        def run() -> list[dict[str, float]]:
            source, target = map(torch.from_numpy, self.sides)
            mixed, found = torch.empty_like(source), []
            for weight in SWEEP:
                scores: Matrix = torch.lerp(target, source, weight, out=mixed).numpy()
                if direction == "text_to_visual":
                    found.append(metrics(scores, self.text_relevant))
                else:
                    found.append(metrics(scores.T, self.visual_relevant))
            return found

        return run

    def floor(self) -> dict[str, Any]:
        """What cannot be spared, and the seconds that one thread of this machine needs for it when it is let."""
        queries, items = self.sides[0].shape
        # Both sides read and the mixture written and read, for each direction and weight; each relevant item compared
        # with its row.
        moved = 2 * len(SWEEP) * 4 * self.sides[0].nbytes
        compared = len(SWEEP) * (queries * items + sum(map(len, self.visual_relevant)) * queries)
        part, bound = self.sides[0].reshape(-1)[:PART_ENTRIES], np.float32(0)
        mask = np.empty(part.shape, dtype=np.bool_)
        rate = len(part) / best_seconds(lambda: np.greater(part, bound, out=mask), rounds=200)
        reading = read_rate()
        seconds = moved / reading + compared / rate
        return {
            "bytes": moved,
            "comparisons": compared,
            "bytes_per_second": reading,
            "comparisons_per_second": rate,
            "seconds": seconds,
        }


def main() -> None:
    """Measure both ways, compare what they return, write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=15_000)
    parser.add_argument("--items", type=int, default=1_500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--noise", type=float, default=4.0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    scores = Scores(arguments.queries, arguments.items, arguments.noise)
    figures: dict[str, Any] = {"queries": arguments.queries, "items": arguments.items, "weights": len(SWEEP)}
    totals, processor = {"ours": 0.0, "plain": 0.0}, {"ours": 0.0, "plain": 0.0}
    answers = []
    for direction in ("text_to_visual", "visual_to_text"):
        ways = {"ours": scores.swept(retrieval_metrics, direction), "plain": scores.swept(plain_metrics, direction)}
        measured = alternating(ways, arguments.rounds)
        for name, own in measured.items():
            totals[name] += own.median
            processor[name] += own.processor
            figures[f"{direction}_{name}"] = own.figures()
            print(
                f"{direction:15s} {name:6s} {own.median:8.3f} s ({own.processor:.3f} of the processor)   "
                f"peak memory +{own.peak_mb:.0f} MB"
            )
        for fast, slow in zip(measured["ours"].result, measured["plain"].result, strict=True):
            if any(abs(fast[key] - slow[key]) > 1e-9 for key in slow):
                raise SystemExit(f"the two ways differ: {fast} and {slow}")
        answers.append(measured["ours"].result)
    floor = scores.floor()
    figures |= {
        "SumR": [recall_sum(*both) for both in zip(*answers, strict=True)],
        "seconds": totals,
        "processor_seconds": processor,
        "ratio": totals["plain"] / totals["ours"],
        "ratio_of_processor_time": processor["plain"] / processor["ours"],
        "floor": floor,
        "distance": processor["ours"] / floor["seconds"],
    }
    ratios = f"ratio {figures['ratio']:.1f}, of processor time {figures['ratio_of_processor_time']:.1f}"
    print(f"equal on all metrics (SumR {figures['SumR'][1]:.1f}); {ratios}")
    print(f"floor {floor['seconds']:.3f} s of the processor, {figures['distance']:.1f} times below ours")
    print(record("rank", figures, arguments.out))


if __name__ == "__main__":
    main()
