#!/usr/bin/env python3
"""Captions a second of a translation model: in batches by length, in batches in file order, one by one, in one run.

python benchmarks/translate.py models/en-zh en zh ROOTPATH/generated/TextData/generatedtrain.caption.txt
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from pathlib import Path

import torch

from nrccr.data.captions import read_captions
from nrccr.distributed import choose_device, describe_device
from nrccr.translation.translator import BATCH_SIZE, Translator, load_translator


def translate(translator: Translator, texts: list[str], batches: Iterable[list[int]]) -> tuple[list[str], float]:
    """Translations in the order of the texts, and the seconds that they took."""
    made = [""] * len(texts)
    start = time.perf_counter()
    for batch in batches:
        for index, text in zip(batch, translator.translate_batch([texts[index] for index in batch]), strict=True):
            made[index] = text
    return made, time.perf_counter() - start


def main() -> None:
    """Time the three ways, each `--repeats` times in turn, and count where their translations differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("captions", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE)
    parser.add_argument("--device")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    device = choose_device(arguments.device)
    translator = load_translator(arguments.model, arguments.source, arguments.target, device, beams=arguments.beams)
    texts = read_captions(arguments.captions).texts[: arguments.count]
    size = arguments.batch_size
    in_order = [list(range(start, min(start + size, len(texts)))) for start in range(0, len(texts), size)]
    ways = {
        "by length": list(translator.batches(texts, size)),
        "in file order": in_order,
        "one by one": [[index] for index in range(len(texts))],
    }
    print(
        f"{len(texts)} captions, batches of {size}, {arguments.beams} beams, {describe_device(device)}, "
        f"{arguments.threads} threads"
    )
    translate(translator, texts, in_order[:2])  # warm up
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    made: dict[str, list[str]] = {}
    for _ in range(arguments.repeats):
        for name, batches in ways.items():
            made[name], used = translate(translator, texts, batches)
            seconds[name].append(used)
    for name, used in seconds.items():
        best, worst = len(texts) / min(used), len(texts) / max(used)
        changed = sum(a != b for a, b in zip(made[name], made["by length"], strict=True))
        print(f"{name:14s} {best:8.1f} captions/s (slowest {worst:.1f})   {changed} differ from those by length")


if __name__ == "__main__":
    main()
