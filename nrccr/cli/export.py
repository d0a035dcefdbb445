"""`nrccr export`: a collection of own data becomes a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    collection: Annotated[Path, typer.Argument(metavar="COLLECTION", help="Folder that `nrccr import` made.")],
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="CSV, TSV, JSONL or parquet, by its ending.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the table.")] = False,
) -> None:
    """Write every caption of a collection, translations too, into a table; the reverse of `nrccr import`."""
    from nrccr.data.exporting import export_table
    from nrccr.terminal import say

    count = export_table(collection, table, overwrite=overwrite)
    say(f"{table}: {count:,} captions")
