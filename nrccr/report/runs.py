"""Finished runs: found on disk, and grouped by all but their seed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nrccr.config.keys import keys_that_change
from nrccr.config.schema import Config, plain, resolved_switches
from nrccr.config.yaml import flatten
from nrccr.errors import UserError
from nrccr.files import read_json
from nrccr.report.papers import MEAN, Column, PaperTable
from nrccr.systems.settings import load_config

NAMED = ("text.model", "image.model", "c2kd.labse")  # hub names or folders: where a folder lies changes nothing
# Keys, and beginnings of keys, that make another model of it: such a run is not compared with the paper.
OTHER_MODEL = ("reading", "switches.", "text.", "visual.", "image.", "joint.", "model")


@dataclass(frozen=True)
class Run:
    """A run and one of its tests.

    Attributes:
        folder: the run folder.
        config: what it was trained with.
        metrics: what the test's `metrics.json` holds.
        values: what its numbers depend on besides the seed, by key: configuration, settings of the test, training data.
    """

    folder: Path
    config: Config
    metrics: Mapping[str, Any]
    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its folder's name without the seed."""
        return _without_seed(self.folder.absolute())


@dataclass(frozen=True)
class SeedGroup:
    """Runs that differ only in their seed, by ascending seed."""

    runs: Sequence[Run]

    @property
    def first(self) -> Run:
        """Any of them, where they are alike."""
        return self.runs[0]

    @property
    def collection(self) -> str:
        """Our name for their collection."""
        return str(self.first.metrics["collection"])

    def numbers(self, column: Column) -> list[float]:
        """One metric of each run; none for a language that was not tested."""
        languages = self.first.metrics.get("languages")
        if languages is not None and column[0] != MEAN and column[0] not in languages:
            return []
        return [_number(run.metrics, column) for run in self.runs]

    def differences(self, reference: Config) -> dict[str, Any]:
        """Values that are not those of a configuration; training data is not compared."""
        wanted = _values(reference, {"collection": self.collection}, None)
        own = self.first.values
        return {key: own.get(key) for key in {**wanted, **own} if key != "data" and own.get(key) != wanted.get(key)}


def is_other_model(differences: Mapping[str, Any]) -> bool:
    """Whether these differences from a row's configuration make another model: size, backbone or reading."""
    return any(key.startswith(OTHER_MODEL) for key in differences)


def find_runs(folders: Sequence[Path], table: PaperTable) -> list[Run]:
    """Finished runs below some folders, by path: those with `config.yaml` and the test of a table, of the split test.

    A run that was tested with and without `--tune` is there twice.

    A table by language takes runs tested by language, the others all but these.

    Args:
        folders: where to look, at any depth.
        table: tells where in a run folder its `metrics.json` lies, and which metrics it holds.

    Raises:
        UserError: no such folder, or a file of a run that cannot be read.
    """
    found: dict[Path, Run] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; give folders with finished runs as --runs")
        for path in sorted(folder.rglob("config.yaml")):
            hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)  # half-written, moved aside
            for tested in (table.folder, f"{table.folder}-tuned"):
                metrics = path.parent / tested / "metrics.json"
                if metrics.is_file() and not hidden and metrics.resolve() not in found:
                    run = _read_run(path, metrics, table)
                    if run is not None and run.metrics["split"] == "test":
                        found[metrics.resolve()] = run
    return list(found.values())


def by_seed(runs: Sequence[Run]) -> list[SeedGroup]:
    """Group runs that differ only in their seed, in the order of the first of each.

    Raises:
        UserError: two of the same seed, of which one would be counted twice.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(json.dumps(run.values, sort_keys=True), []).append(run)
    for group in groups.values():
        group.sort(key=lambda run: run.config.seed)
        for before, after in zip(group, group[1:], strict=False):
            if before.config.seed == after.config.seed:
                raise UserError(
                    f"{before.folder} and {after.folder}: the same configuration and seed; move one of them elsewhere "
                    "or name the folders to take as --runs"
                )
    return [SeedGroup(group) for group in groups.values()]


def _read_run(path: Path, metrics: Path, table: PaperTable) -> Run | None:
    """The run, none if its metrics are by language and the table is not, or the reverse."""
    try:
        found = read_json(metrics, "test the run again")
        if ("languages" in found) != (table.languages is not None):
            return None
        config = load_config(path, alone=True)
        record = path.with_name("run.json")
        data = read_json(record, "train the run again")["fingerprint"] if record.is_file() else None
        values = _values(config, found, data)
        for column in table.columns:
            _number(found, column)
        found["split"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{metrics}: not the metrics of a finished run ({error!r}); test the run again") from error
    return Run(path.parent, config, found, values)


def _without_seed(folder: Path) -> str:
    return re.sub(r"-s\d+$", "", folder.name)


def _number(metrics: Mapping[str, Any], column: Column) -> float:
    direction, name = column
    if "languages" in metrics:
        own = metrics[MEAN] if direction == MEAN else metrics["languages"][direction]
        return float(own["text_to_visual"][name])
    return float(metrics[direction][name] if name else metrics[direction])


def _values(config: Config, metrics: Mapping[str, Any], data: str | None) -> dict[str, Any]:
    """What numbers depend on; a test may have had other settings than the run's own configuration."""
    # Runs that are averaged may differ in what changes no number that matters.
    free = {"seed"} | keys_that_change(type(config), "digits", "nothing")
    values = {key: value for key, value in flatten(plain(config)).items() if key not in free}
    values["data.collection"] = metrics["collection"]
    values |= {key: Path(values[key]).name for key in NAMED if key in values}
    values["c2kd.teachers"] = [_without_seed(Path(teacher)) for teacher in values["c2kd.teachers"]]
    for key in ("target_weight", "batch_size"):
        values[f"evaluation.{key}"] = metrics.get(key, values[f"evaluation.{key}"])
    switches = metrics.get("switches", resolved_switches(config))
    for name, used in switches.items():
        values[f"switches.{name}"] = None if used == config.usual_switches[name] else used
    # Hubness normalisation: which scores go into it is a switch already.
    normalisation = metrics.get("normalisation", {"method": "none"})
    tuned = [metrics, *metrics.get("languages", {}).values()]
    if any("tuned" in own for own in tuned):  # seeds may differ in what was chosen, and are averaged all the same
        values["evaluation.target_weight"], normalisation = "tuned", {"method": "tuned"}
    values |= {f"normalisation.{key}": value for key, value in normalisation.items() if key != "scores"}
    values["data"] = data
    return values
