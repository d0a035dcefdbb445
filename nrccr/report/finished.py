"""Finished runs as a report reads them: what they recorded, and their test split with its scores.

Q queries, N items of the gallery, D joint-space width.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
import torch

from nrccr.config.schema import Config, resolved_switches
from nrccr.data.queries import Queries, Split
from nrccr.errors import UserError, first_line, printable
from nrccr.evaluation.blocks import dense
from nrccr.evaluation.compare import Outcome, read_outcome
from nrccr.evaluation.directions import Directions
from nrccr.evaluation.encode import EncodedQueries, encode_gallery, encode_queries
from nrccr.evaluation.ranked import Scored
from nrccr.evaluation.rule import Rule
from nrccr.files import moderate, read_json
from nrccr.sizes import regular_bytes
from nrccr.systems.base import splits_of
from nrccr.systems.loading import WEIGHTS_NAME, load_retriever
from nrccr.systems.retriever import Retriever
from nrccr.systems.settings import load_config

LONGEST_LABEL = 48
HUGE = 1e100
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ReportRun:
    """A finished run. Its model and its test split are read when they are first asked for, and kept.

    Attributes:
        folder: the run folder.
        label: its name in figures: the folder's, with its parent's where two runs have the same; short and printable.
        config: what it was trained with.
        record: what `run.json` holds.
        log: the lines of `metrics.jsonl`.
        tested: what `test/metrics.json` holds; none where the run was not tested.
        root: folder of the collections.
        device: see nrccr.distributed.choose_device.
    """

    folder: Path
    label: str
    config: Config
    record: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]]
    tested: Mapping[str, Any] | None
    root: Path
    device: str | None = None

    @cached_property
    def retriever(self) -> Retriever:
        """The model, as `nrccr test` loads it.

        Raises:
            UserError: no weights, or no encoder that fits.
        """
        return load_retriever(self.folder, [], self.device)

    @cached_property
    def rule(self) -> Rule:
        """How its test scores are made, without normalisation against hubs."""
        return Rule.of(self.retriever.config, self.retriever.device)

    @cached_property
    def searched(self) -> tuple[Searched, ...]:
        """The test split, one entry for each query language, the headline first.

        Raises:
            UserError: no such collection under the root, or damaged data.
        """
        splits = splits_of(self.retriever, self.root, "test")
        return tuple(Searched(self, split, language) for split in splits for language in split.queries)

    @property
    def headline(self) -> Searched:
        """The queries of the first, or only, language."""
        return self.searched[0]


@dataclass(frozen=True)
class Searched:
    """The queries of one language, the gallery that they search, and its scores; all encoded once.

    Attributes:
        run: whose model encodes them.
        split: where they are from; `split.visuals` is the gallery.
        language: of the queries.
    """

    run: ReportRun
    split: Split
    language: str

    @property
    def queries(self) -> Queries:
        """Tokens, texts, translations, ids, and the relevant item of each."""
        return self.split.queries[self.language]

    @property
    def item_ids(self) -> list[str]:
        """The gallery's N ids."""
        return list(self.split.visuals.ids)

    @cached_property
    def encoded(self) -> EncodedQueries:
        """Embeddings, ids and items of the queries; where `split.averaged` one for each item, not each caption.

        Raises:
            UserError: an embedding is not finite.
        """
        first = next(other for other in self.run.searched if other.split is self.split)  # has the gallery of all
        network, batch_size = self.run.retriever.network, self.run.rule.batch_size
        return encode_queries(network, self.split, self.queries, first._visual, batch_size)

    @cached_property
    def _visual(self) -> torch.Tensor:
        """The encoded gallery (N, D), on the run's device."""
        rule = self.run.rule
        return encode_gallery(self.run.retriever.network, self.split, rule.batch_size, rule.device)

    @cached_property
    def _directions(self) -> Directions:
        rule = self.run.rule
        return Directions(self.encoded.embeddings, rule.kind, rule.memory_mb)

    @torch.inference_mode()
    def scored(self, target_weight: float | None = None) -> Scored:
        """Scores of both directions, block by block, as `nrccr test` makes them.

        Args:
            target_weight: w_T, from 0 (translations alone) to 1 (queries alone); none takes the run's own.
        """
        rule = self.run.rule
        weight = rule.target_weight if target_weight is None else target_weight
        return Scored.of(self._directions.plain(weight), self.encoded.item_of, rule.memory_mb)

    @torch.inference_mode()
    def scores(self, target_weight: float | None = None) -> npt.NDArray[np.float32]:
        """The whole matrix (Q, N), higher is better."""
        whole: npt.NDArray[np.float32] = (
            dense(self.scored(target_weight).forward, self.run.rule.memory_mb).float().cpu().numpy()
        )
        return whole

    @torch.inference_mode()
    def ranks(self, target_weight: float | None = None) -> Floats:
        """The rank (Q,) of each query's item, from 1."""
        return self.scored(target_weight).ranked(memory_mb=self.run.rule.memory_mb).text_to_visual.best

    @cached_property
    def outcome(self) -> Outcome:
        """The headline ranks of both directions: those that `nrccr test` wrote for these queries, else computed."""
        written = self._written()
        return self._computed() if written is None else written

    def _written(self) -> Outcome | None:
        """What a test wrote; none unless it was one of these weights, queries and scores."""
        run = self.run
        folder = run.folder / "test" / self.split.folder / (self.language if self.split.by_language else "")
        if run.tested is None or not (folder / "ranks.tsv").is_file():
            return None
        newer = (folder / "ranks.tsv").stat().st_mtime >= (run.folder / WEIGHTS_NAME).stat().st_mtime
        normalisation = run.tested.get("normalisation")
        plain = not isinstance(normalisation, dict) or normalisation.get("method", "none") == "none"
        weight = run.tested.get("target_weight", run.config.evaluation.target_weight)
        usual = weight == run.config.evaluation.target_weight
        if not (newer and plain and usual and run.tested.get("switches") == resolved_switches(run.config)):
            return None
        found = read_outcome(folder, "test")
        return found if self.split.averaged or found.query_ids == self.queries.ids else None

    @torch.inference_mode()
    def _computed(self) -> Outcome:
        scored = self.scored()
        ranked = scored.ranked(memory_mb=self.run.rule.memory_mb)
        item_ids = [self.item_ids[at] for at in scored.queried.tolist()]
        item_of = np.searchsorted(scored.queried, self.encoded.item_of)
        ranks, (item_ranks, precisions, _) = ranked.text_to_visual.best, ranked.visual_to_text
        folder = self.run.folder / "test"
        return Outcome(folder, self.encoded.ids, ranks, item_ids, item_ranks, precisions, item_of)


def read(folders: Sequence[Path], root: Path, device: str | None = None) -> list[ReportRun]:
    """Read finished runs.

    Args:
        folders: run folders, in the order in which figures show them.
        root: folder of the collections.
        device: see nrccr.distributed.choose_device.

    Raises:
        UserError: a folder that holds no run, one twice, a run that has not finished its training, or a damaged file.
    """
    places = [folder.resolve() for folder in folders]
    for place, count in Counter(places).items():
        if count > 1:
            raise UserError(f"{place}: named twice; name each run once")
    return [_read(folder, label, root, device) for folder, label in zip(folders, _labels(places), strict=True)]


def _labels(places: Sequence[Path]) -> list[str]:
    """A short name for each folder, of which no two are the same, and none that matplotlib hides for its underscore."""
    names = Counter(place.name for place in places)
    found: list[str] = []
    for place in places:
        name = printable(place.name if names[place.name] == 1 else f"{place.parent.name}/{place.name}")
        short = name if len(name) <= LONGEST_LABEL else f"{name[: LONGEST_LABEL - 20]}...{name[-15:]}"
        short = f"run {short}" if short.startswith("_") else short
        found.append(short if short not in found else f"{short} ({len(found) + 1})")
    return found


def _read(folder: Path, label: str, root: Path, device: str | None) -> ReportRun:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run folder; check the path")
    paths = {name: folder / name for name in ("config.yaml", "run.json", "metrics.jsonl", WEIGHTS_NAME)}
    if not paths["config.yaml"].is_file() or not paths["run.json"].is_file():
        raise UserError(f"{folder}: no run folder of a training (config.yaml, run.json); give one that has finished")
    record = read_json(paths["run.json"], "train the run again")
    if not isinstance(record.get("finished"), dict):
        raise UserError(f"{folder}: its training has not finished; finish it with --resume, reports take finished runs")
    for path in paths.values():
        if not path.is_file():
            raise UserError(f"{path}: missing; restore the whole folder")
    metrics = folder / "test" / "metrics.json"
    tested = read_json(metrics, "test the run again") if metrics.is_file() else None
    config = load_config(paths["config.yaml"], alone=True)
    return ReportRun(folder, label, config, record, read_log(paths["metrics.jsonl"]), tested, root, device)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`, each with its `kind` and `step`; numbers that are not finite are left out.

    Raises:
        UserError: it cannot be read, or a line is damaged.
    """
    try:
        lines = regular_bytes(path).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)}); restore the whole folder") from error
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line, parse_constant=lambda _: None, parse_int=moderate)
            sound = isinstance(entry, dict) and isinstance(entry["kind"], str) and is_count(entry["step"])
        except (ValueError, KeyError, RecursionError):
            sound = False
        if not sound:
            raise UserError(f"{path}:{number}: not a line of a training's log; restore the whole folder")
        found.append(entry)
    return found


def is_count(value: Any) -> TypeGuard[int]:
    """Whether something that a run recorded can be a number of steps or epochs."""
    return type(value) is int and 0 <= value < 2**53


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether something that a run recorded is a number, finite and of a size that can be drawn."""
    return type(value) in (int, float) and math.isfinite(value) and abs(value) < HUGE
