"""Trackers of experiments besides tensorboard, through accelerate: trackio, wandb, mlflow.

`metrics.jsonl` is the record; a tracker gets the same numbers. Nothing leaves the machine unless the user's environment
says so, and a tracker that fails ends itself, not the training.
"""

from __future__ import annotations

import io
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from accelerate.tracking import GeneralTracker, MLflowTracker, TrackioTracker, WandBTracker

from nrccr.config.schema import Config, plain
from nrccr.config.yaml import flatten
from nrccr.errors import UserError, first_line
from nrccr.extras import need
from nrccr.files import read_json, write_json
from nrccr.terminal import say

PROJECT = "nrccr"
IDS = "trackers.json"
# What a tracker does by itself, unless the user's environment says otherwise. No usage reports, no long waits.
USUAL = {
    "WANDB_MODE": "offline",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


def require_trackers(names: Sequence[str]) -> None:
    """Make sure that the libraries of `train.report_to` are there, before anything is written.

    Raises:
        UserError: one is not installed.
    """
    for name in names:
        if name in MAKERS:
            with _usual():
                need(name, "trackers")


class Trackers:
    """The tracked runs of one training.

    Args:
        config: its configuration, which a new tracked run gets too.
        folder: the run folder; `trackers.json` there names the tracked runs, so that a resumed run goes on with them.
        step: the step that it resumes from; 0 begins new tracked runs.
    """

    def __init__(self, config: Config, folder: Path, step: int = 0) -> None:
        self._active: dict[str, GeneralTracker] = {}
        kept = _kept(folder / IDS) if step else {}
        ids = dict(kept)
        for name in config.train.report_to:
            if name not in MAKERS:
                continue
            with self._going_on(name):
                with _usual():
                    tracker, ids[name] = MAKERS[name](folder, kept.get(name))
                    self._active[name] = tracker
                    if name not in kept:  # mlflow refuses to change what it knows of a run
                        tracker.store_init_configuration(_config_of(config))
                if step:
                    how = "goes on" if name in kept else f"has a new one, from step {step}"
                    say(f"{name}: tracked run {ids[name]} {how}")
        if ids != kept:
            write_json(folder / IDS, ids)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Pass numbers on, by name."""
        for name, tracker in list(self._active.items()):
            with self._going_on(name), _usual():
                # mlflow takes no @ in names: R_at_1 there.
                named = {key.replace("@", "_at_"): value for key, value in values.items()} if name == MLFLOW else values
                tracker.log(dict(named), step=step)

    def close(self) -> None:
        """End all of them."""
        for name in list(self._active):
            tracker = self._active.pop(name)
            with self._going_on(name), _usual():
                tracker.finish()

    @contextmanager
    def _going_on(self, name: str) -> Iterator[None]:
        """Drop a tracker that fails, whatever it raises: a network that is gone must not end a training."""
        try:
            yield
        except Exception as error:
            with suppress(Exception), _usual():  # so that another training in this process can begin a run
                if name in self._active:
                    self._active.pop(name).finish()
            say(f"note: {name}: {first_line(error)}; the training goes on without it, metrics.jsonl is whole")


@contextmanager
def _usual() -> Iterator[None]:
    """Without what trackers print, and with `USUAL` where the environment says nothing."""
    missing = [name for name in USUAL if name not in os.environ]
    os.environ.update({name: USUAL[name] for name in missing})
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        for name in missing:
            os.environ.pop(name, None)


def _kept(path: Path) -> dict[str, str]:
    """The tracked runs of a run that is resumed; none where the file is missing or no such file."""
    try:
        found = read_json(path, "")
    except UserError:
        return {}
    return {name: own for name, own in found.items() if name in MAKERS and re.fullmatch(r"[\w.=-]{1,200}", str(own))}


def _config_of(config: Config) -> dict[str, Any]:
    """The configuration, key by key, in values that every tracker takes."""
    return {
        key: value if isinstance(value, bool | int | float | str) else str(value)
        for key, value in flatten(plain(config)).items()
    }


def _name_of(folder: Path) -> str:
    """The run folder's name in letters, digits and what is allowed between them in every tracker."""
    return re.sub(r"[^\w.=-]+", "_", folder.absolute().name)[:100] or "run"


class _Trackio(TrackioTracker):  # type: ignore[misc]
    """Accelerate's, which would leave the run to be ended again, and told, when the process ends."""

    def finish(self) -> None:
        """End the run."""
        import trackio

        trackio.finish()


def _trackio(folder: Path, own: str | None) -> tuple[GeneralTracker, str]:
    """In trackio's own folder, or where TRACKIO_SERVER_URL or TRACKIO_SPACE_ID sends it.

    Tracked runs are found by their names, which are therefore unique.
    """
    name = own or f"{_name_of(folder)}-{uuid.uuid4().hex[:8]}"
    options = {"resume": "allow" if own else "never", "embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
    tracker = _Trackio(os.environ.get("TRACKIO_PROJECT", PROJECT), name=name, **options)
    tracker.start()
    return tracker, name


def _wandb(folder: Path, own: str | None) -> tuple[GeneralTracker, str]:
    """In `wandb/` of the run folder; WANDB_MODE=online sends it too."""
    import wandb

    name = own or uuid.uuid4().hex[:12]
    tracker = WandBTracker(
        os.environ.get("WANDB_PROJECT", PROJECT),
        id=name,
        name=_name_of(folder),
        dir=str(folder),
        resume="allow",
        settings=wandb.Settings(console="off"),
    )
    tracker.start()
    return tracker, name


def _mlflow(folder: Path, own: str | None) -> tuple[GeneralTracker, str]:
    """In `mlruns/` of the run folder, or where MLFLOW_TRACKING_URI says."""
    import mlflow

    given = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(given or (folder / "mlruns").absolute().as_uri())
    if given is None:  # mlflow sets it, and the next training in this process has its own
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    tracker = MLflowTracker(PROJECT, run_id=own, run_name=_name_of(folder))
    tracker.start()
    return tracker, str(tracker.tracker.info.run_id)


MLFLOW = "mlflow"
MAKERS: Mapping[str, Callable[[Path, str | None], tuple[GeneralTracker, str]]] = {
    "trackio": _trackio,
    "wandb": _wandb,
    MLFLOW: _mlflow,
}
