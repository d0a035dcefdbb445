"""The files of a test folder.

Q queries, N items, M items that have a query, D joint-space width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from nrccr.errors import UserError
from nrccr.evaluation.blocks import Blocks, dense, highest_columns
from nrccr.evaluation.encode import EncodedQueries
from nrccr.evaluation.ranked import Ranked, Scored
from nrccr.files import atomic_path, read_json, write_text

TOP = 10
TOGETHER = "languages.json"  # of a model that was tested in several query languages, folder by folder
RANKS = ("ranks.tsv", "ranks_visual.tsv")


def written(languages: Sequence[str]) -> list[Path]:
    """The files of a test folder; `languages` are those with a folder of their own."""
    ranks = [Path(language, name) for language in languages for name in RANKS]
    return [Path("metrics.json"), Path("scores.npz"), Path(TOGETHER), *map(Path, RANKS), *ranks]


def forget(folder: Path) -> None:
    """Delete what an earlier test wrote, perhaps in more languages; other files stay."""
    metrics = folder / "metrics.json"
    try:
        languages = [name for name in read_json(metrics, "test again")["languages"] if name.isalpha()]
    except (UserError, KeyError, TypeError, AttributeError):
        languages = []
    for language in languages:
        if not (folder / language).is_symlink():  # it would lead elsewhere
            for name in RANKS:
                (folder / language / name).unlink(missing_ok=True)
    for name in ("metrics.json", "scores.npz", TOGETHER):
        (folder / name).unlink(missing_ok=True)


def write_ranks(
    folder: Path, ranked: Ranked, scored: Scored, query_ids: Sequence[str], item_ids: Sequence[str], memory_mb: float
) -> None:
    """One line a query: its id, the rank of its item, the ten items placed first (ties by index); and one line an item.

    An item's line has the best rank of its queries and the average precision of them all.

    Args:
        folder: gets `ranks.tsv` and `ranks_visual.tsv`.
        ranked: ranks by `scored`.
        scored: scores of both directions.
        query_ids: Q of them.
        item_ids: N of them.
        memory_mb: what a block may take.
    """
    best = ranked.text_to_visual.best
    top = highest_columns(scored.forward, TOP, memory_mb).tolist()  # (Q, 10)
    lines = ["query\trank\ttop"]
    for query, rank, columns in zip(query_ids, best, top, strict=True):
        lines.append(f"{query}\t{int(rank)}\t{' '.join(item_ids[column] for column in columns)}")
    write_text(folder / "ranks.tsv", "\n".join(lines) + "\n")
    best, precision, _ = ranked.visual_to_text
    top = highest_columns(scored.backward, TOP, memory_mb).tolist()  # (M, 10)
    lines = ["item\trank\tprecision\ttop"]
    for item, rank, mean, columns in zip(scored.queried.tolist(), best, precision, top, strict=True):
        found = " ".join(query_ids[column] for column in columns)
        lines.append(f"{item_ids[item]}\t{int(rank)}\t{float(mean)!r}\t{found}")
    write_text(folder / "ranks_visual.tsv", "\n".join(lines) + "\n")


def write_scores(
    folder: Path, forward: Blocks, encoded: EncodedQueries, item_ids: Sequence[str], memory_mb: float
) -> None:
    """Write `scores.npz`: scores (Q, N) and embeddings, with their ids."""
    embeddings: dict[str, Tensor | None] = {
        "text_source": encoded.embeddings.source,
        "text_target": encoded.embeddings.target,
        "visual": encoded.embeddings.visual,
    }
    content: dict[str, Any] = {
        "scores": dense(forward, memory_mb).float().cpu().numpy(),
        "query_ids": np.array(encoded.ids),
        "item_ids": np.array(item_ids),
        **{name: vectors.float().cpu().numpy() for name, vectors in embeddings.items() if vectors is not None},
    }
    with atomic_path(folder / "scores.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, **content)
