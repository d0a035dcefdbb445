"""Two tests of the same queries: differences with intervals. Several languages: their rank variance.

Q queries, N items, L languages, B resamples.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nrccr.errors import UserError
from nrccr.evaluation.metrics import CUT, RECALLS
from nrccr.sizes import regular_bytes

Floats = npt.NDArray[np.float64]
METRICS = (*(f"R@{k}" for k in RECALLS), "MedR", "MeanR", "mAP", "MRR")
DIRECTIONS = ("text_to_visual", "visual_to_text")
GAIN = f"nDCG@{CUT}"  # of queries alone: an item's best rank and average precision do not tell it
NAMES = (
    *(("text_to_visual", name) for name in (*METRICS, GAIN)),
    *(("visual_to_text", name) for name in METRICS),
    ("both", "SumR"),
    ("both", "mean_recall"),
)


@dataclass(frozen=True)
class Outcome:
    """The ranks that a test wrote.

    Attributes:
        folder: of the test.
        query_ids: Q ids, each `item#tag#number`.
        ranks: (Q,) of each query's item.
        item_ids: N ids.
        item_ranks: (N,) of each item's best-placed query.
        precisions: (N,) average precision of each item, 0..1.
        item_of: (Q,) each query's item as a position in `item_ids`.
    """

    folder: Path
    query_ids: list[str]
    ranks: Floats
    item_ids: list[str]
    item_ranks: Floats
    precisions: Floats
    item_of: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """A metric of two runs, and the difference b - a with its 95 % interval."""

    a: float
    a_bounds: tuple[float, float]
    b: float
    b_bounds: tuple[float, float]
    difference: float
    bounds: tuple[float, float]


def read_outcome(path: str | os.PathLike[str], split: str) -> Outcome:
    """Read the ranks of a run folder, or of a test folder itself.

    Raises:
        UserError: no ranks there, or damaged ones.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(split, str):
        kinds = f"{type(path).__name__} and {type(split).__name__}"
        raise UserError(f"a run folder and a split are needed, not {kinds}; give their names as text")
    path = Path(path)
    folder = path / split if (path / split / "ranks.tsv").is_file() else path
    if not (folder / "ranks.tsv").is_file():
        by_language = [*_by_language(path / split), *_by_language(path)]
        if by_language:
            raise UserError(f"{path}: tested by language; give the folder of one, such as {by_language[0]}")
    query_ids, columns = _read_table(folder / "ranks.tsv", 1)
    item_ids, item_columns = _read_table(folder / "ranks_visual.tsv", 2)
    places = {item: index for index, item in enumerate(item_ids)}
    items = [query.rsplit("#", 2)[0] for query in query_ids]
    unknown = [item for item in items if item not in places]
    if unknown:
        raise UserError(f"{folder}/ranks_visual.tsv: no line for item {unknown[0]}; test again")
    item_of = np.array([places[item] for item in items], dtype=np.int64)
    return Outcome(folder, query_ids, columns[0], item_ids, item_columns[0], item_columns[1], item_of)


def _by_language(folder: Path) -> list[Path]:
    """The folders of query languages in a test folder; a run folder has none, it holds tests of several splits."""
    if not (folder / "metrics.json").is_file():
        return []
    return sorted(ranks.parent for ranks in folder.glob("*/ranks.tsv") if ranks.is_file())


def outcomes_of(path: Path, split: str) -> list[Outcome]:
    """The ranks of a run folder or test folder, of all its query languages; the headline's first.

    Raises:
        UserError: no ranks there, or damaged ones.
    """
    folder = path / split if (path / split).is_dir() else path
    inside = _by_language(folder)
    own = [folder] if (folder / "ranks.tsv").is_file() or not inside else []
    return [read_outcome(place, split) for place in (*own, *inside)]


def bootstrap(a: Outcome, b: Outcome, resamples: int = 1000, seed: int = 0) -> dict[tuple[str, str], Interval]:
    """Paired bootstrap: both runs are compared on the same resamples of the same items, with all their queries.

    Items are drawn, not queries, as the queries of an item are correlated; one draw serves both directions, so that
    sums over directions have intervals too. Percentile intervals.

    Args:
        a: a run.
        b: another on the same queries, in any order.
        resamples: how many, B.
        seed: of the draws.

    Returns:
        By (direction, metric), and by ("both", "SumR") and ("both", "mean_recall").

    Raises:
        UserError: other queries or items.
    """
    b = in_order_of(a, b)
    whole = np.ones((1, len(a.item_ids)))
    draws = resampled(len(a.item_ids), resamples, seed)
    points = [weighted_metrics(run, whole)[0] for run in (a, b)]  # (metrics,) each
    clouds = [weighted_metrics(run, draws) for run in (a, b)]  # (B, metrics)

    def bounds(values: Floats) -> tuple[float, float]:
        low, high = np.percentile(values, [2.5, 97.5])
        return float(low), float(high)

    return {
        name: Interval(
            float(points[0][column]),
            bounds(clouds[0][:, column]),
            float(points[1][column]),
            bounds(clouds[1][:, column]),
            float(points[1][column] - points[0][column]),
            bounds(clouds[1][:, column] - clouds[0][:, column]),
        )
        for column, name in enumerate(NAMES)
    }


def intervals(run: Outcome, resamples: int = 1000, seed: int = 0) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Each metric of one run with the ends of its 95 % interval, by (direction, metric) as `bootstrap` has them.

    Args:
        run: the ranks.
        resamples: how many, of items with all their queries.
        seed: of the draws.
    """
    points = weighted_metrics(run, np.ones((1, len(run.item_ids))))[0]  # (metrics,)
    cloud = weighted_metrics(run, resampled(len(run.item_ids), resamples, seed))  # (B, metrics)
    low, high = np.percentile(cloud, [2.5, 97.5], axis=0)  # (metrics,) each
    return {name: (float(points[at]), float(low[at]), float(high[at])) for at, name in enumerate(NAMES)}


def resampled(items: int, resamples: int, seed: int) -> Floats:
    """How often each item is in each resample of a bootstrap, (B, N) whole numbers."""
    generator = np.random.default_rng(seed)
    draws = [np.bincount(generator.integers(items, size=items), minlength=items) for _ in range(resamples)]
    return np.stack(draws).astype(np.float64)


def weighted_metrics(run: Outcome, weights: Floats) -> Floats:
    """Every metric in the order of NAMES, (B, metrics), where item g and its queries count `weights[:, g]` times.

    Args:
        run: the ranks.
        weights: (B, N) whole numbers.
    """
    texts = _direction(run.ranks, 1 / run.ranks, weights[:, run.item_of])
    visual = _direction(run.item_ranks, run.precisions, weights)
    total = texts[:, : len(RECALLS)].sum(axis=1) + visual[:, : len(RECALLS)].sum(axis=1)
    gains = np.where(run.ranks < CUT + 1, 100.0 / np.log2(1 + run.ranks), 0.0)  # (Q,): a query has one item
    of_queries = weights[:, run.item_of]
    gain = of_queries @ gains / of_queries.sum(axis=1)  # (B,)
    return np.column_stack([texts, gain, visual, total, total / (2 * len(RECALLS))])


def _direction(ranks: Floats, precision: Floats, weights: Floats) -> Floats:
    """Metrics of one direction in the order of METRICS, (B, metrics), of ranks and precisions (Q,), weights (B, Q)."""
    values = [100.0 * (ranks <= k) for k in RECALLS] + [ranks, 100.0 * precision, 100.0 / ranks]
    count = weights.sum(axis=1)
    means = weights @ np.stack(values, axis=1) / count[:, None]
    order = np.argsort(ranks, kind="stable")
    reached = np.cumsum(weights[:, order], axis=1)
    middle = [(reached >= place[:, None]).argmax(axis=1) for place in (np.ceil(count / 2), np.floor(count / 2) + 1)]
    median = (ranks[order][middle[0]] + ranks[order][middle[1]]) / 2
    return np.column_stack([means[:, : len(RECALLS)], median, means[:, len(RECALLS) :]])


def rank_variance(ranks: Sequence[Floats]) -> float:
    """Mean over queries of the variance of a query's rank over languages.

    (1 / (L Q)) sum_l sum_q (r_lq - mean_l r_lq)^2: 0 where all languages rank alike, in squared ranks.

    Args:
        ranks: L arrays (Q,), the same query at the same position.
    """
    return float(np.mean(np.var(np.stack(list(ranks)), axis=0)))


def common_ranks(runs: Sequence[Outcome]) -> list[Floats]:
    """Ranks (Q,) of several languages' tests, queries matched by item and number, in the order of the first.

    Raises:
        UserError: two tests without a common query.
    """
    found = matched_ranks(runs)
    if not len(found[0]):
        names = " and ".join(str(run.folder) for run in runs)
        raise UserError(
            f"{names}: no query has the same item and number in all; give tests of one collection and split"
        )
    return found


def matched_ranks(runs: Sequence[Outcome]) -> list[Floats]:
    """As `common_ranks`; empty arrays where there is no common query."""
    tables = [dict(zip(map(_key, run.query_ids), run.ranks, strict=True)) for run in runs]
    keys = [key for key in tables[0] if all(key in table for table in tables)]
    return [np.array([table[key] for key in keys]) for table in tables]


def _key(query: str) -> tuple[str, str]:
    item, _, number = query.rsplit("#", 2)
    return item, number


def _require_same(a: Outcome, b: Outcome) -> None:
    for one, other in ((a.query_ids, b.query_ids), (a.item_ids, b.item_ids)):
        different = set(one) ^ set(other)
        if different:
            raise UserError(
                f"{a.folder} and {b.folder}: tests of other data, {len(different)} ids are in only one, such as "
                f"{min(different)}; give tests of the same collection, split and language"
            )


def in_order_of(a: Outcome, b: Outcome) -> Outcome:
    """The outcome `b` with queries and items in the order of `a`.

    Raises:
        UserError: other queries or items.
    """
    _require_same(a, b)
    rows, items = ({name: index for index, name in enumerate(names)} for names in (b.query_ids, b.item_ids))
    row = [rows[name] for name in a.query_ids]
    item = [items[name] for name in a.item_ids]
    return Outcome(b.folder, a.query_ids, b.ranks[row], a.item_ids, b.item_ranks[item], b.precisions[item], a.item_of)


def _read_table(path: Path, columns: int) -> tuple[list[str], list[Floats]]:
    """Ids, and the columns of numbers after them."""
    try:
        lines = regular_bytes(path).decode("utf-8").removesuffix("\n").split("\n")[1:]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read; give a run that `nrccr test` has tested, with --split") from error
    names: list[str] = []
    values: list[list[float]] = []
    for number, line in enumerate(lines, start=2):
        parts = line.split("\t")
        try:
            if len(parts) <= columns or (path.name == "ranks.tsv" and parts[0].count("#") < 2):
                raise ValueError
            found = [float(part) for part in parts[1 : columns + 1]]
            if not found[0] >= 1 or not np.isfinite(found).all():
                raise ValueError
        except ValueError:
            raise UserError(f"{path}:{number}: not a line of ranks; test again") from None
        names.append(parts[0])
        values.append(found)
    if not names or len(set(names)) < len(names):
        raise UserError(f"{path}: {'an id is duplicated' if names else 'holds no ranks'}; test again")
    return names, list(np.array(values).T)
