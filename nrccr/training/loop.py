"""The training loop."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from nrccr.config.schema import Config
from nrccr.data.batch import Parts
from nrccr.data.captions import shortened
from nrccr.data.sampling import EpochBatches, epoch_batches
from nrccr.distributed import Runtime, moved, random_state, restore_random_state
from nrccr.errors import Interrupted, UserError, death_of_worker, first_line
from nrccr.processes import any_says, as_first, average, is_first, rank, world
from nrccr.safeload.unpickle import save_weights
from nrccr.terminal import say
from nrccr.training.average import Average
from nrccr.training.log import Log, NoLog, Window
from nrccr.training.optim import Schedule, adam, set_learning_rate, share_of_rate, trainable
from nrccr.training.passes import passes
from nrccr.training.rows import cut_moments, parted_tables, whole_moments
from nrccr.training.runfolder import RunFolder
from nrccr.training.state import position_of, require_adam, require_count, require_module, schedule_of, window_of
from nrccr.training.task import Shared, Task, total
from nrccr.training.workers import ignore_signals, stopped


@dataclass
class Progress:
    """The position of a run, between two steps."""

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
        self.tables = parted_tables(self.network)
        self.optimizer = adam(self.network, config.train.learning_rate, task.apart)
        self.ratios = [group["lr"] / config.train.learning_rate for group in self.optimizer.param_groups]
        self.average = Average(self.network, config.train.average) if config.train.average else None
        self.memory = {name: module.to(runtime.device) for name, module in task.memory.items()}
        self.trainable = trainable(self.network)
        self.passes = passes(config, self.network, runtime)
        self.losses = task.losses
        self.players = task.players
        self.optimizers = {
            name: adam(player.module.to(runtime.device), player.learning_rate) for name, player in task.players.items()
        }
        self.first = {name: player for name, player in task.players.items() if player.losses is not None}
        self.together = [self.optimizer, *(own for name, own in self.optimizers.items() if name not in self.first)]
        self.learning = [
            own for optimizer in self.together for group in optimizer.param_groups for own in group["params"]
        ]
        self.pairs = task.pairs
        self.validate = task.validate
        self.write = task.write
        self.runtime = runtime
        self.folder = folder
        self.progress = Progress(Schedule(config.train.learning_rate))
        self.log_bytes = 0

    def run(self) -> Schedule:
        """Train to the end, from the current position; returns the schedule with the best epoch and score.

        Raises:
            UserError: a loss or an embedding that is not finite, a data worker that died, a full disk.
            Interrupted: SIGINT or SIGTERM came; the state was saved.
        """
        config, progress = self.config.train, self.progress
        log = Log(self.folder.path, self.log_bytes, progress.step, self.config) if is_first() else NoLog()
        try:
            with _stop_on_signal() as stop:
                while progress.epoch < config.epochs and not progress.schedule.exhausted(config):
                    self._epoch(log, stop)
                    self._finish_epoch(log)
                    if any_says(bool(stop))[0]:
                        raise self._interrupted()
        except Exception as error:  # torch raises it wherever the signal arrives, in the middle of a write too
            if (death := death_of_worker(error)) is None:
                raise
            raise self._worker_died(death) from error
        finally:
            log.close()
        return progress.schedule

    def _epoch(self, log: Log | NoLog, stop: list[int]) -> None:
        config, progress = self.config.train, self.progress
        order = (len(self.pairs), config.batch_size, self.config.seed, progress.epoch)
        batches = epoch_batches(*order, drop_last=config.drop_last, least=world())
        steps = len(batches) * config.epochs
        clock = time.perf_counter()
        data_seconds = step_seconds = 0.0
        timed = 0  # steps since the last log line; unlike the window, timing begins anew in a resumed run
        saved = time.monotonic()
        self.network.train()
        bar = tqdm(
            total=len(batches), initial=progress.batch, desc=f"epoch {progress.epoch + 1}", disable=None, leave=False
        )
        with bar, stopped(iter(self._loader(batches[progress.batch :]))) as loaded_batches:
            for batch in moved(loaded_batches, self.runtime.device):
                loaded = time.perf_counter()
                self._set_rate(share_of_rate(progress.step, steps, config))
                progress.window.add(self.step(batch))
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
                    rate = {"epoch": progress.epoch + 1, "learning_rate": self.optimizer.param_groups[0]["lr"]}
                    log.write("train", progress.step, rate | means | timing)
                    bar.set_postfix(loss=f"{means['total']:.3f}")
                    progress.window.clear()
                    data_seconds, step_seconds, timed = 0.0, 0.0, 0
                ends, due = any_says(bool(stop), time.monotonic() - saved > 60 * config.save_minutes)
                if ends or due:
                    self._save(log)
                    saved = time.monotonic()
                if ends:
                    raise self._interrupted()

    def _interrupted(self) -> Interrupted:
        return Interrupted(f"{self.folder.path}: stopped after step {self.progress.step}; resume with --resume")

    def _worker_died(self, death: BaseException) -> UserError:
        said = first_line(death).rstrip(". ")
        return UserError(
            f"{self.folder.path}: a process that reads data died after step {self.progress.step} ({said}); if memory "
            "is short lower data.workers, then go on with --resume"
        )

    def step(self, batch: Parts[Any]) -> dict[str, Tensor]:
        """One training step, in the published order: players with losses of their own first, then the network."""
        out = self.passes.forward(batch.parts)
        report = self._step_first(out)
        with self.runtime.autocast():
            losses = self.losses(out, batch)
        loss = total(losses)
        for optimizer in self.together:
            optimizer.zero_grad()
        self.runtime.backward(loss)
        self.passes.backward()
        average(self.learning)
        norm = self.runtime.clip(self.trainable, self.config.train.grad_clip)
        for optimizer in self.together:
            optimizer.step()
        for table in self.tables:
            table.write_back()
        for player in self.first.values():
            player.module.requires_grad_(True)
        if self.average is not None:
            self.average.update()
        return losses | report | {"total": loss, "gradient_norm": norm}

    def _step_first(self, out: Any) -> dict[str, Tensor]:
        """The step of each player with losses of its own; it is then frozen until the network's step is done."""
        report: dict[str, Tensor] = {}
        for name, player in self.first.items():
            assert player.losses is not None
            with self.runtime.autocast():
                losses = player.losses(out)
            self.optimizers[name].zero_grad()
            self.runtime.backward(total(losses))
            average(trainable(player.module))
            self.optimizers[name].step()
            player.module.requires_grad_(False)
            report |= losses
        return report

    def _finish_epoch(self, log: Log | NoLog) -> None:
        config, progress = self.config, self.progress
        progress.window.means(progress.step)  # a NaN since the last log line stops the run before it is validated
        started = time.perf_counter()
        with self.average.in_use() if self.average is not None else nullcontext():
            found = self.validate() if self.validate is not None else None
            score = None if found is None else as_first(torch.tensor(found.score, dtype=torch.float64)).item()
            progress.epoch, progress.batch = progress.epoch + 1, 0
            if progress.schedule.after_epoch(progress.epoch, score, config.train) and is_first():
                save_weights(self.network.state_dict(), self.folder.weights)
        self._set_rate(1.0)
        if self.write is not None and is_first():
            self.write(self.folder)
        if found is not None:
            seconds = time.perf_counter() - started
            best = {"score": found.score, "best_epoch": progress.schedule.best_epoch, "seconds": seconds}
            log.write("validation", progress.step, {"epoch": progress.epoch} | best | found.metrics)
            schedule = progress.schedule
            result = f"validation {found.line} (best {schedule.best:.2f} in epoch {schedule.best_epoch})"
        tqdm.write(f"epoch {progress.epoch}: {result if found is not None else 'finished'}")
        self._save(log)

    def _set_rate(self, share: float) -> None:
        """Set all learning rates that follow the schedule, to a share of the epoch's rate."""
        rate = share * self.progress.schedule.learning_rate
        set_learning_rate(self.optimizer, rate, self.ratios)
        for name, player in self.players.items():
            if player.follows_schedule:
                ratio = player.learning_rate / self.config.train.learning_rate
                set_learning_rate(self.optimizers[name], rate * ratio)

    def _loader(self, batches: EpochBatches) -> DataLoader[Parts[Any]]:
        # Its own generator: the loader would otherwise draw from the global one, once more in a resumed epoch.
        return DataLoader(
            Shared(self.pairs.at_epoch(self.progress.epoch), rank(), world()),  # type: ignore[arg-type]
            batch_size=None,
            sampler=batches,
            num_workers=self.config.data.workers,
            pin_memory=self.runtime.pins_memory,
            generator=torch.Generator(),
            worker_init_fn=ignore_signals,
        )

    def _save(self, log: Log | NoLog) -> None:
        progress = self.progress
        progress.window.means(progress.step)  # never keep a state with NaN in it
        random = random_state(self.runtime.device)
        if not is_first():
            return
        self.folder.save_state(
            {
                "network": self.network.state_dict(),
                "optimizer": whole_moments(self.optimizer, self.tables),
                "players": {
                    name: {"module": player.module.state_dict(), "optimizer": self.optimizers[name].state_dict()}
                    for name, player in self.players.items()
                },
                "schedule": asdict(progress.schedule),
                "position": {"epoch": progress.epoch, "batch": progress.batch, "step": progress.step},
                "window": {"sums": progress.window.sums, "count": progress.window.count},
                "random": random,
                "log_bytes": log.size(),
            }
            | ({"average": self.average.state()} if self.average is not None else {})
            | ({"memory": {name: own.state_dict() for name, own in self.memory.items()}} if self.memory else {})
        )

    def resume(self, state: dict[str, Any]) -> None:
        """Restore a saved state, with all random states; call `run` next.

        Raises:
            UserError: the state is not one of this network.
        """
        try:
            self._restore(state)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise UserError(
                f"{self.folder.state}: does not fit this configuration and text.model ({first_line(error)}); "
                "resume with what the run was started with, or start another with --out"
            ) from error

    def _restore(self, state: dict[str, Any]) -> None:
        """Check all of a state, then take it over."""
        require_module("network", self.network, state["network"])
        found = cut_moments(self.optimizer, self.tables, state["optimizer"])
        moments, unknown = require_adam("optimizer", self.optimizer, found)
        saved = state["players"]
        if saved.keys() != self.players.keys():
            raise ValueError(f"players are {', '.join(saved) or 'none'}")
        own_moments: dict[str, dict[str, Any]] = {}
        for name, player in self.players.items():
            require_module(name, player.module, saved[name]["module"])
            own_moments[name], others = require_adam(
                f"{name}'s optimizer", self.optimizers[name], saved[name]["optimizer"]
            )
            unknown += others
        if self.average is not None:
            self.average.check(state["average"])
        for name, memory in self.memory.items():
            require_module(name, memory, state["memory"][name])
        progress = Progress(schedule_of(state["schedule"]), *position_of(state["position"]))
        sums, progress.window.count = window_of(state["window"])
        log_bytes = require_count("log_bytes", state["log_bytes"])
        same_processes = restore_random_state(state["random"], self.runtime.device)
        if not same_processes:
            say("note: the run had another number of processes: it goes on with the same batches, not to the byte")
        self.network.load_state_dict(state["network"])
        for table in self.tables:
            table.reload()
        if unknown:
            say(f"note: options of another torch version are left out: {shortened(sorted(set(unknown)))}")
        self.optimizer.load_state_dict(moments)
        for name, player in self.players.items():
            player.module.load_state_dict(saved[name]["module"])
            self.optimizers[name].load_state_dict(own_moments[name])
        if self.average is not None:
            self.average.restore(state["average"])
        for name, memory in self.memory.items():
            memory.load_state_dict(state["memory"][name])
        progress.window.sums = {name: value.to(self.runtime.device) for name, value in sums.items()}
        self.progress, self.log_bytes = progress, log_bytes


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
