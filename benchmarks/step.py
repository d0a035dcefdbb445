"""A training step, ours beside the obvious way, in one run: seconds a step and the ratio.

The obvious way tokenises each caption anew in every batch, reads frames one by one, runs the backbone once a language
from token ids, projects queries, keys and values again for cross-attention, lets the adversary's term compute the
discriminator's own gradients, and takes Adam's unfused steps. Same weights, same pairs, same losses.

    python benchmarks/step.py CONFIG --root ROOT [--device cpu|cuda:0] [--steps N] [key=value ...]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import step_parser, wait
from torch import Tensor

from nrccr.config.schema import Config
from nrccr.data.batch import PairBatch, Parts, TextBatch, VideoBatch
from nrccr.data.captions import match, read_captions
from nrccr.data.cleaning import clean_english
from nrccr.data.sampling import epoch_batches
from nrccr.data.tokens import CaptionTokenizer
from nrccr.distributed import Runtime, choose_device, make_deterministic
from nrccr.models.backbone import backbone_config, build_backbone
from nrccr.systems.nrccr.data import Pairs, Reader
from nrccr.systems.nrccr.network import NRCCR, BackboneStates, PairOutput, build_discriminator, build_nrccr
from nrccr.systems.nrccr.objective import NRCCRObjective, adversary
from nrccr.systems.nrccr.settings import AdversarySection
from nrccr.systems.settings import load_config
from nrccr.training.loop import Trainer
from nrccr.training.runfolder import RunFolder
from nrccr.training.task import Task, total


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
        tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        mask = torch.zeros(tokens.shape, dtype=torch.bool)
        for index, row in enumerate(rows):
            tokens[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = True
        return TextBatch(tokens, mask)


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


def prepare(config: Config, root: Path, device: torch.device) -> tuple[Trainer, Pairs, Reader]:
    """A trainer without dropout, so that both ways compute the same losses."""
    make_deterministic(config.seed)
    reader = Reader.open(config, root, CaptionTokenizer(config.text.model, config.text.max_tokens))
    pairs = reader.pairs()
    backbone = build_backbone(
        backbone_config(config.text.model, config.text.backbone),
        pretrained=config.text.model if config.text.pretrained else None,
    )
    network = build_nrccr(config, backbone, reader.features.width)
    discriminator = build_discriminator(config, int(backbone.config.hidden_size))
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    network.train()
    nothing: Any = None
    runtime = Runtime(device, config.train.precision)
    objective = NRCCRObjective(config)
    players = adversary(objective, discriminator, config.section(AdversarySection).learning_rate)
    task = Task(network, lambda out, _: objective(out, discriminator), players, pairs, nothing, {}, nothing)
    return Trainer(config, task, runtime, RunFolder(Path("unused"))), pairs, reader


def measure(
    step: Callable[[np.ndarray], Tensor], batches: list[np.ndarray], device: torch.device
) -> tuple[float, list[float]]:
    """Seconds a step over all batches but the first two, and every loss."""
    losses = []
    started = 0.0
    for number, indices in enumerate(batches):
        if number == 2:
            wait(device)
            started = time.perf_counter()
        losses.append(step(indices).item())
    return (time.perf_counter() - started) / (len(batches) - 2), losses


def main() -> None:
    """Measure and print."""
    arguments = step_parser(__doc__).parse_intermixed_args()
    config = load_config(arguments.config, arguments.overrides)
    device = choose_device(arguments.device)

    trainer, pairs, reader = prepare(config, arguments.root, device)
    batches = epoch_batches(len(pairs), config.train.batch_size, config.seed, 0)[: arguments.steps + 2]
    ours, our_losses = measure(
        lambda indices: trainer.step(pairs[indices].to(device))["total"].detach(), batches, device
    )
    trainer, pairs, reader = prepare(config, arguments.root, device)
    plain = PlainBatches(reader, pairs)
    discriminator = trainer.players["discriminator"]
    optimizers = [
        torch.optim.Adam(trainer.trainable, lr=config.train.learning_rate, foreach=False),
        torch.optim.Adam(discriminator.module.parameters(), lr=discriminator.learning_rate, foreach=False),
    ]
    theirs, their_losses = measure(
        lambda indices: plain_step(trainer, optimizers, plain(indices).to(device)), batches, device
    )
    np.testing.assert_allclose(our_losses, their_losses, rtol=2e-2)  # float32 rounding grows from step to step
    what = f"{arguments.config.stem}, reading {config.reading}, {config.train.precision}"
    print(f"{what}, {device}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"first loss   ours {our_losses[0]:.5f}   obvious way {their_losses[0]:.5f}")
    print(f"seconds/step ours {ours:.3f}   obvious way {theirs:.3f}   ratio {theirs / ours:.2f}")


if __name__ == "__main__":
    main()
