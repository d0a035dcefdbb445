"""The run folder: what it holds, when it may be written, and the state to resume from."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from nrccr.config.keys import keys_that_change
from nrccr.config.schema import Config, plain, resolved_switches, to_yaml
from nrccr.config.yaml import flatten, merged, read_layers
from nrccr.distributed import describe_device
from nrccr.errors import UserError, not_written
from nrccr.files import Lock, atomic_folder, atomic_path, read_json, refuse_links, write_json, write_text
from nrccr.processes import world
from nrccr.safeload.unpickle import load_checkpoint
from nrccr.sizes import regular_bytes
from nrccr.training.features import changed_features
from nrccr.training.workers import undisturbed

WRITTEN = (
    "config.yaml",
    "run.json",
    "model.safetensors",
    "metrics.jsonl",
    "tensorboard",
    "last/state.pt",
    *("trackers.json", "wandb", "mlruns"),
)
PACKAGES = ("nrccr", "torch", "transformers", "accelerate", "pydantic", "numpy", "safetensors")
# What run.json must hold, where it has it, for a run to be resumed.
RECORDED: dict[str, type] = {"device": str, "fingerprint": str, "versions": dict, "features": dict, "resumed": list}


@dataclass(frozen=True)
class RunFolder:
    """Names inside a run folder."""

    path: Path
    lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def run(self) -> Path:
        """Command, versions, commit, seed, device."""
        return self.path / "run.json"

    @property
    def weights(self) -> Path:
        """Weights of the best epoch."""
        return self.path / "model.safetensors"

    @property
    def log(self) -> Path:
        """The log, which a training holds locked."""
        return self.path / "metrics.jsonl"

    @property
    def trust(self) -> Path:
        """How much each translation is trusted, the least first (Quartet)."""
        return self.path / "trust.tsv"

    @property
    def backbone(self) -> Path:
        """The backbone's configuration and tokeniser, so that the folder can be used without `text.model`."""
        return self.path / "backbone"

    @property
    def state(self) -> Path:
        """Everything needed to resume: weights, optimisers, schedule, position, random states."""
        return self.path / "last" / "state.pt"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other trainings out of the run that is here, and of one that `begin` makes.

        Raises:
            UserError: another training writes here.
        """
        try:
            if self.config.is_file() and not self.lock.take(self.log):
                raise UserError(f"{self.path}: another training is writing here; let it end, or give another --out")
            yield
        finally:
            self.lock.release()

    def refuse(self, *, overwrite: bool) -> None:
        """Make sure that a new run may be written here; nothing is deleted yet.

        Raises:
            UserError: the folder holds a run that may not be overwritten, or something else.
        """
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return
        if not self.config.is_file():
            raise UserError(f"{self.path}: exists and is not a run folder; give another --out")
        if not overwrite:
            raise UserError(f"{self.path}: already holds a run; add --resume or --overwrite, or give another --out")

    def require_resumable(self, config: Config) -> None:
        """Make sure that there is a run to resume, of this configuration.

        Raises:
            UserError: no run, links in its place, or other values of keys that change its numbers.
        """
        refuse_links(self.path, WRITTEN)
        if not self.config.is_file() or not self.run.is_file():
            raise UserError(f"{self.path}: no run to resume; leave out --resume or give its folder as --out")
        if self.state.is_file() and not self.log.is_file():
            raise UserError(f"{self.log}: missing or no regular file; restore the whole folder")
        # A key that is newer than the run has its default there.
        was = flatten(plain(type(config)())) | flatten(merged(read_layers(self.config, alone=True)))
        now = flatten(plain(config))
        # How long it trains may change, never what a step computes.
        free = keys_that_change(type(config), "length", "test", "nothing")
        changed = [k for k in now.keys() | was.keys() if was.get(k) != now.get(k) and k not in free]
        if changed:
            key = sorted(changed)[0]
            raise UserError(
                f"{self.config}: the run to resume has {key}={was.get(key)}, this configuration {now.get(key)}; "
                "resume with the same configuration, or start another run with --out"
            )

    def begin(
        self,
        config: Config,
        device: torch.device,
        counts: dict[str, Any],
        fingerprint: str,
        record: dict[str, Any],
        save_models: Callable[[RunFolder], None],
    ) -> None:
        """Make the folder, replacing an earlier run, with all that is known before the first step.

        Args:
            config: the run's configuration.
            device: where it computes.
            counts: what was read of each split.
            fingerprint: of the training data.
            record: what else its numbers depend on.
            save_models: writes configurations and pre-processing of backbone and image encoder into a run folder.

        Raises:
            UserError: the folder cannot be written.
        """
        run = {
            "command": sys.argv,
            "commit": _commit(),
            "seed": config.seed,
            "switches": resolved_switches(config),
            "data": counts,
            "fingerprint": fingerprint,
            **record,
            **_circumstances(device),
        }
        try:
            with atomic_folder(self.path) as temporary:
                new = RunFolder(temporary)
                write_text(new.config, to_yaml(config))
                write_json(new.run, run)
                save_models(new)
                if not self.lock.held:  # a run that began meanwhile
                    self.refuse(overwrite=False)
                self.lock.take(new.log)
        except OSError as error:
            raise not_written(self.path, error, "give another --out") from error

    def record_resume(
        self, config: Config, device: torch.device, fingerprint: str, record: dict[str, Any], step: int
    ) -> list[str]:
        """Record in config.yaml and run.json that the run is resumed after `step`.

        Returns:
            One line for each change of threads or versions, which may change the last digits, and for features that
            were written since.

        Raises:
            UserError: another kind of device, other training data, features or teachers.
        """
        run = self.read_record()
        now = _circumstances(device)
        if run["device"].split(":")[0].split(" ")[0] != device.type:
            raise UserError(f"{self.run}: the run began on {run['device']}; resume it there, or give another --out")
        if run["fingerprint"] != fingerprint:
            raise UserError(f"{self.run}: the training data changed since; give the same --root, or another --out")
        now_features = record.get("features", {})
        notes = changed_features(run.get("features", {}), now_features, self.run)
        run["features"] = now_features | run.get("features", {})  # a run of an earlier version has none
        for key, value in record.items():
            if key != "features" and key in run and run[key] != value:  # earlier versions recorded less
                raise UserError(f"{self.run}: the {key} changed since; resume with the same, or give another --out")
        run.pop("finished", None)
        was, is_ = ({"threads": one["threads"], **one["versions"]} for one in (run, now))
        changed = notes + [
            f"{name} was {was[name]}, is {is_[name]}: the last digits may differ from an uninterrupted run"
            for name in is_
            if name in was and was[name] != is_[name]
        ]
        write_text(self.config, to_yaml(config))
        run.setdefault("resumed", []).append({"after_step": step, "command": sys.argv, "commit": _commit()} | now)
        write_json(self.run, run)
        return changed

    def finish(self, step: int, best_epoch: int, peak_memory_mb: Mapping[str, int]) -> None:
        """Record in run.json that the training has finished, and what memory it took in its last process."""
        finished = {"step": step, "best_epoch": best_epoch, "peak_memory_mb": dict(peak_memory_mb)}
        write_json(self.run, self.read_record() | {"finished": finished})

    def save_state(self, state: dict[str, Any]) -> None:
        """Write the state to resume from, whole or not at all.

        Raises:
            UserError: the disk is full, or the folder cannot be written.
        """
        try:
            # torch's writer ends the process if it is left half-way while its file is closed.
            with atomic_path(self.state) as temporary, temporary.open("wb") as file, undisturbed():
                torch.save(state, file)
        except (OSError, RuntimeError) as error:
            raise not_written(self.state, error) from error

    def load_state(self) -> dict[str, Any] | None:
        """The state to resume from; none if the run was stopped before its first one.

        Raises:
            UserError: a damaged file, one of an earlier version that cannot be read, or none although the run finished
                an epoch.
        """
        if self.state.is_file():
            return _with_players(load_checkpoint(self.state), self.state)
        if self.weights.is_file() and not self._in_first_epoch():
            raise UserError(f"{self.state}: missing, there is nothing to resume from; add --overwrite to train anew")
        return None

    def require_weights(self, best_epoch: int) -> None:
        """Make sure that the weights of the best epoch are there, which a resumed run may not reach again.

        Raises:
            UserError: they are not.
        """
        if best_epoch and not self.weights.is_file():
            raise UserError(
                f"{self.weights}: missing, the weights of epoch {best_epoch}, the best so far; put the file back, or "
                "add --overwrite to train anew"
            )

    def require_log(self, written: int) -> None:
        """Make sure that metrics.jsonl has what a state to resume from records, before anything else is written.

        Args:
            written: its bytes at the time of the state.

        Raises:
            UserError: it is shorter, missing or no regular file.
        """
        if not self.log.is_file() or self.log.stat().st_size < written:
            raise UserError(f"{self.log}: shorter than the state to resume from records; restore the whole folder")

    def _in_first_epoch(self) -> bool:
        """Whether a run without a state was stopped before its first one, perhaps after its first weights."""
        run = self.read_record()
        if "finished" in run or "resumed" in run:
            return False
        try:
            lines = regular_bytes(self.log).splitlines(keepends=True)
            return all(json.loads(line)["epoch"] == 1 for line in lines if line.endswith(b"\n"))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return False

    def read_record(self) -> dict[str, Any]:
        """What run.json holds.

        Raises:
            UserError: it is damaged, or what --resume compares has other types.
        """
        advice = "put the file back as it was, or give another --out"
        run = read_json(self.run, advice)
        for key, kind in RECORDED.items():
            if not isinstance(run.get(key, kind()), kind):
                raise UserError(f"{self.run}: its {key} is no {kind.__name__}; {advice}")
        missing = [key for key in ("device", "fingerprint", "threads", "versions") if key not in run]
        if missing:
            raise UserError(f"{self.run}: lacks {missing[0]}; {advice}")
        if not all(isinstance(found, dict) for found in run.get("features", {}).values()):
            raise UserError(f"{self.run}: its features are not described; {advice}")
        return run


def _with_players(state: dict[str, Any], path: Path) -> dict[str, Any]:
    """A state as it is written now, from one as earlier versions wrote it: a discriminator was the only player.

    Raises:
        UserError: a learned mixing of losses, which was trained by the network's own optimiser.
    """
    if "players" in state:
        return state
    if state.get("learned"):
        raise UserError(
            f"{path}: an earlier version wrote it, and its learned mixing of losses cannot be resumed; "
            "start another run with --out"
        )
    player = {"module": state.get("discriminator"), "optimizer": state.get("adversary_optimizer")}
    return state | {"players": {} if player["module"] is None else {"discriminator": player}}


def _circumstances(device: torch.device) -> dict[str, Any]:
    """What numbers depend on besides configuration and data."""
    return {
        "device": describe_device(device),
        "processes": world(),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **{name: version_of(name) for name in PACKAGES}},
    }


def version_of(name: str) -> str | None:
    """The version of an installed package; none where it is not."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The checkout's commit, with `+` if files were changed; none outside a checkout."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None
