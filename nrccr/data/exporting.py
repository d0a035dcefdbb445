"""A collection of own data -> a table of captions, the reverse of `nrccr.data.importing`."""

from __future__ import annotations

from pathlib import Path

from nrccr.data.captions import read_captions
from nrccr.data.importing import HUMAN, TRANSLATED, Key, in_order, uneven_translation
from nrccr.data.own import caption_files, read_own, usual_route
from nrccr.data.tables import COLUMNS, ending_of, write_table
from nrccr.errors import UserError


def export_table(folder: Path, path: Path, *, overwrite: bool = False) -> int:
    """Write every caption of a collection into a table; a column that importing works out by itself is left out.

    Args:
        folder: of a collection of own data.
        path: of the table, see nrccr.data.tables.
        overwrite: replace a table.

    Returns:
        how many captions.

    Raises:
        UserError: no such collection, a damaged caption file, or the table exists.
    """
    ending_of(path)
    own = read_own(folder)
    if path.exists() and not overwrite:
        raise UserError(f"{path}: exists already; choose another name, or replace it with --overwrite")
    files = caption_files(folder, own)
    if not files:
        raise UserError(f"{folder / 'TextData'}: no caption files of {own.name}; import the table again")
    rows: list[list[str]] = []
    keys: list[Key] = []
    numbers: list[str] = []
    for place, file in files.items():
        captions = read_captions(place, exact=True)
        kind = TRANSLATED if file.translator else HUMAN
        shared = (file.split, kind, file.translator)
        rows += [
            [item, file.route[-1], text, *shared] for item, text in zip(captions.items, captions.texts, strict=True)
        ]
        keys += [(item, file) for item in captions.items]
        numbers += captions.numbers
    others = sorted({file.route[-1] for file in files.values()} - {own.source})
    sources = {file.split: True for file in files.values() if file.route == (own.source,)}
    routes_differ = any(
        file.translator and file.route != usual_route(file.split, file.route[-1], own.source, others, sources)
        for file in files.values()
    )
    columns = list(COLUMNS)
    if routes_differ:
        columns.append("route")
        for row, (_, file) in zip(rows, keys, strict=True):
            row.append("2".join(file.route) if file.translator else "")
    if numbers != in_order(keys) or uneven_translation(keys) is not None:
        columns.append("number")
        for row, number in zip(rows, numbers, strict=True):
            row.append(number)
    write_table(path, columns, rows)
    return len(rows)
