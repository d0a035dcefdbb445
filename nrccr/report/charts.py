"""How figures look: colours that colour-blind readers tell apart, and fonts that have the glyphs of a text."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from functools import cache
from typing import Any

from matplotlib import font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogFormatterMathtext, NullFormatter

from nrccr.errors import printable

# Okabe and Ito, "Color Universal Design" (2008), without its yellow, which is too pale for lines on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # runs differ in shape too: legible without colour
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
FIRST_FONT = "DejaVu Sans"  # comes with matplotlib; Latin, Cyrillic, Greek and Arabic


def new_axes(width: float = 6.4, height: float = 4.0, xlabel: str = "", ylabel: str = "") -> tuple[Figure, Axes]:
    """A figure of one plot, in inches; names of axes hold the unit."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.3)
    return figure, axes


def run_style(index: int) -> dict[str, Any]:
    """Colour, marker and dashes of a run's line, by its position among the report's runs; keywords of `plot`."""
    again, at = divmod(index, len(COLOURS))  # the eighth run has the first one's colour, with other dashes and marker
    return {
        "color": COLOURS[at],
        "marker": MARKERS[(at + 2 * again) % len(MARKERS)],
        "linestyle": DASHES[(at + again) % len(DASHES)],
    }


def fonts_for(texts: Iterable[str]) -> tuple[list[str], str]:
    """Font families to give matplotlib as `family` for these texts, and the characters that no installed font has."""
    missing = {character for text in texts for character in text if character.isprintable()}
    families = []
    for family, path in [(FIRST_FONT, font_manager.findfont(FIRST_FONT)), *_installed()]:
        if not missing:
            break
        found = {character for character in missing if ord(character) in _glyphs(path)}
        if found:
            families.append(family)
            missing -= found
    return families or [FIRST_FONT], "".join(sorted(missing))


def make_legible(figure: Figure) -> str:
    """Make a finished figure ready to be drawn under `drawing`.

    Every text gets fonts that have its characters, control characters are written as escapes, and logarithmic axes get
    plain numbers instead of formulas.

    Returns:
        The characters that no installed font has.
    """
    missing: set[str] = set()
    every = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    for axis in every:
        axis.get_ticklabels()  # writes them; otherwise they have no text before the figure is drawn
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        shown = printable(text.get_text())
        if shown != text.get_text():
            text.set_text(shown)
        if not shown.isascii():
            families, lacking = fonts_for([shown])
            text.set_fontfamily(families)
            missing |= set(lacking)
    for axis in every:
        if isinstance(axis.get_major_formatter(), LogFormatterMathtext):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
    return "".join(sorted(missing))


def drawing() -> AbstractContextManager[None]:
    """Settings under which a report's figures are made and drawn.

    A dollar sign of a caption is no formula, and the same figure is the same SVG in every process.
    """
    return rc_context(
        {
            "text.parse_math": False,
            "text.usetex": False,
            "axes.formatter.use_mathtext": False,
            "axes.unicode_minus": False,
            "font.family": FIRST_FONT,
            "svg.fonttype": "path",
            "svg.hashsalt": "nrccr",
            "figure.max_open_warning": 0,
        }
    )


@cache
def _installed() -> tuple[tuple[str, str], ...]:
    """Families with their regular faces; those made for reading on screens, which have most glyphs, first."""
    manager = font_manager.fontManager
    known = {face.fname for face in manager.ttflist}
    for path in sorted(set(font_manager.findSystemFonts()) - known):  # installed after matplotlib made its list
        with suppress(OSError, RuntimeError):
            manager.addfont(path)
    faces = [face for face in manager.ttflist if face.style == "normal" and face.weight in (400, 500)]
    paths = {face.name: face.fname for face in faces if not face.name.startswith("Last Resort")}  # boxes for any text
    return tuple(sorted(paths.items(), key=lambda item: _order(item[0])))


def _order(family: str) -> tuple[bool, bool, str]:
    # Of fonts with a face for each country the one for simplified Chinese, the papers' language.
    return "Sans" not in family and "Hei" not in family, "SC" not in family.split(), family


@cache
def _glyphs(path: str) -> frozenset[int]:
    return frozenset(FT2Font(path).get_charmap())
