"""`nrccr search`: the items of an index for typed queries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nrccr.cli.options import Device, typed_queries
from nrccr.errors import UserError

IndexFolder = Annotated[Path, typer.Argument(metavar="INDEX", help="What `nrccr index` made.")]
Run = Annotated[Path | None, typer.Option(help="The model, where it was moved since.")]
English = Annotated[bool, typer.Option("--english", help="The query is English and cleaned as such.")]
TranslatorModel = Annotated[
    str | None,
    typer.Option(
        "--translator", help="Marian, NLLB or M2M100 model, a folder or hub name: mix queries with translations by it."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def search(
    index: IndexFolder,
    queries: Annotated[list[str], typer.Argument(metavar="QUERY...")],
    top: Annotated[int, typer.Option(min=1, max=1000, help="How many items for each query.")] = 10,
    effort: Annotated[
        int | None, typer.Option(min=1, max=100_000, help="ivfpq: lists looked into; hnsw: candidates.")
    ] = None,
    english: English = False,
    translator: TranslatorModel = None,
    json: Json = False,
    run: Run = None,
    device: Device = None,
) -> None:
    """Find the videos or images of an index for queries in any language of its model."""
    queries = typed_queries(queries)
    require_translatable(translator, english)
    import json as plain
    from dataclasses import asdict

    from rich.table import Table

    from nrccr.search.query import Searcher
    from nrccr.terminal import say

    searcher = Searcher.open(index, run, device, translator)
    found = [(query, searcher.search(query, top, english, effort)) for query in queries]
    if json:
        say(plain.dumps([{"query": query, **asdict(one)} for query, one in found], indent=2))
        return
    for query, one in found:
        table = Table("rank", "item", "score", title=titled(query, one.translation))
        for place, result in enumerate(one.results, 1):
            table.add_row(str(place), result.item, f"{result.score:.3f}")
        say(table)


def require_translatable(translator: str | None, english: bool) -> None:
    """Make sure that there is something to translate.

    Raises:
        UserError: the queries are English.
    """
    if translator is not None and english:
        raise UserError(f"--translator {translator}: English queries are not translated; leave it or --english out")


def titled(query: str, translation: str | None) -> str:
    """The title of what a query found."""
    return query if translation is None else f"{query} ({translation})"
