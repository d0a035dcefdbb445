"""`nrccr report`: finished runs as figures and tables on one page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nrccr.cli.options import Device, Root
from nrccr.errors import UserError, printable

if TYPE_CHECKING:
    from nrccr.report.finished import ReportRun
    from nrccr.report.part import Part

    Maker = Callable[[Sequence[ReportRun]], list[Part]]

# What --parts takes, in the order of the page, with the headings there.
PARTS = {
    "card": "Runs and results",
    "curves": "Training",
    "attention": "What the teacher looks at",
    "length": "Length of the query",
    "noise": "Translation noise",
    "alignment": "The joint space",
    "retrieved": "Retrieved items",
    "hubs": "Hubs, languages and weights",
    "distrust": "Distrusted translations",
}


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Finished runs, the one to compare with first.")],
    root: Root,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; default: <RUN>/report, of several runs runs/report.")
    ] = None,
    parts: Annotated[
        str | None, typer.Option(help=f"Which parts, with commas between; default: all of {','.join(PARTS)}.")
    ] = None,
    pair: Annotated[
        list[str] | None,
        typer.Option(help="Id of a training caption whose attention is shown, may be repeated; default: the worst."),
    ] = None,
    device: Device = None,
) -> None:
    """Show finished runs on one page, report.html, with SVG, PNG and CSV of every part beside it."""
    names = parts.split(",") if parts is not None else list(PARTS)
    if pair and "attention" not in names:
        raise UserError(f"--pair: part attention, which shows it, is not among --parts {parts}; add it")
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise UserError(f"--parts {unknown[0]}: no such part; choose from {', '.join(PARTS)}")

    from nrccr.files import refuse_links
    from nrccr.report.charts import drawing
    from nrccr.report.finished import read
    from nrccr.report.folder import missing_fonts, require_replaceable, write_report
    from nrccr.report.page import Group
    from nrccr.terminal import say

    folder = out if out is not None else runs[0] / "report" if len(runs) == 1 else Path("runs", "report")
    found = read(runs, root, device)
    if out is None and len(runs) == 1:
        refuse_links(runs[0], ["report"])  # the run may be a stranger's
    require_replaceable(folder)  # before anything is computed
    makers = _makers(pair or [])
    with drawing():
        made = {name: makers[name](found) for name in PARTS if name in names}
    groups = [Group(name, PARTS[name], own) for name, own in made.items() if own]
    if not groups:
        raise UserError(f"--parts {','.join(names)}: these runs have nothing to show there; leave it out")
    empty = [PARTS[name].lower() for name, own in made.items() if not own]
    notes = [f"Nothing to show of these runs: {', '.join(empty)}."] if empty else []
    written = write_report(folder, "Report: " + ", ".join(run.label for run in found), _lead(found), groups, notes)
    if written.missing:
        typer.echo(f"nrccr: {printable(missing_fonts(written.missing))}", err=True)
    say(f"written: {written.page}")


def _makers(pairs: Sequence[str]) -> dict[str, Maker]:
    """What makes each part; the libraries for it are heavy."""
    from nrccr.report import alignment, attention, bylength, bynoise, card, curves, distrust, hubs, retrieved

    return {
        "card": card.parts,
        "curves": curves.parts,
        "attention": partial(attention.parts, pairs=pairs),
        "length": bylength.parts,
        "noise": bynoise.parts,
        "alignment": alignment.parts,
        "retrieved": retrieved.parts,
        "hubs": hubs.parts,
        "distrust": distrust.parts,
    }


def _lead(runs: Sequence[ReportRun]) -> str:
    """What was trained, on what."""
    kinds = dict.fromkeys(
        f"{run.config.model} on {run.config.data.collection}, queries in {run.config.query_language}" for run in runs
    )
    count = f"{len(runs)} finished run{'s' if len(runs) > 1 else ''}"
    return f"{count}: {'; '.join(kinds)}. A run has the same colour, dashes and marker in all figures."
