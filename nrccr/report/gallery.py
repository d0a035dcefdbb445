"""A picture of ranked lists: queries in words, and below each the items that every run ranks first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rich.console import Console
from rich.text import Text

from nrccr.errors import printable
from nrccr.report.charts import COLOURS
from nrccr.report.media import Picture

# Inches.
WIDTH, LABEL, GAP = 10.0, 1.25, 0.12
LINE, HEAD_LINE = 0.155, 0.2
PICTURE, TEXT_LINES = (0.3, 1.25), 4  # least and greatest height of a picture; lines of an item that has none
RIGHT, OTHER = COLOURS[2], "#9A9A9A"
RIGHT_WORD = "✓ right"


@dataclass(frozen=True)
class Cell:
    """One item of a ranked list.

    Attributes:
        place: its rank, from 1.
        item: its id.
        right: whether it is the one that the query means.
        picture: how it looks; none where there is no picture.
        captions: what it shows, in words.
        note: below its name, such as its score.
        score: for the numbers behind the picture.
    """

    place: int
    item: str
    right: bool
    picture: Picture | None = None
    captions: Sequence[str] = ()
    note: str = ""
    score: float | None = None


@dataclass(frozen=True)
class Row:
    """The items that one run ranks first; label and note stand before them."""

    label: str
    cells: Sequence[Cell]
    note: str = ""


@dataclass(frozen=True)
class Group:
    """A query in words, the first line largest, and a row for each run."""

    words: Sequence[str]
    rows: Sequence[Row] = field(default_factory=list)


def draw_gallery(groups: Sequence[Group], columns: int) -> Figure:
    """All queries below one another; the right item is framed and marked by a word."""
    width = (WIDTH - LABEL) / columns - GAP
    heads = [_head(group.words) for group in groups]
    sizes = [max((_height(one, width) for row in group.rows for one in row.cells), default=0.0) for group in groups]
    totals = [
        HEAD_LINE * len(head) + len(group.rows) * (size + 2 * LINE + GAP) + 2 * GAP
        for head, group, size in zip(heads, groups, sizes, strict=True)
    ]
    page = _Page(Figure(figsize=(WIDTH, GAP + sum(totals))), GAP + sum(totals))
    top = GAP
    for group, head, size, total in zip(groups, heads, sizes, totals, strict=True):
        y = top
        for line, points, bold in head:
            page.write(0.05, y, line, points, bold=bold)
            y += HEAD_LINE
        y += 0.5 * GAP
        for row in group.rows:
            for at, line in enumerate([*wrapped(row.label, 16, 2), *wrapped(row.note, 16, 2)]):
                page.write(0.05, y + LINE * at, line, 8.5)
            for at, one in enumerate(row.cells):
                page.cell(one, (LABEL + at * (width + GAP), y), (width, size))
            y += size + 2 * LINE + GAP
        top += total
    return page.figure


def wrapped(text: str, width: int, most: int) -> list[str]:
    """A text in lines of so many narrow letters, a Chinese one counting two; what is beyond the last line is cut."""
    start = printable(text[: 2 * width * most])  # as much as can be shown
    lines = [line.plain.rstrip() for line in Text(start).wrap(Console(), width)] if text else []
    if len(lines) > most:
        lines = [*lines[: most - 1], f"{lines[most - 1][: width - 1]}…"]
    return lines


def _head(words: Sequence[str]) -> list[tuple[str, float, bool]]:
    """The lines above a group, their size in points, and whether they are bold, as the first words are."""
    first, *others = words
    return [(line, 11.0, True) for line in wrapped(first, 104, 3)] + [
        (line, 9.5, False) for other in others for line in wrapped(other, 126, 3)
    ]


def _shortened(name: str, width: int) -> str:
    name = printable(name)
    return name if len(name) <= width else f"{name[: width - 1]}…"


def _height(cell: Cell, width: float) -> float:
    """Inches that an item's picture or captions need."""
    if cell.picture is None:
        return TEXT_LINES * LINE + 0.08
    least, most = PICTURE
    height, length = cell.picture.shape[:2]
    return float(min(most, max(least, width * height / length)))


@dataclass(frozen=True)
class _Page:
    """A figure that is drawn on in inches from its upper left corner."""

    figure: Figure
    height: float

    def write(self, x: float, y: float, text: str, size: float, *, bold: bool = False, colour: str = "black") -> None:
        self.figure.text(
            x / WIDTH,
            1 - y / self.height,
            text,
            fontsize=size,
            va="top",
            color=colour,
            fontweight="bold" if bold else "normal",
        )

    def cell(self, cell: Cell, corner: tuple[float, float], size: tuple[float, float]) -> None:
        (x, y), (width, height) = corner, size
        place = (x / WIDTH, 1 - (y + height) / self.height, width / WIDTH, height / self.height)
        edge, thickness = (RIGHT, 3.0) if cell.right else (OTHER, 0.8)
        self.figure.add_artist(Rectangle(place[:2], *place[2:], fill=False, edgecolor=edge, linewidth=thickness))
        if cell.picture is None:
            letters, most = int(15.5 * width), TEXT_LINES // max(1, len(cell.captions))  # of a line; lines of a caption
            lines = [line for caption in cell.captions for line in wrapped(f"· {caption}", letters, most)]
            for at, line in enumerate(lines):
                self.write(x + 0.05, y + 0.05 + at * LINE, line, 7.5)
        else:
            axes = self.figure.add_axes(place)
            axes.imshow(cell.picture, cmap="gray", vmin=0, vmax=1)
            axes.axis("off")
        words = f"{cell.place}. {cell.item}"
        self.write(x, y + height + 0.05, _shortened(words, int(14.5 * width)), 8)
        mark = f"{RIGHT_WORD}  {cell.note}" if cell.right else cell.note
        self.write(x, y + height + 0.05 + LINE, mark, 8, bold=cell.right, colour="#00614A" if cell.right else "black")
