"""How figures look: colours that colour-blind readers tell apart, and fonts that have the glyphs of a text."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font

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


@cache
def _installed() -> tuple[tuple[str, str], ...]:
    """Families with their regular faces; those made for reading on screens, which have most glyphs, first."""
    faces = [face for face in font_manager.fontManager.ttflist if face.style == "normal" and face.weight in (400, 500)]
    paths = {face.name: face.fname for face in faces if not face.name.startswith("Last Resort")}  # boxes for any text
    return tuple(sorted(paths.items(), key=lambda item: ("Sans" not in item[0] and "Hei" not in item[0], item[0])))


@cache
def _glyphs(path: str) -> frozenset[int]:
    return frozenset(FT2Font(path).get_charmap())
