"""What a model card tells of: a model, what its run recorded, and its tests."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nrccr.config.keys import declared
from nrccr.config.schema import Config
from nrccr.errors import UserError
from nrccr.evaluation.compare import intervals, read_outcome
from nrccr.files import read_json
from nrccr.systems.markdown import literal

RESAMPLES, SEED = 1000, 0
ADVICE = "test the run with `nrccr test`"
_LANGUAGE = re.compile("[A-Za-z]+(-[A-Za-z]+)*")
Value = tuple[float, float, float]


@dataclass(frozen=True)
class Tested:
    """A test's results for the queries of one language.

    Attributes:
        collection: that it was on.
        split: test or val.
        language: of the queries.
        note: how its scores were made, beyond cosines of queries and items; empty where they are these.
        counts: of queries and items.
        values: metrics with their 95 % intervals, by (direction, metric).
    """

    collection: str
    split: str
    language: str
    note: str
    counts: tuple[int, int]
    values: Mapping[tuple[str, str], Value]


@dataclass(frozen=True)
class Subject:
    """What a card is about.

    Attributes:
        name: of the model.
        config: what it was trained with.
        record: what `run.json` holds; empty where there is none.
        tests: results, the headline first.
        licence: of the weights, as the user names it; none is said to be unknown.
        place: what `nrccr.load` takes in the example; its name where there is none.
    """

    name: str
    config: Config
    record: Mapping[str, Any] = field(default_factory=dict)
    tests: Sequence[Tested] = ()
    licence: str | None = None
    place: str | None = None

    @property
    def items(self) -> str:
        """What its gallery holds."""
        return "videos" if self.config.visual.kind == "video" else "images"

    def value(self, name: str) -> Any:
        """A key's value; none if its system does not read it."""
        config = self.config
        return config.value(name) if config.model in config.readers(declared(type(config))[name]) else None

    @property
    def translated(self) -> bool:
        """Whether a machine made training captions: not where people wrote all of them, or English is all there is."""
        return bool(self.value("data.scenario") != "parallel" and self.value("c2kd.stage") != "zero_shot")

    @property
    def languages(self) -> list[str]:
        """Of its training captions and of tested queries, each once."""
        data = self.config.data
        named = [data.source, *(data.languages if self.value("data.languages") is not None else ())]
        named += [self.config.query_language] if self.value("data.target") is not None else []
        return list(dict.fromkeys([*named, *(test.language for test in self.tests)]))


def read_tests(folder: Path, config: Config) -> list[Tested]:
    """The results in a folder of `nrccr test`, by language of the queries.

    Raises:
        UserError: no test there, one of texts alone, or damaged files.
    """
    metrics = read_json(folder / "metrics.json", ADVICE)
    found = _of(folder, metrics, config)
    if "queries_in" in metrics:  # one folder a language of the queries, the headline's above the others
        for path in sorted(folder.glob("*/metrics.json")):
            if _LANGUAGE.fullmatch(path.parent.name) and not path.parent.is_symlink():
                found += _of(path.parent, read_json(path, ADVICE), config)
    return found


def _of(folder: Path, metrics: Mapping[str, Any], config: Config) -> list[Tested]:
    if "task" in metrics:
        raise UserError(f"{folder}: a test of texts among texts; give the folder of a test of videos or images")
    by_language = metrics.get("languages")
    names = [name for name in by_language if _LANGUAGE.fullmatch(name)] if isinstance(by_language, dict) else [None]
    collection, split = (str(metrics.get(key, "unknown")) for key in ("collection", "split"))
    found = []
    for name in names:
        outcome = read_outcome(folder if name is None else folder / name, ".")
        language = str(name or metrics.get("queries_in") or config.query_language)
        counts = (len(outcome.query_ids), int(metrics["items"]) if type(metrics.get("items")) is int else 0)
        values = intervals(outcome, RESAMPLES, SEED)
        found.append(Tested(collection, split, language, _how_scored(metrics), counts, values))
    return found


def _how_scored(metrics: Mapping[str, Any]) -> str:
    notes = []
    weight, normalisation = metrics.get("target_weight"), metrics.get("normalisation")
    if isinstance(weight, int | float) and weight < 1 and "sweep" in metrics:
        notes.append(
            f"scores are {weight:g} of the query's and {1 - weight:g} of its translation's; "
            "a query without its translation is ranked otherwise"
        )
    method = normalisation.get("method", "none") if isinstance(normalisation, Mapping) else "none"
    if method != "none":
        notes.append(f"scores are normalised against hubs by {literal(method)}")
    if metrics.get("captions_averaged") is True:
        notes.append("the captions of an item are averaged into one query")
    return "; ".join(notes)
