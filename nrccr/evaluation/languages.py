"""Several query languages together: the mean of their metrics, and the rank variance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nrccr.data.sampling import Indices
from nrccr.evaluation.compare import DIRECTIONS, matched_ranks, rank_variance, read_outcome
from nrccr.evaluation.outputs import TOGETHER
from nrccr.files import write_json


def mean_metrics(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The mean over languages of every metric, ranks and geometric means included."""
    return {
        direction: {
            name: float(np.mean([own[direction][name] for own in metrics.values()]))
            for name in next(iter(metrics.values()))[direction]
        }
        for direction in DIRECTIONS
    } | {"SumR": float(np.mean([own["SumR"] for own in metrics.values()]))}


def write_together(folder: Path, metrics: Mapping[str, Mapping[str, Any]], places: Sequence[Path]) -> dict[str, Any]:
    """What the tests of one model in several query languages are together, also as `languages.json`.

    The rank variance is that of the ranks that queries with the same item and number have in all languages.

    Args:
        folder: of the test.
        metrics: by language, what its `metrics.json` holds.
        places: the folder of each, in that order.

    Raises:
        UserError: the ranks just written cannot be read.
    """
    first = next(iter(metrics.values()))
    ranks = matched_ranks([read_outcome(place, "") for place in places])
    found = {
        "collection": first["collection"],
        "split": first["split"],
        "languages": list(metrics),
        "mean": mean_metrics(metrics),
        "rank_variance": rank_variance(ranks) if len(ranks[0]) else None,
        "rank_variance_queries": len(ranks[0]),
    }
    untuned = {language: own["untuned"] for language, own in metrics.items() if "untuned" in own}
    if untuned:
        found["untuned"] = {"mean": mean_metrics(untuned)}
    write_json(folder / TOGETHER, found)
    return found


def variance_across(
    ranked: Mapping[str, npt.NDArray[np.float64]], item_of: Mapping[str, Indices]
) -> tuple[float | None, int]:
    """Rank variance over languages, averaged over the items with exactly one query in every language.

    For each item (1 / L) sum_l (r_l - mean r)^2, with r_l the rank that its query in language l gives it: in squared
    ranks, 0 where all languages rank alike.

    Args:
        ranked: by language (Q,), the rank of each query's item, text to visual.
        item_of: by language (Q,), each query's item.

    Returns:
        The mean variance, none where there is one language only or no item has one query in every language; and how
        many have.
    """
    if len(item_of) < 2:
        return None, 0
    common: set[int] | None = None
    tables = {}
    for language, items in item_of.items():
        values, first, counts = np.unique(items, return_index=True, return_counts=True)
        alone = counts == 1
        tables[language] = dict(zip(values[alone].tolist(), ranked[language][first[alone]].tolist(), strict=True))
        common = set(tables[language]) if common is None else common & set(tables[language])
    chosen = sorted(common or ())
    if not chosen:
        return None, 0
    return rank_variance([np.array([table[item] for item in chosen]) for table in tables.values()]), len(chosen)
