"""`nrccr search`: the items of an index for typed queries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nrccr.cli.options import Device

IndexFolder = Annotated[Path, typer.Argument(metavar="INDEX", help="What `nrccr index` made.")]
Run = Annotated[Path | None, typer.Option(help="The model, where it was moved since.")]
English = Annotated[bool, typer.Option("--english", help="The query is English and cleaned as such.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def search(
    index: IndexFolder,
    queries: Annotated[list[str], typer.Argument(metavar="QUERY...")],
    top: Annotated[int, typer.Option(min=1, max=1000, help="How many items for each query.")] = 10,
    effort: Annotated[
        int | None, typer.Option(min=1, max=100_000, help="ivfpq: lists looked into; hnsw: candidates.")
    ] = None,
    english: English = False,
    json: Json = False,
    run: Run = None,
    device: Device = None,
) -> None:
    """Find the videos or images of an index for queries in any language of its model."""
    import json as plain
    from dataclasses import asdict

    from rich.table import Table

    from nrccr.search.query import Searcher
    from nrccr.terminal import say

    searcher = Searcher(index, run, device)
    found = [(query, searcher.search(query, top, english, effort)) for query in queries]
    if json:
        rows = [{"query": query, "results": [asdict(result) for result in results]} for query, results in found]
        say(plain.dumps(rows, indent=2))
        return
    for query, results in found:
        table = Table("rank", "item", "score", title=query)
        for place, result in enumerate(results, 1):
            table.add_row(str(place), result.item, f"{result.score:.3f}")
        say(table)
