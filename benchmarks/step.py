"""A training step of NRCCR, ours beside the plain way, in turns in one run: seconds of batch and step, and the floor.

    python benchmarks/step.py [CONFIG --root ROOT] [--device cpu|cuda:0] [--steps N] [--name NAME]
        [--precision fp32|bf16] [key=value ...]

The plain way tokenises each caption anew in every batch, reads frames one by one, runs the backbone once a language
from token ids with eager attention and torch's own linear layers, projects queries, keys and values again for
cross-attention, runs the discriminator over padded captions and lets the adversary's term compute its own gradients,
trains the whole word table, and takes Adam's unfused steps. Same weights, same pairs, no dropout, same losses. Both
keep the memory that they free for the next step, as a training does. Captions are ROOT's, or generated.

The plain way is fp32; `--precision` is ours, and losses agree within 1e-5, in bf16 within 5 %.

The floor is the time of our step's matrix products alone (linear layers, convolutions, attention, their gradients), on
the operands that steps of the first three batches gave them, in turn with the two ways. On a CUDA device peak memory
is the device's, and the record holds which part of its measured peak these products reach in a step.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, alternating, padded_plainly, record
from products import Products
from torch import Tensor, nn

from nrccr.config.choices import Precision
from nrccr.config.schema import Config
from nrccr.data.batch import PairBatch, Parts, TextBatch, VideoBatch
from nrccr.data.captions import match, read_captions
from nrccr.data.cleaning import clean_english
from nrccr.data.generated.collection import Recipe, generate
from nrccr.data.sampling import epoch_batches
from nrccr.data.tokens import CaptionTokenizer, used_ids
from nrccr.distributed import Runtime, choose_device, keep_freed_memory, make_deterministic
from nrccr.models import fast
from nrccr.models.backbone import backbone_config, build_backbone
from nrccr.models.discriminator import Discriminator
from nrccr.models.layers import mean_over_positions
from nrccr.systems.nrccr.data import Pairs, Reader
from nrccr.systems.nrccr.network import NRCCR, BackboneStates, PairOutput, build_discriminator, build_nrccr
from nrccr.systems.nrccr.objective import NRCCRObjective, adversary
from nrccr.systems.settings import load_config
from nrccr.training.loop import Trainer
from nrccr.training.rows import train_used_rows
from nrccr.training.runfolder import RunFolder
from nrccr.training.task import Task, total

CONFIGS = Path(__file__).parents[1] / "configs" / "nrccr"


class PlainBatches:
    """Batches made the obvious way, from text and single frames."""

    def __init__(self, reader: Reader, pairs: Pairs) -> None:
        files = reader.collection.split("train")
        assert files.back is not None
        captions = [read_captions(path) for path in (files.source, files.target, files.back)]
        self.source, self.target, self.back = match(captions, reader.mismatch_tolerance).captions
        self.reader = reader
        self.pairs = pairs
        shape = (reader.features.count, reader.features.width)
        self.matrix = np.memmap(reader.features.folder / "feature.bin", np.float32, "r", shape=shape)

    def __call__(self, indices: np.ndarray) -> PairBatch:
        videos = [self.source.items[index] for index in indices]
        frames = [[self.matrix[row].copy() for row in self.reader.features.rows(video)[:64]] for video in videos]
        longest = max(map(len, frames))
        padded = torch.zeros(len(videos), longest, self.reader.features.width)
        mask = torch.zeros(len(videos), longest, dtype=torch.bool)
        for row, clip in enumerate(frames):
            for column, frame in enumerate(clip):
                padded[row, column] = torch.from_numpy(frame)
                mask[row, column] = True
        return PairBatch(
            source=self._tokens([clean_english(self.source.texts[index]) for index in indices]),
            target=self._tokens([self.target.texts[index] for index in indices]),
            back=self._tokens([self.back.texts[index] for index in indices]),
            visual=VideoBatch(padded, mask),
            items=torch.from_numpy(self.pairs.item_of[indices]),
        )

    def _tokens(self, texts: list[str]) -> TextBatch:
        rows = [self.reader.tokenizer.tokenizer(text)["input_ids"] for text in texts]
        return padded_plainly(rows)


def plain_forward(network: NRCCR, pairs: PairBatch) -> PairOutput:
    """The network's forward pass the obvious way."""
    text, block = network.text, network.text.block
    states, hidden = {}, {}
    for name in ("source", "target", "back"):
        batch: TextBatch = getattr(pairs, name)
        states[name] = text.backbone(input_ids=batch.tokens, attention_mask=batch.mask.long()).last_hidden_state
        hidden[name] = text.project(states[name])
    masks = {"source": pairs.source.mask, "target": pairs.target.mask, "back": pairs.back.mask}
    source = network.map_text(text.pool(hidden["source"], masks["source"]))
    target = network.map_text(text.pool(hidden["target"], masks["target"]))
    queries, keys = block.heads_of(hidden["source"]), block.heads_of(hidden["target"])
    taught = text.teach(queries, masks["source"], keys, masks["target"], hidden["target"])
    return PairOutput(
        source=source,
        target=target,
        teacher=network.map_text(taught),
        back=network.map_text(text.pool(hidden["back"], masks["back"])),
        visual=network.map_visual(network.visual(pairs.visual)),
        items=pairs.items,
        source_states=[BackboneStates(states["source"], masks["source"])],
        target_states=[BackboneStates(states["target"], masks["target"])],
    )


class PlainDiscriminator(Discriminator):
    """The strong discriminator the obvious way: captions padded, each convolution at all positions, then the mean."""

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Backbone states (N, L, H) with their token mask (N, L) -> logits (N, C)."""
        keep = mask.to(states.dtype).unsqueeze(1)  # (N, 1, L)
        heard = torch.relu if self.pooling == "padded" else lambda row: torch.relu(row) * keep
        hidden = self.reduce(states.transpose(1, 2))  # (N, 128, L)
        for block in self.convolutions:
            start = heard(hidden)
            hidden = start + 0.3 * block.second(heard(block.first(start)))  # type: ignore[operator, union-attr]
        logits: Tensor = self.classify(mean_over_positions(hidden.transpose(1, 2), mask, self.pooling))
        return logits


def plain_step(trainer: Trainer, optimizers: list[torch.optim.Adam], pairs: PairBatch) -> Tensor:
    """A step the obvious way; returns the total loss."""
    discriminator = trainer.players["discriminator"]
    assert discriminator.losses is not None
    encoder_optimizer, discriminator_optimizer = optimizers
    with trainer.runtime.autocast():
        out = plain_forward(trainer.network, pairs)
        discriminator_loss = total(discriminator.losses(out))
    discriminator_optimizer.zero_grad()
    discriminator_loss.backward()
    discriminator_optimizer.step()
    with trainer.runtime.autocast():
        loss = total(trainer.losses(out, Parts([pairs])))
    encoder_optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trainer.trainable, trainer.config.train.grad_clip)
    encoder_optimizer.step()
    return loss.detach()


@contextmanager
def torchs_products() -> Iterator[None]:
    """Torch's own linear layers inside."""
    before, fast.ASKS_ONEDNN = fast.ASKS_ONEDNN, False
    yield
    fast.ASKS_ONEDNN = before


def prepare(
    config: Config, reader: Reader, pairs: Pairs, device: torch.device, precision: Precision, *, plain: bool
) -> Trainer:
    """A trainer without dropout, so that both ways compute the same losses."""
    make_deterministic(config.seed)
    backbone = build_backbone(
        backbone_config(config.text.model, config.text.backbone),
        pretrained=config.text.model if config.text.pretrained else None,
    )
    network = build_nrccr(config, backbone, reader.features.width)
    discriminator = build_discriminator(config, int(backbone.config.hidden_size))
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    network.train()
    if plain:
        backbone.set_attn_implementation("eager")
        if discriminator is not None and discriminator.strength == "strong":
            discriminator.__class__ = PlainDiscriminator
    else:
        train_used_rows(backbone.get_input_embeddings(), used_ids([pairs.source, pairs.target, pairs.back]))
    nothing: Any = None
    runtime = Runtime(device, precision)
    objective = NRCCRObjective(config)
    players = adversary(objective, discriminator, config.adversary.learning_rate)
    task = Task(network, lambda out, _: objective(out, discriminator), players, pairs, nothing, {}, nothing)
    return Trainer(config, task, runtime, RunFolder(Path("unused")))


class Floor:
    """The matrix products of a few of our steps alone, in turns, of a network of its own; it holds their operands."""

    def __init__(self, trainer: Trainer, made: list[PairBatch]) -> None:
        self.records: list[Products] = []
        self.count = 0
        for batch in made:
            with Products() as record:
                trainer.step(batch)
            self.records.append(record)

    def run(self) -> None:
        """The products of the next batch."""
        self.records[self.count % len(self.records)].run()
        self.count += 1

    def operations(self) -> float:
        """Of the mean batch."""
        return float(np.mean([record.operations() for record in self.records]))


def peak_rate(device: torch.device) -> float:
    """Operations a second of the device's fastest product of two bfloat16 matrices of 8,192 x 8,192."""
    matrix = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)

    def multiply() -> None:
        torch.mm(matrix, matrix)

    multiply()
    return float(2 * 8192**3 / min(alternating({"peak": multiply}, 20, device)["peak"].seconds))


class Turns:
    """Batches and steps of one way, one after the other: each step takes the batch that was made last."""

    def __init__(
        self, make: Callable[[np.ndarray], Any], step: Callable[[Any], Tensor], batches: list[np.ndarray]
    ) -> None:
        self.make, self.take, self.batches = make, step, batches
        self.made: Any = None
        self.losses: list[float] = []
        self.count = 0

    def batch(self) -> None:
        """Make the next batch."""
        self.made = self.make(self.batches[self.count % len(self.batches)])
        self.count += 1

    def step(self) -> None:
        """Take a step, to its end."""
        self.losses.append(float(self.take(self.made)))


def measure(config: Config, root: Path, device: torch.device, steps: int, precision: Precision) -> dict[str, Any]:
    """Figures of both ways, which agree in their losses."""
    reader = Reader.open(config, root, CaptionTokenizer(config.text.model, config.text.max_tokens))
    pairs = reader.pairs()
    batches = epoch_batches(len(pairs), config.train.batch_size, config.seed, 0)[
        : steps + 2
    ]  # one before the rounds, one for memory
    keep_freed_memory(device)
    trainer = prepare(config, reader, pairs, device, "fp32", plain=True)
    # Last: accelerate remembers one precision.
    ours, alone = (prepare(config, reader, pairs, device, precision, plain=False) for _ in range(2))
    discriminator = trainer.players["discriminator"]
    optimizers = [
        torch.optim.Adam(trainer.trainable, lr=config.train.learning_rate, foreach=False),
        torch.optim.Adam(discriminator.module.parameters(), lr=discriminator.learning_rate, foreach=False),
    ]

    def plain_way(made: PairBatch) -> Tensor:
        with torchs_products():
            return plain_step(trainer, optimizers, made.to(device))

    turns = {
        "plain": Turns(PlainBatches(reader, pairs), plain_way, batches),
        "ours": Turns(pairs.__getitem__, lambda made: ours.step(made.to(device))["total"].detach(), batches),
    }
    ways = {}
    for name, own in turns.items():
        own.batch()
        own.step()  # memory of optimisers and kernels is there afterwards
        ways |= {f"{name} batch": own.batch, f"{name} step": own.step}
    tables = (pairs.source, pairs.target, pairs.back)
    real = int(np.mean([sum(table.lengths[own].sum() for table in tables) for own in batches]))
    floor = Floor(alone, [pairs[own].to(device) for own in batches[1 : 1 + RECORDED]])
    measured = alternating(ways | {"floor": floor.run}, steps, device, repeated=True)
    first, later = (1e-5, 2e-2) if precision == "fp32" else (5e-2, 1e-1)  # rounding grows with steps
    np.testing.assert_allclose(turns["ours"].losses[0], turns["plain"].losses[0], rtol=first)
    np.testing.assert_allclose(turns["ours"].losses, turns["plain"].losses, rtol=later)
    figures: dict[str, Any] = {
        "reading": str(config.reading),
        "precision": precision,
        "device": str(device),
        "batch_size": config.train.batch_size,
        "backbone": {key: getattr(ours.network.text.backbone.config, key) for key in ("hidden_size", "vocab_size")},
        "ways": {name: own.figures() for name, own in measured.items()},
        "losses": {name: [own.losses[0], own.losses[-1]] for name, own in turns.items()},
        "ratio": {part: measured[f"plain {part}"].median / measured[f"ours {part}"].median for part in PARTS},
        "ratio_of_processor_time": {
            part: measured[f"plain {part}"].processor / measured[f"ours {part}"].processor for part in PARTS
        },
    }
    figures["floor"] = {"real_tokens": real, "operations": floor.operations()}
    if device.type == "cpu":
        figures["floor"]["processor"] = measured["floor"].processor
        figures["distance"] = measured["ours step"].processor / measured["floor"].processor
    else:
        figures["peak_bf16"] = peak_rate(device)
        figures["share_of_peak"] = figures["floor"]["operations"] / measured["ours step"].median / figures["peak_bf16"]
        figures["distance"] = measured["ours step"].median / measured["floor"].median
    return figures


PARTS = ("batch", "step")
RECORDED = 3  # steps whose products are the floor: each holds all operands, gigabytes at BERT-base's size


def main() -> None:
    """Measure, print, write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, nargs="?")
    parser.add_argument("--root", type=Path, help="of the collection; without one it is generated")
    parser.add_argument("--device")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of ours; the plain way is fp32")
    parser.add_argument("--name", default="step", help="of the record")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_intermixed_args()
    if (arguments.config is None) != (arguments.root is None):
        parser.error("give CONFIG and --root together, or neither")
    device = choose_device(arguments.device)
    with tempfile.TemporaryDirectory() as name:
        root, overrides = arguments.root, arguments.overrides
        if root is None:
            root = Path(name)
            overrides = [f"text.model={generate(root, Recipe()) / 'backbone'}", *overrides]
        config = load_config(arguments.config or CONFIGS / "generated.yaml", overrides)
        figures = measure(config, root, device, arguments.steps, arguments.precision)
    for name, own in figures["ways"].items():
        print(
            f"{name:12s} {own['median']:8.4f} s ({own['processor']:.4f} of the processor)   "
            f"peak memory +{own['peak_mb']:.0f} MB"
        )
    for part in PARTS:
        wall, processor = figures["ratio"][part], figures["ratio_of_processor_time"][part]
        print(f"{part}: ratio {wall:.2f}, of processor time {processor:.2f}")
    print(f"ours takes {figures['distance']:.2f} times the floor")
    if "share_of_peak" in figures:
        print(
            f"{figures['share_of_peak']:.2f} of the measured peak of {figures['peak_bf16'] / 1e12:.0f} TFLOP/s in bf16"
        )
    print(record(arguments.name, figures, arguments.out))


if __name__ == "__main__":
    main()
