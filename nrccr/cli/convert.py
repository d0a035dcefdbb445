"""`nrccr convert`: published data to our layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nrccr.errors import UserError


def convert(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="c2kd: C2KD's published data pickles.")],
    pickles: Annotated[
        list[Path], typer.Argument(metavar="PICKLE", help="One or two: train and test, recognised by their names.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of collections; `multi_<NAME>` is made in it.")],
    name: Annotated[
        str | None, typer.Option(help="msrvtt, vatex, youcook2 or rudder, if the file names do not show it.")
    ] = None,
    feature: Annotated[
        str | None, typer.Option(help="Key of the features in the pickle, where it has several.")
    ] = None,
    fill_missing: Annotated[
        bool, typer.Option("--fill-missing", help="Fill missing languages with English, as the published loader does.")
    ] = False,
) -> None:
    """Convert published data to our layout: frame features and one caption file a language."""
    from nrccr.systems.table import SYSTEMS, has_part, part_of

    known = [system for system in SYSTEMS if has_part(system, "convert")]
    if kind not in known:
        raise UserError(f"convert {kind}: give {' or '.join(known)}")

    from nrccr.report.screen import converted_table
    from nrccr.terminal import say

    converted = part_of(kind, "convert").convert(pickles, out, name, feature=feature, fill_missing=fill_missing)
    say(converted_table(converted))
    for remark in converted.remarks:
        say(f"note: {remark}")
