"""Retrieval metrics of five weights, both directions: ours beside the per-query argsort loop.

    python benchmarks/metrics.py [--queries 15000] [--items 1500] [--threads N]

The scores are random cosines with as many captions an item as divide evenly, mixed as the weight sweep mixes them. Both
ways must agree on every metric, or the script fails.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from nrccr.evaluation.metrics import recall_sum, retrieval_metrics

WEIGHTS = (1.0, 0.8, 0.5, 0.2, 0.0)
Matrix = npt.NDArray[np.float32]


def slow_metrics(scores: Matrix, relevant: list[list[int]]) -> dict[str, float]:
    """One stable argsort a query."""
    best, precision = [], []
    for row, columns in zip(scores, relevant, strict=True):
        place = np.empty(len(row), dtype=np.int64)
        place[np.argsort(-row, kind="stable")] = np.arange(1, len(row) + 1)
        ranks = np.sort(place[columns])
        best.append(ranks[0])
        precision.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    recalls = {f"R@{k}": 100.0 * np.mean(np.array(best) <= k) for k in (1, 5, 10)}
    rest = {"MedR": np.median(best), "MeanR": np.mean(best), "mAP": 100.0 * np.mean(precision)}
    return {name: float(value) for name, value in (recalls | rest).items()}


def sweep(
    metrics: Callable[[Matrix, list[list[int]]], dict[str, float]],
    source: Matrix,
    target: Matrix,
    text_relevant: list[list[int]],
    visual_relevant: list[list[int]],
) -> tuple[list[dict[str, float]], float, float, float]:
    """All metrics of all weights, and the seconds spent on mixing, text to visual and visual to text."""
    results: list[dict[str, float]] = []
    seconds = np.zeros(3)
    source_scores, target_scores = torch.from_numpy(source), torch.from_numpy(target)
    mixed = torch.empty_like(source_scores)
    for weight in WEIGHTS:
        times = [time.perf_counter()]
        torch.lerp(target_scores, source_scores, weight, out=mixed)
        times.append(time.perf_counter())
        results.append(metrics(mixed.numpy(), text_relevant))
        times.append(time.perf_counter())
        results.append(metrics(mixed.numpy().T, visual_relevant))
        times.append(time.perf_counter())
        seconds += np.diff(times)
    mixing, forward, backward = map(float, seconds)
    return results, mixing, forward, backward


def main() -> None:
    """Time both ways and compare what they return."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=15_000)
    parser.add_argument("--items", type=int, default=1_500)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    owner = np.arange(arguments.queries) * arguments.items // arguments.queries
    text_relevant = [[int(item)] for item in owner]
    visual_relevant = [np.flatnonzero(owner == item).tolist() for item in range(arguments.items)]
    random = np.random.default_rng(0)
    visual = random.standard_normal((arguments.items, 64), dtype=np.float32)

    def similarities() -> Matrix:
        noise = random.standard_normal((arguments.queries, 64), dtype=np.float32)
        text = visual[owner] + 2.0 * noise
        unit = [vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (text, visual)]
        scores: Matrix = unit[0] @ unit[1].T
        return scores

    source, target = similarities(), similarities()
    sweep(retrieval_metrics, source[:200], target[:200], text_relevant[:200], [[0]] * arguments.items)  # warm up
    print(f"{arguments.queries} queries x {arguments.items} items, {len(WEIGHTS)} weights, {arguments.threads} threads")
    totals: dict[str, float] = {}
    answers: dict[str, list[dict[str, float]]] = {}
    for name, metrics in (("ours", retrieval_metrics), ("argsort loop", slow_metrics)):
        answers[name], *seconds = sweep(metrics, source, target, text_relevant, visual_relevant)
        totals[name] = sum(seconds)
        mixing, forward, backward = seconds
        print(
            f"{name:13s} total {sum(seconds):7.2f} s   mixing {mixing:5.2f}   "
            f"text to visual {forward:6.2f}   visual to text {backward:6.2f}"
        )
    for fast, slow in zip(answers["ours"], answers["argsort loop"], strict=True):
        if any(abs(fast[key] - slow[key]) > 1e-9 for key in slow):
            raise SystemExit(f"the two ways differ: {fast} and {slow}")
    forward_80, backward_80 = answers["ours"][2:4]
    print(f"equal on all metrics (SumR at weight 0.8: {recall_sum(forward_80, backward_80):.1f})")
    print(f"ratio {totals['argsort loop'] / totals['ours']:.1f}")


if __name__ == "__main__":
    main()
