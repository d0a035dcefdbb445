"""`nrccr rank`: a split's items for typed queries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nrccr.cli.options import Device, Root, SplitOption, as_utf8, split_of, typed_queries
from nrccr.errors import UserError


def rank(
    path: Annotated[Path, typer.Argument(metavar="RUN_DIR_OR_CHECKPOINT")],
    queries: Annotated[list[str], typer.Argument(metavar="QUERY...", help="Captions in the target language.")],
    root: Root,
    split: SplitOption = "test",
    top: Annotated[int, typer.Option(min=1, help="How many items for each query.")] = 3,
    right: Annotated[str | None, typer.Option(help="The relevant item of each query, with commas between.")] = None,
    picture: Annotated[Path | None, typer.Option(help="PNG of film strips, for features that are pixels.")] = None,
    device: Device = None,
) -> None:
    """Rank a split's videos or images for queries."""
    queries = typed_queries(queries)
    expected = as_utf8(right).split(",") if right is not None else None
    if expected is not None and len(expected) != len(queries):
        raise UserError(f"--right names {len(expected)} items for {len(queries)} queries; give one a query")

    import numpy as np

    from nrccr.data.items import Images, Videos
    from nrccr.evaluation.encode import encode_gallery
    from nrccr.report.screen import ranked_table
    from nrccr.report.strips import Strip, draw_strips
    from nrccr.systems.base import splits_of
    from nrccr.systems.loading import load_retriever
    from nrccr.terminal import say

    retriever = load_retriever(path, [], device)
    config = retriever.config
    searched = next(splits_of(retriever, root, split_of(split)))
    visuals = searched.visuals
    if picture is not None and not isinstance(visuals, Videos):
        raise UserError(f"--picture {picture}: draws videos; leave it out for images")
    missing = [item for item in expected or () if item not in visuals.ids]
    if missing:
        raise UserError(f"--right {missing[0]}: no such item in split {split}")
    visual = encode_gallery(retriever.network, searched, config.evaluation.batch_size, retriever.device).cpu().numpy()
    scores = retriever.encode_text(queries) @ visual.T  # (queries, items)
    order = np.argsort(-scores, axis=1, kind="stable")
    ranked: list[tuple[str, list[Strip]]] = []
    for row, query in enumerate(queries):
        best = [int(index) for index in order[row, :top]]
        strips = [
            Strip(
                video=visuals.ids[index],
                score=float(scores[row, index]),
                frames=visuals.batch([index]).frames[0].numpy() if isinstance(visuals, Videos) else np.empty((0, 0)),
                right=expected is not None and visuals.ids[index] == expected[row],
            )
            for index in best
        ]
        ranked.append((query, strips))
    ranks = None
    if expected is not None:
        relevant = [visuals.ids.index(item) for item in expected]
        ranks = [1 + int(np.flatnonzero(order[row] == index)[0]) for row, index in enumerate(relevant)]
    kind = "images" if isinstance(visuals, Images) else "videos"
    say(ranked_table(ranked, ranks, f"{len(visuals)} {kind} of {config.data.collection} {split}"))
    if picture is not None:
        draw_strips(picture, ranked)
        say(f"written: {picture}")
