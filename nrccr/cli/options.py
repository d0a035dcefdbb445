"""Arguments and options of several commands, and how their text is read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from nrccr.config.names import complete_config, find_config
from nrccr.errors import UserError

Root = Annotated[Path, typer.Option(help="Folder that holds the collections, often named VisualSearch.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; default: the first GPU, or else the CPU.")]
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


def split_of(name: str) -> Literal["val", "test"]:
    """The split that `--split` names."""
    if name not in ("test", "val"):
        raise UserError(f"--split {name}: give test or val")
    return "test" if name == "test" else "val"


def typed(queries: list[str]) -> list[str]:
    """Queries as they were typed: in UTF-8, also where the locale knows nothing beyond ASCII."""
    found = []
    for number, query in enumerate(queries, 1):
        try:
            found.append(os.fsencode(query).decode() if _is_undecoded(query) else query)
        except UnicodeDecodeError:
            raise UserError(f"query {number}, {query}: not in UTF-8; set the terminal to it") from None
    return found


def _is_undecoded(text: str) -> bool:
    """Whether Python kept bytes of the command line that its locale does not know."""
    return any("\udc80" <= letter <= "\udcff" for letter in text)


def integers(option: str, text: str) -> list[int]:
    """Numbers written with commas between them."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{option} {text}: give whole numbers with commas between them") from None
