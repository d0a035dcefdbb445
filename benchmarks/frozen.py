"""A training step of NRCCR with what the frozen layers give read from `text.cache`, beside steps that compute it.

    python benchmarks/frozen.py [CONFIG --root ROOT] [--steps N] [--captions N] [--name NAME] [key=value ...]

Three ways in turns on one network, without dropout, with the same losses: the plain way of benchmarks/step.py, ours,
and ours with the cache; once with the configured layers frozen and once with `text.freeze=all_frozen`. Captions are the
first of ROOT's training split, or generated ones. Beside the steps: what making the cache costs, in time and on disk.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, alternating, record
from step import CONFIGS, PlainBatches, Turns, plain_forward, plain_step, prepare, torchs_products
from torch import Tensor

from nrccr.config.schema import Config
from nrccr.data.batch import PairBatch, Parts
from nrccr.data.cleaning import clean_english
from nrccr.data.generated.collection import Recipe, generate
from nrccr.data.sampling import epoch_batches
from nrccr.data.tokens import CaptionTokenizer
from nrccr.features.text_cache import TextCache
from nrccr.models.packing import NAME
from nrccr.systems.nrccr.data import Pairs, Reader
from nrccr.systems.settings import load_config
from nrccr.training.loop import Trainer
from nrccr.training.task import total

CPU = torch.device("cpu")


def first_pairs(reader: Reader, pairs: Pairs, plain: PlainBatches, count: int) -> Pairs:
    """The first pairs alone, whose cache takes minutes instead of hours."""
    texts = [clean_english(text) for text in plain.source.texts[:count]]
    tables = [reader.tokenizer.encode(own) for own in (texts, plain.target.texts[:count], plain.back.texts[:count])]
    return replace(pairs, source=tables[0], target=tables[1], back=tables[2], item_of=pairs.item_of[:count])


def cached_pairs(pairs: Pairs, trainer: Trainer, folder: Path, batch_size: int) -> tuple[Pairs, dict[str, Any]]:
    """The pairs with the states of a trainer's frozen layers, and what making them took."""
    start = time.process_time()
    cache = TextCache(folder, trainer.network.text.backbone, CPU, batch_size)
    hashing = time.process_time() - start
    tables = {name: cache.read(name, getattr(pairs, name)) for name in ("source", "target", "back")}
    captions = sum(map(len, tables.values()))
    figures = {
        "layers": cache.layers,
        "captions": captions,
        "tokens": int(sum(table.lengths.sum() for table in tables.values())),
        "hash_of_weights": hashing,
        "processor_per_1000_captions": (time.process_time() - start - hashing) / captions * 1000,
        "mb_per_1000_captions": sum(p.stat().st_size for p in folder.rglob("states.bin")) / captions / 1000,
    }
    return replace(pairs, **tables), figures


class Ways:
    """Three ways of a step of one network: a copy each of BERT-base and its moments would fill a small machine.

    Args:
        trainer: of the network.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        discriminator = trainer.players["discriminator"].module
        self.optimizers = [
            torch.optim.Adam(own, lr=1e-4, foreach=False) for own in (trainer.trainable, discriminator.parameters())
        ]

    @contextmanager
    def obvious(self) -> Iterator[None]:
        """Eager attention and torch's own products inside."""
        backbone = self.trainer.network.text.backbone
        backbone.set_attn_implementation("eager")
        with torchs_products():
            yield
        backbone.set_attn_implementation(NAME)

    def plain(self, pairs: PairBatch) -> Tensor:
        """The obvious step."""
        with self.obvious():
            return plain_step(self.trainer, self.optimizers, pairs)

    def ours(self, made: Parts[PairBatch]) -> Tensor:
        """Our step, with states in the batch or without."""
        return self.trainer.step(made)["total"].detach()

    @torch.no_grad()
    def same_losses(self, plain: PairBatch, *ours: Parts[PairBatch]) -> None:
        """Make sure that all ways compute the same losses of the same weights."""
        with self.obvious():
            wanted = total(self.trainer.losses(plain_forward(self.trainer.network, plain), Parts([plain])))
        for made in ours:
            found = total(self.trainer.losses(self.trainer.network(*made.parts), made))
            np.testing.assert_allclose(float(found), float(wanted), rtol=1e-5)


def measure(config: Config, reader: Reader, pairs: Pairs, plain: PlainBatches, steps: int) -> dict[str, Any]:
    """Figures of the three ways with one choice of frozen layers."""
    batches = epoch_batches(len(pairs), config.train.batch_size, config.seed, 0)
    trainer = prepare(config, reader, pairs, CPU, "fp32", plain=False)
    ways = Ways(trainer)
    with tempfile.TemporaryDirectory() as name:
        with_states, making = cached_pairs(pairs, trainer, Path(name), config.evaluation.batch_size)
        ways.same_losses(plain(batches[0]), pairs[batches[0]], with_states[batches[0]])
        turns = {
            "plain": Turns(plain, ways.plain, batches),
            "ours": Turns(pairs.__getitem__, ways.ours, batches),
            "cached": Turns(with_states.__getitem__, ways.ours, batches),
        }
        calls = {}
        for way, own in turns.items():
            own.batch()
            own.step()  # memory of optimisers and kernels is there afterwards
            calls |= {f"{way} batch": own.batch, f"{way} step": own.step}
        measured = alternating(calls, steps, repeated=True)
    seconds = {way: measured[f"{way} step"].processor + measured[f"{way} batch"].processor for way in turns}
    return {
        "cache": making,
        "ways": {way: own.figures() for way, own in measured.items()},
        "processor_of_batch_and_step": seconds,
        "ratio_of_processor_time": {way: seconds[way] / seconds["cached"] for way in ("plain", "ours")},
    }


def main() -> None:
    """Measure, print, write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, nargs="?")
    parser.add_argument("--root", type=Path, help="of the collection; without one it is generated")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--captions", type=int, default=256, help="pairs of which the cache is made")
    parser.add_argument("--name", default="frozen", help="of the record")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_intermixed_args()
    if (arguments.config is None) != (arguments.root is None):
        parser.error("give CONFIG and --root together, or neither")
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        root, overrides = arguments.root, ["reading=corrected", *arguments.overrides]
        if root is None:
            root = Path(name)
            model = generate(root, Recipe()) / "backbone"
            overrides = [f"text.model={model}", "text.freeze=frozen", "text.trainable_layers=[1]", *overrides]
        config = load_config(arguments.config or CONFIGS / "generated.yaml", overrides)
        reader = Reader.open(config, root, CaptionTokenizer(config.text.model, config.text.max_tokens))
        everything = reader.pairs()
        plain = PlainBatches(reader, everything)
        pairs = first_pairs(reader, everything, plain, arguments.captions)
        for freeze in ("frozen", "all_frozen"):
            text = config.text.model_copy(update={"freeze": freeze})
            figures[freeze] = measure(config.model_copy(update={"text": text}), reader, pairs, plain, arguments.steps)
            gc.collect()  # networks and moments of the first choice
    for freeze, own in figures.items():
        for way, measured in own["ways"].items():
            print(
                f"{freeze:10s} {way:12s} {measured['processor']:8.4f} s of the processor, {measured['median']:8.4f} by "
                f"the clock, peak memory +{measured['peak_mb']:.0f} MB"
            )
        print(
            f"{freeze}: cached against", {way: round(value, 2) for way, value in own["ratio_of_processor_time"].items()}
        )
        print(f"{freeze}: cache", own["cache"])
    print(record(arguments.name, {"batch_size": config.train.batch_size, **figures}, arguments.out))


if __name__ == "__main__":
    main()
