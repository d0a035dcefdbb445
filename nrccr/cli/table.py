"""`nrccr table`: finished runs in the papers' tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def table(
    runs: Annotated[
        list[Path] | None, typer.Option(help="Folder to look for finished runs in; repeat it for more. Default: runs.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for tables.md and tables.tex.")] = None,
    docs: Annotated[Path | None, typer.Option(help="Markdown file in which to replace the papers' tables.")] = None,
) -> None:
    """Put finished runs into the papers' tables: published figures beside ours, mean and deviation over seeds."""
    from nrccr.report.tables import make_tables, to_rich, update_docs, write_tables
    from nrccr.terminal import say

    default = Path("runs")
    folders = runs if runs is not None else [default] if default.is_dir() else []
    papers, others = make_tables(folders)
    for made in (*papers, *others):
        say(to_rich(made))
    if out is not None:
        write_tables(out, [*papers, *others])
        say(f"written: {out}/tables.md, tables.tex")
    if docs is not None:
        update_docs(docs, papers)
        say(f"written: {docs}")
