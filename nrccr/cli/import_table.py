"""`nrccr import`: a table of captions becomes a collection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nrccr.cli.options import integers
from nrccr.errors import UserError


def import_table(
    table: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE",
            help="CSV, TSV, JSONL or parquet with the columns item, language, text and, if known, split, kind "
            "(human or translated), translator.",
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make; name and place of the collection.")],
    source: Annotated[str, typer.Option(help="Language of the training captions that people wrote.")] = "en",
    name: Annotated[str | None, typer.Option(help="Name of the collection; default: that of the folder.")] = None,
    images: Annotated[bool, typer.Option("--images", help="The items are images, not videos.")] = False,
    splits: Annotated[
        str, typer.Option(help="Percent of the items in training, validation, test, where the table has no split.")
    ] = "80,10,10",
    seed: Annotated[int, typer.Option(help="Of the draw of splits.")] = 0,
    translator: Annotated[str, typer.Option(help="Of translations whose rows do not name theirs.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the captions of a collection.")] = False,
) -> None:
    """Turn a table of captions into a collection of own data; it appears whole or not at all."""
    from nrccr.data.importing import Recipe, import_table
    from nrccr.data.own import Own, require_word
    from nrccr.terminal import say

    shares = integers("--splits", splits)
    if len(shares) != 3 or min(shares) < 0 or sum(shares) != 100:
        raise UserError(f"--splits {splits}: give three numbers of percent that add up to 100, such as 80,10,10")
    if translator:
        require_word("--translator", translator, "translator")
    own = Own(name or out.resolve().name, images, source)
    recipe = Recipe(own, (shares[0], shares[1], shares[2]), seed, translator)
    done = import_table(table, out, recipe, overwrite=overwrite)
    if done.ignored:
        say(f"note: columns that are not read: {', '.join(done.ignored)}")
    for file, count in done.captions.items():
        by = f", translated by {file.translator}" if file.translator else ""
        say(f"{file.split}: {count:,} captions in {' to '.join(file.route)}{by}")
    say(f"splits: {done.own.splits}")
    say(f"{out}: {sum(done.items.values()):,} items; `nrccr check nrccr/own` says what training still needs")
