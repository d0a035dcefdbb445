"""Arguments and options of several commands, and how their text is read."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from nrccr.config.names import complete_config, find_config
from nrccr.errors import UserError, is_unicode

Root = Annotated[Path, typer.Option(help="Folder that holds the collections, often named VisualSearch.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; default: the first GPU, or else the CPU.")]
Devices = Annotated[
    str | None,
    typer.Option("--device", help="cpu, cuda, cuda:1, or several as 0,1,2,3; default: the first GPU, or else the CPU."),
]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Configuration overrides.")]
SplitOption = Annotated[str, typer.Option(help="test or val.")]
ConfigFile = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG",
        help="YAML file, or the name of a packaged configuration such as nrccr/vatex.",
        callback=find_config,
        autocompletion=complete_config,
    ),
]


def as_utf8(typed: str) -> str:
    """Text of the command line as UTF-8, also in a locale of ASCII alone; other bytes stay as Python has them."""
    return typed if is_unicode(typed) else os.fsencode(typed).decode("utf-8", "surrogateescape")


def typed_queries(typed: list[str]) -> list[str]:
    """Queries of the command line as text.

    Raises:
        UserError: one in bytes that are no UTF-8.
    """
    queries = [as_utf8(query) for query in typed]
    unreadable = next((query for query in queries if not is_unicode(query)), None)
    if unreadable is not None:
        raise UserError(f"query {unreadable!r} is no UTF-8; type it where letters are UTF-8, as in most terminals")
    return queries


def split_of(name: str) -> Literal["val", "test"]:
    """The split that `--split` names."""
    if name not in ("test", "val"):
        raise UserError(f"--split {name}: give test or val")
    return "test" if name == "test" else "val"


def integers(option: str, text: str) -> list[int]:
    """Numbers written with commas between them."""
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch("[0-9]{1,18}", part) for part in parts):  # int() would take 1_0 for ten
        raise UserError(f"{option} {text}: give whole numbers with commas between them, in plain digits")
    return [int(part) for part in parts]
