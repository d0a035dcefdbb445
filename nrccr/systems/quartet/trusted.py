"""How much a run trusts its translations: the file `trust.tsv` of its folder, the least trusted first."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from nrccr.data.captions import CaptionKey
from nrccr.errors import UserError, first_line
from nrccr.files import write_text
from nrccr.sizes import regular_bytes

HEADER = "trust\tcaption\tlanguage\ttranslation"


class Trusted(NamedTuple):
    """A line of the file.

    Attributes:
        trust: the moving average of the pair's probability, 0..1.
        caption: id of the caption in the source language.
        language: of the translation.
        translation: its text, in one line.
    """

    trust: float
    caption: str
    language: str
    translation: str

    @property
    def key(self) -> CaptionKey:
        """Item and number of the caption, which it has in every language."""
        item, _, number = self.caption.rsplit("#", 2)
        return item, number


def write_trusted(path: Path, rows: Iterable[Trusted]) -> None:
    """Write the file whole or not at all; rows of the same trust stay in their order."""
    told = (
        f"{row.trust:.6f}\t{row.caption}\t{row.language}\t{' '.join(row.translation.split())}\n"
        for row in sorted(rows, key=lambda row: row.trust)
    )
    write_text(path, f"{HEADER}\n{''.join(told)}")


def read_trusted(path: Path) -> list[Trusted]:
    """Every translation with its trust, in the file's order.

    Raises:
        UserError: the file is missing, or damaged.
    """
    advice = "copy it again from the trained run, or delete it"
    try:
        header, *lines = regular_bytes(path).decode("utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)}); {advice}") from error
    if header != HEADER:
        raise UserError(f"{path}:1: the header is not {', '.join(HEADER.split())}, with tabs between; {advice}")
    found = []
    for number, line in enumerate(lines, start=2):
        try:
            trust, caption, language, translation = line.split("\t")
            if not 0 <= float(trust) <= 1 or caption.count("#") < 2:
                raise ValueError
        except ValueError:
            raise UserError(
                f"{path}:{number}: not a trust of 0 to 1, a caption's id, a language and a text; {advice}"
            ) from None
        found.append(Trusted(float(trust), caption, language, translation))
    return found
