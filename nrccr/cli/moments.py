"""`nrccr moments`: the clips of one video, ranked over time."""

from __future__ import annotations

from typing import Annotated

import typer

from nrccr.cli.options import Device, as_utf8, typed_queries
from nrccr.cli.search import English, IndexFolder, Json, Run, TranslatorModel, require_translatable, titled


def moments(
    index: IndexFolder,
    video: Annotated[str, typer.Argument(metavar="VIDEO", help="An item of the index.")],
    query: Annotated[str, typer.Argument(metavar="QUERY")],
    window: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds of a clip.")] = 4.0,
    top: Annotated[int, typer.Option(min=1, max=100, help="How many clips, none of which overlap.")] = 5,
    english: English = False,
    translator: TranslatorModel = None,
    json: Json = False,
    run: Run = None,
    device: Device = None,
) -> None:
    """Find the moments of a video that a query means."""
    video, query = as_utf8(video), typed_queries([query])[0]
    require_translatable(translator, english)
    import json as plain
    from dataclasses import asdict

    from rich.table import Table

    from nrccr.search.moments import find_moments
    from nrccr.search.query import Searcher
    from nrccr.terminal import say

    searcher = Searcher.open(index, run, device, translator)
    found = find_moments(searcher, video, query, window=window, top=top, english=english)
    if json:
        say(plain.dumps({"video": video, "query": query, **asdict(found)}, indent=2))
        return
    table = Table("rank", "from s", "to s", "score", title=titled(f"{video}: {query}", found.translation))
    for place, clip in enumerate(found.best, 1):
        table.add_row(str(place), f"{clip.start:.1f}", f"{clip.end:.1f}", f"{clip.score:.3f}")
    say(table)
