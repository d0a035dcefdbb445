"""The folder of a report: its page, and each part's SVG, PNG and CSV beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nrccr.errors import UserError, not_written
from nrccr.files import atomic_folder, write_text
from nrccr.report.page import Drawn, Group, Report, draw, render

PAGE = "report.html"
_NAME = re.compile("[a-z0-9-]+")
_OURS = re.compile(rf"{re.escape(PAGE)}|[a-z0-9-]+\.(svg|png|csv)")


@dataclass(frozen=True)
class Written:
    """What became of a report.

    Attributes:
        page: its file.
        missing: characters in figures that no installed font has.
    """

    page: Path
    missing: str = field(default="")


def require_replaceable(folder: Path) -> None:
    """Make sure that a folder, or the one that a link leads to, may be replaced: it is new, empty, or a report alone.

    Raises:
        UserError: it holds something else.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder}: exists and is no folder of a report; give another --out")
    names = sorted(path.name for path in folder.iterdir())
    other = [name for name in names if not _OURS.fullmatch(name)]
    if other or (names and PAGE not in names):
        holds = f"holds {other[0]}" if other else f"has no {PAGE}"
        raise UserError(f"{folder}: exists and is no report ({holds}); give another --out")


def write_report(folder: Path, title: str, lead: str, groups: Sequence[Group], notes: Sequence[str] = ()) -> Written:
    """Draw all parts and write page, SVG, PNG and CSV, all of them or none; an earlier report there is replaced.

    Args:
        folder: what to write.
        title: of the page.
        lead: a sentence under it.
        groups: the parts.
        notes: what a reader has to know first; characters without a font are added.

    Raises:
        UserError: the folder holds something else than a report, or cannot be written.
        ValueError: two parts of one name, or a name that is none for a file.
    """
    require_replaceable(folder)
    parts = [part for group in groups for part in group.parts]
    names = [part.name for part in parts]
    if len(set(names)) < len(names) or not all(map(_NAME.fullmatch, names)):
        raise ValueError(f"parts need names of their own, of a-z, 0-9 and hyphens: {names}")
    drawn: dict[str, Drawn] = {}
    for part in parts:
        made = draw(part)
        if made is not None:
            drawn[part.name] = made
    missing = "".join(sorted({character for made in drawn.values() for character in made.missing}))
    said = [*notes, *([missing_fonts(missing)] if missing else [])]
    html = render(Report(title, lead, groups, drawn, said))
    try:
        with atomic_folder(folder) as temporary:
            for part in parts:
                if (made := drawn.get(part.name)) is not None:
                    (temporary / f"{part.name}.svg").write_bytes(made.svg)
                    (temporary / f"{part.name}.png").write_bytes(made.png)
                if part.rows:
                    write_text(temporary / f"{part.name}.csv", part.csv())
            write_text(temporary / PAGE, html)
            require_replaceable(folder)  # what came there meanwhile
    except OSError as error:
        raise not_written(folder, error, "give another --out") from error
    return Written(folder / PAGE, missing)


def missing_fonts(characters: str) -> str:
    """One line about characters that figures show as boxes, and what to install."""
    shown = characters if len(characters) <= 10 else f"{characters[:10]} and {len(characters) - 10} others"
    return (
        f"No installed font has {shown}: figures show boxes there. Install one, for Chinese, Japanese and Korean "
        "Debian's fonts-noto-cjk (or fonts-wqy-microhei), for other scripts fonts-noto-core, and report again."
    )
