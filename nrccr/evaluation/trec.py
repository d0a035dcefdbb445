"""TREC files of a test, which ir-measures, trec_eval and ranx read: `run.trec` and `qrels.trec`, and both of items.

Q queries, N items, M items that have a query, K places of a run, at most DEPTH.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
from torch import Tensor

from nrccr.data.queries import Split
from nrccr.errors import UserError, not_written
from nrccr.evaluation.blocks import Blocks, highest
from nrccr.evaluation.ranked import Scored
from nrccr.files import atomic_path

DEPTH = 1000  # places of a query: all of a small gallery
RUN, QRELS, RUN_VISUAL, QRELS_VISUAL = "run.trec", "qrels.trec", "run_visual.trec", "qrels_visual.trec"
FILES = (RUN, QRELS, RUN_VISUAL, QRELS_VISUAL)
LARGEST = 1e38  # of a score: float32 has numbers beyond it, so that equal ones can be told apart


def trec_files(split: Split) -> list[Path]:
    """The files of a split within the folder of all TREC files: those of several languages in folders of their own."""
    places = [Path(split.folder, language) for language in split.queries] if split.by_language else [Path(split.folder)]
    return [place / name for place in places for name in FILES]


def write_trec(
    folder: Path, scored: Scored, query_ids: Sequence[str], item_ids: Sequence[str], memory_mb: float
) -> None:
    """Write the four files; text to visual, and visual to text for the items that have a query.

    A run has six columns (query, Q0, item, rank from 1, score, nrccr), qrels four (query, 0, item, 1); blanks, control
    characters and % in ids are escaped as in URLs. Tools sort by score and each breaks ties in its own way: scores
    are float32, and one that is no lower than that of the place before is written as the next lower number, so
    that every tool finds our order, ties by index.

    Args:
        folder: gets the files, each whole or not at all; earlier ones are replaced.
        scored: scores of both directions.
        query_ids: Q of them.
        item_ids: N of them.
        memory_mb: what a block may take.

    Raises:
        UserError: an id that is there twice, or a folder that cannot be written.
    """
    queries, items = _names(query_ids, "query"), _names(item_ids, "item")
    asking = [items[item] for item in scored.queried.tolist()]
    pairs = [(query, items[item]) for query, item in zip(queries, scored.item_of.tolist(), strict=True)]
    try:
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        _write_run(folder / RUN, scored.forward, queries, items, memory_mb)
        _write_qrels(folder / QRELS, pairs)
        _write_run(folder / RUN_VISUAL, scored.backward, asking, queries, memory_mb)
        _write_qrels(folder / QRELS_VISUAL, sorted((item, query) for query, item in pairs))
    except OSError as error:
        raise not_written(folder, error, "give another folder with --trec") from error


def _names(ids: Sequence[str], what: str) -> list[str]:
    """Ids without blanks, each once."""
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        twice = next(name for name in ids if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise UserError(f"--trec: {what} {twice} is there twice, and a TREC file has each once; leave --trec out")
    return ["".join(map(_escaped, name)) if _is_odd(name) else name for name in ids]


def _is_odd(name: str) -> bool:
    return not name.isprintable() or "%" in name or " " in name


def _escaped(character: str) -> str:
    return quote(character, safe="", errors="backslashreplace") if _is_odd(character) else character


def _write_run(path: Path, scores: Blocks, rows: Sequence[str], columns: Sequence[str], memory_mb: float) -> None:
    """The places of every row, at most DEPTH."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for block, values, places in highest(scores, DEPTH, memory_mb):
            falling = strictly_falling(_as_floats(values))
            for row, own, found in zip(block, falling, places.tolist(), strict=True):
                name = rows[row]
                lines = (
                    f"{name} Q0 {columns[column]} {rank} {score:.9g} nrccr\n"
                    for rank, (column, score) in enumerate(zip(found, own.tolist(), strict=True), start=1)
                )
                file.writelines(lines)


def _write_qrels(path: Path, pairs: Iterable[tuple[str, str]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(f"{searcher} 0 {found} 1\n" for searcher, found in pairs)


def _as_floats(values: Tensor) -> npt.NDArray[np.float32]:
    clipped: npt.NDArray[np.float32] = values.double().clamp(-LARGEST, LARGEST).float().cpu().numpy()
    return clipped


def strictly_falling(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scores (rows, K), which never rise along a row, with what is no lower than the place before made the next lower.

    Nine digits tell all of them apart.
    """
    # Integers in the order of the floats: a float's bits are in order, from 0 up and from -0 down.
    bits = np.ascontiguousarray(scores).view(np.int32).astype(np.int64)
    order = np.where(bits >= 0, bits, -(bits & 0x7FFFFFFF))  # (rows, K)
    steps = np.arange(order.shape[1])
    order = np.minimum.accumulate(order + steps, axis=1) - steps
    bits = np.where(order >= 0, order, -order | 0x80000000).astype(np.uint32)
    return bits.view(np.float32)
