"""Foreign words in Markdown: a name from a stranger's run stays a name, whatever letters it has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from nrccr.errors import printable

LONGEST = 300  # characters of a name
_PLAIN = re.compile(r"[\w ./:=+,@%()-]+")
_KEPT = re.compile(r"[^\W_]|[ ,.]")
_DEVICE = re.compile(r"(?i)[a-z]:[\\/]")


def on_one_line(text: str, longest: int = LONGEST) -> str:
    """A text without line ends, without what a terminal or a page obeys, and not too long."""
    line = " ".join(printable(text).split())
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


def literal(text: object) -> str:
    """A value of a configuration as code, or, where it has letters that Markdown or HTML reads, each as an entity."""
    line = on_one_line(str(text))
    if _PLAIN.fullmatch(line):
        return f"`{line}`"
    return "".join(letter if _KEPT.fullmatch(letter) else f"&#{ord(letter)};" for letter in line)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def without_folders(text: str) -> str:
    """An argument or value without the folders of the machine that it was typed on: `--out=/a/b` is `--out=b`.

    A relative path stays as it is.
    """
    option, equals, value = text.rpartition("=")
    if not value.startswith(("/", "~", "\\\\")) and not _DEVICE.match(value):
        return text
    parts = [part for part in re.split(r"[\\/]", value) if part not in ("", "~")]
    return f"{option}{equals}{parts[-1] if parts else 'folder'}"
