"""Batches on their way to a device: one is sent ahead, and nothing is lost."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nrccr.data.batch import Parts, TextBatch, VideoBatch
from nrccr.distributed import moved, one_ahead
from nrccr.training import loop
from nrccr.training.loop import Trainer


def batch(number: int) -> Parts[TextBatch]:
    """A batch that tells its number."""
    return Parts([TextBatch(torch.full((3, 4), number), torch.ones(3, 4, dtype=torch.bool))])


class Way:
    """Records what is read, sent, received."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def read(self, count: int, broken: int | None = None) -> Iterator[Parts[TextBatch]]:
        for number in range(count):
            self.events.append(f"read {number}")
            if number == broken:
                raise OSError("no such batch")
            yield batch(number)

    def send(self, own: Parts[TextBatch]) -> tuple[Parts[TextBatch], int]:
        self.events.append(f"send {number_of(own)}")
        return own, number_of(own)

    def receive(self, sent: tuple[Parts[TextBatch], int]) -> Parts[TextBatch]:
        self.events.append(f"receive {sent[1]}")
        return sent[0]


def number_of(own: Parts[TextBatch]) -> int:
    return int(own.parts[0].tokens[0, 0])


def test_the_next_batch_is_sent_before_a_batch_is_used() -> None:
    way = Way()
    for own in one_ahead(way.read(3), way.send, way.receive):
        way.events.append(f"use {number_of(own)}")
    assert way.events == [
        "read 0", "send 0", "read 1", "send 1", "receive 0", "use 0",
        "read 2", "send 2", "receive 1", "use 1", "receive 2", "use 2",
    ]  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_every_batch_comes_once_and_in_order(count: int) -> None:
    way = Way()
    assert [*map(number_of, one_ahead(way.read(count), way.send, way.receive))] == [*range(count)]


@pytest.mark.parametrize("broken", [0, 1, 3])
def test_an_error_waits_for_the_batches_before_it(broken: int) -> None:
    way, used = Way(), []
    with pytest.raises(OSError, match="no such batch"):
        for own in one_ahead(way.read(5, broken), way.send, way.receive):
            used.append(number_of(own))
    assert used == [*range(broken)]


def test_a_processor_gets_each_batch_when_it_asks() -> None:
    way = Way()
    for own in moved(way.read(2), torch.device("cpu")):
        way.events.append(f"use {number_of(own)}")
    assert way.events == ["read 0", "use 0", "read 1", "use 1"]


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Training with batches sent ahead, as on a GPU; the list holds the sizes of those that were."""
    sent: list[int] = []

    def send(own: Any) -> Any:
        sent.append(len(own.parts))
        return own.map(torch.clone)

    def to_device(batches: Iterable[Any], device: torch.device) -> Iterator[Any]:
        return one_ahead(batches, send, lambda own: own)

    monkeypatch.setattr(loop, "moved", to_device)
    return sent


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_and_its_interrupted_twin_are_those_of_a_processor(
    tiny_config: Path,
    tiny_collection: Path,
    tmp_path: Path,
    nrccr_command: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    workers: int,
) -> None:
    def train(name: str, *options: str) -> tuple[int, bytes]:
        where = ("--root", tiny_collection, "--out", tmp_path / name, "--device", "cpu", f"data.workers={workers}")
        done = nrccr_command("train", tiny_config, *where, *options)
        weights = tmp_path / name / "model.safetensors"
        return done.code, weights.read_bytes() if weights.exists() else done.err.encode()

    code, plain = train("plain")
    assert code == 0
    sent = request.getfixturevalue("ahead")
    assert train("ahead") == (0, plain)
    steps = [json.loads(line) for line in (tmp_path / "ahead" / "metrics.jsonl").read_text().splitlines()]
    assert len(sent) == 3 * 3 and max(line["step"] for line in steps) == 9

    step = Trainer.step

    def stopping(self: Trainer, own: Any) -> Any:
        if self.progress.step == 4:  # in the middle of the second epoch, the next batch being there already
            signal.raise_signal(signal.SIGTERM)
        return step(self, own)

    monkeypatch.setattr(Trainer, "step", stopping)
    assert train("cut")[0] == 130
    monkeypatch.setattr(Trainer, "step", step)
    assert train("cut", "--resume") == (0, plain)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_arrive_whole_while_the_gpu_works() -> None:
    device = torch.device("cuda")
    random = np.random.default_rng(0)
    frames = [torch.from_numpy(random.standard_normal((64, 64, 512), dtype=np.float32)) for _ in range(8)]
    batches = [VideoBatch(own, torch.ones(own.shape[:2]), lengths=np.full(64, 64)) for own in frames]
    weight, sums = torch.randn(512, 512, device=device), []
    for own in moved(iter(batches), device):
        assert own.frames.device.type == "cuda" and own.lengths is not None
        for _ in range(20):  # work that is still going on when the next batch is sent
            own.frames @ weight
        sums.append(own.frames.double().sum())
    assert torch.stack(sums).cpu().tolist() == pytest.approx([own.double().sum().item() for own in frames], rel=1e-9)
    assert torch.cuda.current_stream(device) == torch.cuda.default_stream(device)
