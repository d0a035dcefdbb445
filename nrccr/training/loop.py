"""The training loop."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from nrccr.config.schema import Config
from nrccr.data.sampling import Indices, epoch_batches
from nrccr.distributed import Runtime, random_state, restore_random_state
from nrccr.errors import Interrupted, UserError, first_line
from nrccr.safeload.unpickle import save_weights
from nrccr.systems.nrccr.discriminator import Discriminator
from nrccr.systems.nrccr.objective import NRCCRObjective
from nrccr.training.log import Log, Window
from nrccr.training.optim import Schedule, adam, add_group, set_learning_rate, trainable
from nrccr.training.runfolder import RunFolder
from nrccr.training.task import total


class TrainingSet(Protocol):
    """Training data; a batch of indices gives the parts that the network takes."""

    def __len__(self) -> int:
        """Number of pairs or items."""

    def __getitem__(self, indices: Indices) -> list[Any]:
        """The batch at `indices`, in parts."""

    def at_epoch(self, epoch: int) -> Self:
        """What to read in an epoch, from 0; the data itself, unless something is drawn anew in every epoch."""

    def fingerprint(self) -> str:
        """A hash of all that is read."""


@dataclass(frozen=True)
class Validation:
    """How good the weights are.

    Attributes:
        score: what the best epoch is chosen by.
        metrics: for the log.
        line: for the terminal.
    """

    score: float
    metrics: dict[str, Any]
    line: str


@dataclass
class Task:
    """What a system brings to its training.

    Attributes:
        network: `network(*parts)` gives what the objective sees.
        objective: named losses of that; those that end in `_loss` are summed.
        pairs: the training set.
        validate: how good the weights are, after every epoch; none where there is no validation split: the last epoch's
            weights are kept.
        counts: by split, what was read.
        save_models: writes configurations and pre-processing of backbone and image encoder into a run folder.
        discriminator: NRCCR's adversary, the objective's second argument, which learns before the network does.
        teach: gives C2KD's objective its second argument from a batch's parts.
        record: what the numbers follow from besides configuration and data, for run.json; the same when it is resumed.
    """

    network: nn.Module
    objective: Callable[..., dict[str, Tensor]]
    pairs: TrainingSet
    validate: Callable[[], Validation] | None
    counts: dict[str, dict[str, Any]]
    save_models: Callable[[RunFolder], None]
    discriminator: Discriminator | None = None
    teach: Callable[..., Tensor] | None = None
    record: dict[str, Any] = field(default_factory=dict)


@dataclass
class Progress:
    """Where a run stands, between two steps."""

    schedule: Schedule
    epoch: int = 0  # finished epochs
    batch: int = 0  # finished batches of the current epoch
    step: int = 0  # finished steps of the run
    window: Window = field(default_factory=Window)


class Trainer:
    """Trains a network, validates it after every epoch, keeps the best weights and a state to resume from."""

    def __init__(self, config: Config, task: Task, runtime: Runtime, folder: RunFolder) -> None:
        self.config = config
        self.network = task.network.to(runtime.device)
        self.discriminator = task.discriminator.to(runtime.device) if task.discriminator is not None else None
        self.objective = task.objective
        self.learned = task.objective.to(runtime.device) if isinstance(task.objective, nn.Module) else None
        self.optimizer = adam(self.network, config.train.learning_rate)
        if self.learned is not None:
            add_group(self.optimizer, self.learned, config.value("c2kd.mixing_learning_rate"))
        self.adversary_optimizer = (
            adam(self.discriminator, config.value("adversary.learning_rate")) if self.discriminator else None
        )
        self.trainable = trainable(self.network)
        self.pairs = task.pairs
        self.validate = task.validate
        self.teach = task.teach
        self.runtime = runtime
        self.folder = folder
        self.progress = Progress(Schedule(config.train.learning_rate))
        self.log_bytes = 0

    def run(self) -> Schedule:
        """Train to the end, from wherever the run stands; returns the schedule with the best epoch and score.

        Raises:
            UserError: a loss or an embedding that is not finite.
            Interrupted: SIGINT or SIGTERM came; the state was saved.
        """
        config, progress = self.config.train, self.progress
        log = Log(self.folder.path, self.log_bytes, progress.step)
        try:
            with _stop_on_signal() as stop:
                while progress.epoch < config.epochs and not progress.schedule.exhausted(config):
                    self._epoch(log, stop)
                    self._finish_epoch(log)
                    if stop:
                        raise self._interrupted()
        finally:
            log.close()
        return progress.schedule

    def _epoch(self, log: Log, stop: list[int]) -> None:
        config, progress = self.config.train, self.progress
        batches = epoch_batches(
            len(self.pairs), config.batch_size, self.config.seed, progress.epoch, drop_last=config.drop_last
        )
        loader = self._loader(batches[progress.batch :])
        clock = time.perf_counter()
        data_seconds = step_seconds = 0.0
        timed = 0  # steps since the last log line; unlike the window, timing begins anew in a resumed run
        saved = time.monotonic()
        self.network.train()
        with tqdm(
            total=len(batches), initial=progress.batch, desc=f"epoch {progress.epoch + 1}", disable=None, leave=False
        ) as bar:
            for parts in loader:
                loaded = time.perf_counter()
                progress.window.add(self.step(*(part.to(self.runtime.device, non_blocking=True) for part in parts)))
                progress.batch += 1
                progress.step += 1
                bar.update()
                logs = progress.step % config.log_every == 0
                # The means wait for the device: taken before the clock is read.
                means = progress.window.means(progress.step) if logs else {}
                now = time.perf_counter()
                data_seconds, step_seconds, clock = data_seconds + loaded - clock, step_seconds + now - loaded, now
                timed += 1
                if logs:
                    timing = {"data_seconds": data_seconds / timed, "step_seconds": step_seconds / timed}
                    rate = {"epoch": progress.epoch + 1, "learning_rate": progress.schedule.learning_rate}
                    log.write("train", progress.step, rate | means | timing)
                    bar.set_postfix(loss=f"{means['total']:.3f}")
                    progress.window.clear()
                    data_seconds, step_seconds, timed = 0.0, 0.0, 0
                if stop or time.monotonic() - saved > 60 * config.save_minutes:
                    self._save(log)
                    saved = time.monotonic()
                if stop:
                    raise self._interrupted()

    def _interrupted(self) -> Interrupted:
        return Interrupted(f"{self.folder.path}: stopped after step {self.progress.step}; go on with --resume")

    def step(self, *parts: Any) -> dict[str, Tensor]:
        """One training step, in the published order: the discriminator, if any, first, then the network against it."""
        with self.runtime.autocast():
            out = self.network(*parts)
        report = self._discriminate(out)
        with self.runtime.autocast():
            losses = self.objective(out, *self._beside(parts))
        loss = total(losses)
        self.optimizer.zero_grad()
        self.runtime.backward(loss)
        norm = self.runtime.clip(self.trainable, self.config.train.grad_clip)
        self.optimizer.step()
        if self.discriminator is not None:
            self.discriminator.requires_grad_(True)
        return losses | report | {"total": loss, "gradient_norm": norm}

    def _discriminate(self, out: Any) -> dict[str, Tensor]:
        """The discriminator's own step; its weights then stand still until the network has learned."""
        if self.discriminator is None or self.adversary_optimizer is None:
            return {}
        assert isinstance(self.objective, NRCCRObjective)
        with self.runtime.autocast():
            report = self.objective.discriminate(out, self.discriminator)
        self.adversary_optimizer.zero_grad()
        self.runtime.backward(report["discriminator_loss"])
        self.adversary_optimizer.step()
        self.discriminator.requires_grad_(False)
        return report

    def _beside(self, parts: Sequence[Any]) -> tuple[Any, ...]:
        """What the objective sees besides the network's view of the batch."""
        if self.teach is not None:
            return (self.teach(*parts),)
        return (self.discriminator,) if isinstance(self.objective, NRCCRObjective) else ()

    def _finish_epoch(self, log: Log) -> None:
        config, progress = self.config, self.progress
        progress.window.means(progress.step)  # a NaN since the last log line stops the run before it is validated
        started = time.perf_counter()
        found = self.validate() if self.validate is not None else None
        progress.epoch, progress.batch = progress.epoch + 1, 0
        if progress.schedule.after_epoch(progress.epoch, found.score if found else None, config.train):
            save_weights(self.network.state_dict(), self.folder.weights)
        set_learning_rate(self.optimizer, progress.schedule.learning_rate)
        if found is not None:
            seconds = time.perf_counter() - started
            best = {"score": found.score, "best_epoch": progress.schedule.best_epoch, "seconds": seconds}
            log.write("validation", progress.step, {"epoch": progress.epoch} | best | found.metrics)
            schedule = progress.schedule
            said = f"validation {found.line} (best {schedule.best:.2f} in epoch {schedule.best_epoch})"
        tqdm.write(f"epoch {progress.epoch}: {said if found is not None else 'finished'}")
        self._save(log)

    def _loader(self, batches: list[Any]) -> DataLoader[list[Any]]:
        # Its own generator: the loader would otherwise draw from the global one, once more in a resumed epoch.
        return DataLoader(
            self.pairs.at_epoch(self.progress.epoch),  # type: ignore[arg-type]
            batch_size=None,
            sampler=batches,
            num_workers=self.config.data.workers,
            pin_memory=self.runtime.pins_memory,
            generator=torch.Generator(),
            worker_init_fn=_leave_signals_to_parent,
        )

    def _save(self, log: Log) -> None:
        progress = self.progress
        progress.window.means(progress.step)  # never keep a state with NaN in it
        self.folder.save_state(
            {
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "learned": self.learned.state_dict() if self.learned is not None else None,
                "discriminator": self.discriminator.state_dict() if self.discriminator else None,
                "adversary_optimizer": self.adversary_optimizer.state_dict() if self.adversary_optimizer else None,
                "schedule": asdict(progress.schedule),
                "position": {"epoch": progress.epoch, "batch": progress.batch, "step": progress.step},
                "window": {"sums": progress.window.sums, "count": progress.window.count},
                "random": random_state(self.runtime.device),
                "log_bytes": log.size(),
            }
        )

    def resume(self, state: dict[str, Any]) -> None:
        """Take up a saved state, with all random states; call `run` next.

        Raises:
            UserError: the state is not one of this network.
        """
        try:
            self._restore(state)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise UserError(
                f"{self.folder.state}: does not fit this configuration and text.model ({first_line(error)}); "
                "resume with what the run began with, or start another with --out"
            ) from error

    def _restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        if self.learned is not None:
            self.learned.load_state_dict(state["learned"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.discriminator is not None and self.adversary_optimizer is not None:
            self.discriminator.load_state_dict(state["discriminator"])
            self.adversary_optimizer.load_state_dict(state["adversary_optimizer"])
        self.progress = Progress(Schedule(**state["schedule"]), **state["position"])
        self.progress.window.sums = {k: v.to(self.runtime.device) for k, v in state["window"]["sums"].items()}
        self.progress.window.count = state["window"]["count"]
        self.log_bytes = state["log_bytes"]
        restore_random_state(state["random"], self.runtime.device)


def _leave_signals_to_parent(worker: int) -> None:
    """Signals may reach all processes of a group; the loop decides when its workers end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextmanager
def _stop_on_signal() -> Iterator[list[int]]:
    """A list that fills when SIGINT or SIGTERM comes; a second one stops at once."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
