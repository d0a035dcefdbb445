"""Runs made by hand for tests of reports: what they recorded, and the ranks of their test."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from nrccr.data.tokens import TokenTable
from nrccr.evaluation.compare import Outcome
from nrccr.report.finished import ReportRun
from nrccr.systems.settings import build_config


def outcome(ranks: list[int], item_of: list[int], tag: str = "zh") -> Outcome:
    """Ranks of queries and their items; of an item the best rank among its queries, as an example."""
    items = sorted(set(item_of))
    of_items = np.array([min(rank for rank, own in zip(ranks, item_of, strict=True) if own == item) for item in items])
    ids = [f"v{item}#{tag}#{number}" for number, item in enumerate(item_of)]
    places = np.array([items.index(item) for item in item_of])
    return Outcome(
        Path("test"), ids, np.array(ranks, float), [f"v{item}" for item in items], of_items.astype(float),
        1.0 / of_items, places,
    )  # fmt: skip


def finished_run(label: str, *overrides: str, log: Any = (), record: Any = None, searched: Any = ()) -> ReportRun:
    """A finished run of a configuration; `searched` are outcomes with the lengths of their queries, or nothing."""
    config = build_config([], list(overrides))
    run = ReportRun(
        Path(label), label, config, record or {"finished": {"step": 8, "best_epoch": 2}}, log, None, Path("root")
    )
    made = []
    for found, lengths in searched:
        tokens = TokenTable([[1] * (length + 2) for length in lengths], 0, special=2)
        split = SimpleNamespace(
            collection="vatex", averaged=False, by_language=False, counts={"captions": len(lengths)}
        )
        queries = SimpleNamespace(ids=found.query_ids, tokens=tokens)
        made.append(SimpleNamespace(split=split, language="zh", queries=queries, outcome=found, run=run))
    run.__dict__["searched"] = tuple(made)  # what the property would keep
    return run
