"""A table of captions -> a collection of own data, the reverse of `nrccr.data.exporting`."""

from __future__ import annotations

import os
import random
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nrccr.data.captions import caption_line, is_blank, write_captions
from nrccr.data.escapes import escaped
from nrccr.data.layouts import SPLITS, SplitName
from nrccr.data.own import (
    DESCRIPTION,
    CaptionFile,
    Own,
    require_language,
    require_name,
    require_own,
    require_word,
    usual_route,
)
from nrccr.data.tables import Row, Table, read_table
from nrccr.errors import UserError
from nrccr.files import atomic_folder, write_text

LONGEST_ITEM = 200  # bytes; files are named after items
HUMAN, TRANSLATED = "human", "translated"
Key = tuple[str, CaptionFile]  # an item in a caption file


@dataclass(frozen=True)
class Recipe:
    """How a table becomes a collection.

    Attributes:
        own: what its `collection.yaml` says.
        shares: percent of the items in training, validation and test, where the table has no splits.
        seed: of the draw of splits.
        translator: whose the translations are, where the table does not say it.
    """

    own: Own
    shares: tuple[int, int, int] = (80, 10, 10)
    seed: int = 0
    translator: str = ""


@dataclass(frozen=True)
class Imported:
    """What was written.

    Attributes:
        own: what `collection.yaml` says.
        captions: how many each caption file has, by split.
        items: how many each split has.
        ignored: columns of the table that were not read.
    """

    own: Own
    captions: Mapping[CaptionFile, int]
    items: Mapping[SplitName, int]
    ignored: Sequence[str]


def import_table(path: Path, out: Path, recipe: Recipe, *, overwrite: bool = False) -> Imported:
    """Write a collection; it appears whole or not at all.

    Args:
        path: of the table, see nrccr.data.tables.
        out: the folder to make.
        recipe: how.
        overwrite: replace the captions of a collection of own data; what else is in its folder stays.

    Raises:
        UserError: `out` exists, or a row of the table is wrong.
    """
    require_name("the collection's name", recipe.own.name)
    require_language("the source language", recipe.own.source)
    if out.exists() and not overwrite:
        raise UserError(f"{out}: exists already; choose another folder, or replace its captions with --overwrite")
    if out.exists():
        require_own(out)
    table = read_table(path)
    if recipe.own.images:
        table.rows = [replace(row, item=row.item.removesuffix(".jpg")) for row in table.rows]
    _check_rows(table, recipe)
    splits, statement = _splits(table, recipe)
    own = replace(recipe.own, escapes=True, splits=statement)
    files = _files(table, splits, recipe)
    numbers = _numbers(table, files)
    captions: dict[CaptionFile, list[str]] = {}
    for row, file, number in zip(table.rows, files, numbers, strict=True):
        line = caption_line(row.item, file.tag(own.source), number, escaped(row.text))
        captions.setdefault(file, []).append(line)
    with atomic_folder(out) as temporary:
        if out.exists():
            _keep_others(out, temporary)
        for file, lines in captions.items():
            write_captions(temporary / "TextData" / file.name(own), lines)
        write_text(temporary / DESCRIPTION, own.text())
    items = Counter(splits.values())
    return Imported(
        own,
        {
            file: len(captions[file])
            for file in sorted(captions, key=lambda file: (SPLITS.index(file.split), file.name(own)))
        },
        {split: items[split] for split in SPLITS},
        table.ignored,
    )


def _keep_others(folder: Path, temporary: Path) -> None:
    """Everything but the captions, as links to the same files: features may be large, and took hours."""
    for path in folder.iterdir():
        if path.name in (DESCRIPTION, "TextData"):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, temporary / path.name, symlinks=True, copy_function=_link)
        else:
            _link(path, temporary / path.name)


def _link(source: str | Path, place: str | Path) -> None:
    try:
        os.link(source, place, follow_symlinks=False)
    except OSError:  # a file system without links
        shutil.copy2(source, place, follow_symlinks=False)


def _check_rows(table: Table, recipe: Recipe) -> None:
    """Refuse rows that a collection cannot hold."""
    shown: dict[str, str] = {}  # items by what they look like
    languages: set[str] = set()
    for row in table.rows:
        place = table.place(row.line)
        if row.item not in shown:
            _check_item(place, row.item)
        look = unicodedata.normalize("NFC", row.item)
        other = shown.setdefault(look, row.item)
        if other != row.item:
            raise UserError(
                f"{place}: item {ascii(row.item)} looks like {ascii(other)} of an earlier row; write both alike"
            )
        if row.language not in languages:
            require_language(place, row.language)
            languages.add(row.language)
        if is_blank(row.text):
            raise UserError(f"{place}: item {row.item!r} has no text; add it or remove the row")
        if row.split and row.split not in SPLITS:
            raise UserError(
                f"{place}: split {row.split!r} is unknown; choose one of {', '.join(SPLITS)}, or leave it empty"
            )
        if row.kind not in ("", HUMAN, TRANSLATED):
            raise UserError(f"{place}: kind {row.kind!r} is unknown; choose {HUMAN} or {TRANSLATED}")
        if row.kind == HUMAN and (row.translator or row.route):
            raise UserError(f"{place}: kind is {HUMAN}, but there is a translator or route; set it to {TRANSLATED}")
        if row.translator:
            require_word(place, row.translator, "translator")
        elif _is_translated(row) and not recipe.translator:
            raise UserError(f"{place}: a translation without translator; add it, or give --translator NAME for all")
        if bool(row.number) != ("number" in table.columns) or (row.number and not row.number.isdecimal()):
            raise UserError(
                f"{place}: number {row.number!r}: give each row its caption's number, or leave the column out"
            )


def _is_translated(row: Row) -> bool:
    return row.kind == TRANSLATED or bool(row.translator or row.route)


def _check_item(place: str, item: str) -> None:
    """Refuse an item that cannot name a file and stand before white space."""
    if not item:
        raise UserError(f"{place}: no item; add the name of the video or image")
    bad = [
        letter for letter in item if letter.isspace() or letter in "/\\" or unicodedata.category(letter) in ("Cc", "Cf")
    ]
    if bad or item in (".", "..") or len(item.encode()) > LONGEST_ITEM:
        rule = f"no white space, '/', '\\' or invisible characters, at most {LONGEST_ITEM} bytes"
        raise UserError(f"{place}: item {item!r} cannot name a video or image ({rule}); rename it here and on disk")


def _splits(table: Table, recipe: Recipe) -> tuple[dict[str, SplitName], str]:
    """The split of each item, and a statement of where it comes from."""
    found: dict[str, SplitName] = {}
    for row in table.rows:
        split = next((split for split in SPLITS if split == row.split), None)
        if split is not None and found.setdefault(row.item, split) != split:
            where = f"{split} here and {found[row.item]} in an earlier row"
            raise UserError(f"{table.place(row.line)}: item {row.item!r} is in {where}; an item has one split")
    without = sorted({row.item for row in table.rows} - found.keys())
    if not without:
        return found, "from the table"
    random.Random(recipe.seed).shuffle(without)
    sizes = _sizes(len(without), recipe.shares)
    drawn = [split for split, size in zip(SPLITS, sizes, strict=True) for _ in range(size)]
    statement = ", ".join(f"{size} {split}" for split, size in zip(SPLITS, sizes, strict=True))
    rest = " of items that have none in the table" if found else ""
    return found | dict(zip(without, drawn, strict=True)), f"drawn by item{rest}, seed {recipe.seed}: {statement}"


def _sizes(count: int, shares: tuple[int, int, int]) -> tuple[int, int, int]:
    """How many items each split gets: at least one where its share is above 0, training the rest."""
    val, test = (max(round(count * share / 100), int(share > 0)) for share in shares[1:])
    if count < val + test + int(shares[0] > 0):
        raise UserError(f"{count} items without a split are too few to draw splits from; add the column split")
    return (count - val - test, val, test) if shares[0] else (0, val, count - val)


def _files(table: Table, splits: Mapping[str, SplitName], recipe: Recipe) -> list[CaptionFile]:
    """The caption file of each row."""
    source = recipe.own.source
    others = list(dict.fromkeys(row.language for row in table.rows if row.language != source))
    sources = {splits[row.item]: True for row in table.rows if row.language == source and not _is_translated(row)}
    return [
        _file(
            table, row, splits[row.item], recipe, usual_route(splits[row.item], row.language, source, others, sources)
        )
        for row in table.rows
    ]


def _file(table: Table, row: Row, split: SplitName, recipe: Recipe, usual: tuple[str, ...] | None) -> CaptionFile:
    if not _is_translated(row):
        return CaptionFile(split, (row.language,))
    place = table.place(row.line)
    route = tuple(row.route.split("2")) if row.route else usual
    if route is None:
        example = f"zh2{row.language}"
        raise UserError(
            f"{place}: a translation into {row.language}, and it is not clear from which language; add a column route, "
            f"such as {example}"
        )
    for language in route:
        require_language(place, language)
    if len(route) < 2 or route[-1] != row.language or any(a == b for a, b in zip(route, route[1:], strict=False)):
        raise UserError(
            f"{place}: route {row.route!r}: give the languages up to the row's own, such as en2{row.language}"
        )
    return CaptionFile(split, route, row.translator or recipe.translator)


def _numbers(table: Table, files: Sequence[CaptionFile]) -> list[str]:
    """The number of each row's caption: its translations have the same."""
    keys: list[Key] = [(row.item, file) for row, file in zip(table.rows, files, strict=True)]
    if "number" in table.columns:
        seen: dict[tuple[Key, str], int] = {}
        for row, key in zip(table.rows, keys, strict=True):
            earlier = seen.setdefault((key, row.number), row.line)
            if earlier != row.line:
                what = f"number {row.number} of item {row.item!r} is that of row {earlier}, too"
                raise UserError(f"{table.place(row.line)}: {what}; give each caption its own")
        return [row.number for row in table.rows]
    uneven = uneven_translation(keys)
    if uneven is not None:
        (item, file), there, original = uneven
        row = next(row for row, key in zip(table.rows, keys, strict=True) if key == uneven[0])
        raise UserError(
            f"{table.place(row.line)}: item {item!r} has {there} translations along {'2'.join(file.route)} "
            f"of {original} captions; add a column number that says which belong together"
        )
    return in_order(keys)


def in_order(keys: Iterable[Key]) -> list[str]:
    """Numbers of captions from 0 on, for each item and file."""
    counts: Counter[Key] = Counter()
    numbers: list[str] = []
    for key in keys:
        numbers.append(str(counts[key]))
        counts[key] += 1
    return numbers


def uneven_translation(keys: Iterable[Key]) -> tuple[Key, int, int] | None:
    """An item with another number of translations in a file than of captions that they are of, and both numbers."""
    counts = Counter(keys)
    for (item, file), count in counts.items():
        if len(file.route) == 1:
            continue
        before = file.route[:-1]
        original = CaptionFile(file.split, before, file.translator if len(before) > 1 else "")
        known = counts.get((item, original), count)
        if known != count:
            return (item, file), count, known
    return None
