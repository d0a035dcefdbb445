"""The page of a report: one HTML file that opens anywhere, offline, with its figures inside."""

from __future__ import annotations

import math
import re
import warnings
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from io import BytesIO

from PIL import Image

from nrccr.errors import UserError, printable
from nrccr.report.charts import drawing, make_legible
from nrccr.report.part import Part, Value

LARGEST = 5_000_000  # bytes of a page
LARGEST_SVG = 400_000  # bytes of a figure's SVG; a heavier figure is a PNG on the page
DOTS = 150  # an inch of a PNG
COARSER = (0.66, 0.4)  # times the size, of figures on a page that is too large otherwise
SHORT = 32  # characters of a cell that stay on one line
LONGEST_TABLE = 300  # rows on the page; the CSV has all
# Colours of the page, by scheme; tests compute the contrast of every pair in PAIRS.
PALETTES: Mapping[str, Mapping[str, str]] = {
    "light": {"page": "#ffffff", "text": "#1b1b1f", "quiet": "#56565e", "link": "#0b57a4", "stripe": "#f1f1f4",
              "note": "#fff4d6", "line": "#767680"},
    "dark": {"page": "#16161a", "text": "#ececf1", "quiet": "#b4b4be", "link": "#8ec5ff", "stripe": "#24242b",
             "note": "#3a3113", "line": "#8a8a96"},
}  # fmt: skip
PAIRS = (
    *(("text", below) for below in ("page", "stripe", "note")),
    *((above, "page") for above in ("quiet", "link")),
    *((above, "stripe") for above in ("quiet", "link")),
)
STYLE = """
body{margin:0 auto;padding:1rem 1.5rem 4rem;max-width:70rem;background:var(--page);color:var(--text);
 font:1rem/1.55 system-ui,"Noto Sans","Noto Sans CJK SC",sans-serif}
a{color:var(--link)} a:focus-visible,summary:focus-visible,[tabindex]:focus-visible{outline:3px solid var(--link)}
.skip{position:absolute;left:-999rem} .skip:focus{left:1rem}
h1{font-size:1.8rem;line-height:1.25;overflow-wrap:anywhere} h2{margin-top:3rem;border-bottom:2px solid var(--line)}
h3{margin-top:2.2rem} p{max-width:48rem;overflow-wrap:anywhere}
.note{background:var(--note);padding:.6rem 1rem;border-left:.3rem solid var(--line)}
figure{margin:1rem 0;padding:.8rem;background:#fff;border:1px solid var(--line);border-radius:.4rem;overflow-x:auto}
figure img{display:block;max-width:100%;height:auto;margin:auto}
.files{color:var(--quiet);font-size:.9rem}
.table{overflow-x:auto;max-height:48rem;overflow-y:auto;border:1px solid var(--line)}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;min-width:30%}
caption{text-align:left;padding:.3rem .6rem;color:var(--quiet);background:var(--page)}
th,td{padding:.25rem .6rem;text-align:left;vertical-align:top;max-width:30rem}
td{white-space:nowrap} td.long{white-space:normal;overflow-wrap:break-word;min-width:14rem}
.number{text-align:right} thead th{border-bottom:2px solid var(--line)}
tbody tr:nth-child(odd){background:var(--stripe)}
@media print{body{max-width:none;padding:0;font-size:10pt} nav,.skip,.files{display:none}
 figure{break-inside:avoid;border:0;padding:0} h2,h3{break-after:avoid}
 .table{max-height:none;overflow:visible;border:0} tr{break-inside:avoid} td{white-space:normal}}
"""
Picture = tuple[str, bytes] | None  # media type and content; none where it would make the page too large
_NUMBER = ' class="number"'
_COMMENT = re.compile(r"<!--.*?-->\s*", re.DOTALL)  # matplotlib's, each with a text of the figure


@dataclass(frozen=True)
class Group:
    """Parts that belong together, under a heading."""

    name: str
    title: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Drawn:
    """A part's figure as files.

    Attributes:
        svg, png: the picture.
        size: width and height on the page, in pixels.
        missing: characters that no installed font has.
    """

    svg: bytes
    png: bytes
    size: tuple[int, int]
    missing: str = ""

    def choices(self) -> Iterator[tuple[str, bytes]]:
        """What the page may show, the best first, as media type and content."""
        if len(self.svg) <= LARGEST_SVG:
            yield "image/svg+xml", self.svg
        yield "image/png", self.png
        for factor in COARSER:
            yield "image/png", _smaller(self.png, factor)


@dataclass(frozen=True)
class Report:
    """All that a page shows.

    Attributes:
        title: of the page.
        lead: a sentence under it.
        groups: the parts.
        drawn: figures by name of their part.
        notes: what a reader has to know first.
    """

    title: str
    lead: str
    groups: Sequence[Group]
    drawn: Mapping[str, Drawn]
    notes: Sequence[str] = field(default_factory=list)


def draw(part: Part) -> Drawn | None:
    """Draw a part's figure; none where the numbers are the part.

    Raises:
        ValueError: a figure without alternative text, which some readers need.
    """
    figure = part.figure
    if figure is None:
        return None
    if not part.alt.strip():
        raise ValueError(f"part {part.name}: a figure without alt")
    with drawing(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")  # told once, for all figures
        missing = make_legible(figure)
        svg, png = BytesIO(), BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
        figure.savefig(png, format="png", dpi=DOTS)
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    text = _COMMENT.sub("", svg.getvalue().decode("utf-8"))
    return Drawn(text.encode("utf-8"), png.getvalue(), (width, height), missing)


def render(report: Report) -> str:
    """The page, under LARGEST bytes: until it is, the heaviest figure is shown coarser, and at last left out."""
    coarser = {name: drawn.choices() for name, drawn in report.drawn.items()}
    shown: dict[str, Picture] = {name: next(choices) for name, choices in coarser.items()}
    while len(html := "".join(_page(report, shown))) >= LARGEST or len(html.encode("utf-8")) >= LARGEST:
        heaviest = max(shown, key=lambda name: _weight(shown[name]), default=None)
        if heaviest is None or shown[heaviest] is None:
            raise UserError(
                f"--parts: the page has {len(html):,} characters without a figure, the limit is {LARGEST:,}; "
                "report fewer parts or runs"
            )
        shown[heaviest] = next(coarser[heaviest], None)
    return html


def _weight(picture: Picture) -> int:
    return 0 if picture is None else len(picture[1])


def _smaller(png: bytes, factor: float) -> bytes:
    with Image.open(BytesIO(png)) as picture:
        size = tuple(max(1, round(factor * length)) for length in picture.size)
        smaller = picture.convert("RGB").resize((size[0], size[1]), Image.Resampling.LANCZOS)
    out = BytesIO()
    smaller.save(out, format="PNG", optimize=True)
    return out.getvalue()


def _page(report: Report, pictures: Mapping[str, Picture]) -> Iterator[str]:
    title = _text(report.title)
    yield (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f'<meta name="color-scheme" content="light dark">\n<title>{title}</title>\n<style>{style()}</style>\n</head>\n'
        f'<body>\n<a class="skip" href="#content">To the content</a>\n<header>\n<h1>{title}</h1>\n'
        f"<p>{_text(report.lead)}</p>\n"
    )
    yield from (f'<p class="note" role="note">{_text(note)}</p>\n' for note in report.notes)
    yield '</header>\n<nav aria-labelledby="contents">\n<h2 id="contents">Contents</h2>\n<ol>\n'
    for group in report.groups:
        inside = "".join(f'<li><a href="#{part.name}">{_text(part.title)}</a></li>' for part in group.parts)
        yield f'<li><a href="#group-{group.name}">{_text(group.title)}</a>\n<ol>{inside}</ol></li>\n'
    yield '</ol>\n</nav>\n<main id="content">\n'
    for group in report.groups:
        yield f'<section aria-labelledby="group-{group.name}">\n'
        yield f'<h2 id="group-{group.name}">{_text(group.title)}</h2>\n'
        for part in group.parts:
            yield from _section(part, report.drawn.get(part.name), pictures.get(part.name))
        yield "</section>\n"
    yield "</main>\n</body>\n</html>\n"


def style() -> str:
    """The style sheet, with the colours of both schemes."""

    def colours(scheme: str) -> str:
        return ";".join(f"--{name}:{value}" for name, value in PALETTES[scheme].items())

    dark = f"@media screen and (prefers-color-scheme:dark){{:root{{{colours('dark')}}}}}"
    return f":root{{color-scheme:light dark;{colours('light')}}}\n{dark}{STYLE}"


def _section(part: Part, drawn: Drawn | None, picture: Picture) -> Iterator[str]:
    yield f'<section aria-labelledby="{part.name}">\n<h3 id="{part.name}">{_text(part.title)}</h3>\n'
    yield f"<p>{_text(part.text)}</p>\n"
    if drawn is not None and picture is not None:
        kind, content = picture
        width, height = drawn.size
        source = f"data:{kind};base64,{b64encode(content).decode('ascii')}"
        yield f'<figure><img src="{source}" width="{width}" height="{height}" alt="{_text(part.alt)}"></figure>\n'
    elif drawn is not None:
        yield f'<p class="note" role="note">The figure is too large for the page; open {part.name}.png. '
        yield f"{_text(part.alt)}</p>\n"
    files = [f"{part.name}.{ending}" for ending in endings(part)]
    if files:
        links = ", ".join(f'<a href="{name}">{name}</a>' for name in files)
        yield f'<p class="files">Files beside this page: {links}</p>\n'
    if part.rows:
        table = "".join(_table(part))
        yield table if part.shown else f"<details><summary>The numbers behind it</summary>\n{table}</details>\n"
    yield "</section>\n"


def endings(part: Part) -> list[str]:
    """The endings of a part's files."""
    return (["svg", "png"] if part.figure is not None else []) + (["csv"] if part.rows else [])


def _table(part: Part) -> Iterator[str]:
    columns, count = list(part.rows[0]), len(part.rows)
    shown = part.rows[:LONGEST_TABLE]
    more = f", the first {len(shown):,} of {count:,} rows" if len(shown) < count else ""
    yield f'<div class="table" role="region" tabindex="0" aria-label="Table: {_text(part.title)}">\n<table>\n'
    yield f"<caption>{_text(part.title)}{more}</caption>\n<thead><tr>"
    decimals = {name: decimals_of([row[name] for row in part.rows]) for name in columns}
    for name, own in decimals.items():
        yield f'<th scope="col"{_NUMBER if own is not None else ""}>{_text(name)}</th>'
    yield "</tr></thead>\n<tbody>\n"
    for row in shown:
        cells = (_cell(row[name], decimals[name], part.languages.get(name)) for name in columns)
        yield f"<tr>{''.join(cells)}</tr>\n"
    yield "</tbody>\n</table>\n</div>\n"


def _cell(value: Value, decimals: int | None, language: str | None) -> str:
    if decimals is not None and not isinstance(value, str):
        return f"<td{_NUMBER}>{in_digits(value, decimals)}</td>"
    shown = value if isinstance(value, str) else in_digits(value)
    spoken = f' lang="{escape(language)}"' if language else ""
    wraps = ' class="long"' if len(shown) > SHORT else ""
    return f'<td dir="auto"{spoken}{wraps}>{_text(shown)}</td>'


def decimals_of(column: Sequence[Value]) -> int | None:
    """Decimals of a column of numbers: none where all are whole, enough for three digits of the largest, two at least.

    None for a column that holds texts too.
    """
    if any(isinstance(value, str) for value in column):
        return None
    finite = [abs(value) for value in column if isinstance(value, int | float) and math.isfinite(value)]
    if all(float(value).is_integer() for value in finite):
        return 0
    return max(2, min(8, 2 - math.floor(math.log10(max(finite)))))


def in_digits(value: Value, decimals: int | None = None) -> str:
    """A number as tables show it, with thousands set apart; without `decimals` as many as it needs, two at most."""
    if value is None or isinstance(value, str):
        return value or "–"
    return f"{value:,.{decimals_of([value]) if decimals is None else decimals}f}"


def _text(text: str) -> str:
    """A text of anybody's as HTML: no mark-up, no control characters, nothing that turns the text around it."""
    return escape(printable(text))
