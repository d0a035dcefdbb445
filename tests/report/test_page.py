"""The page of a report: nothing in it runs or is fetched, it is legible, small, and the same every time."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from nrccr.errors import UserError
from nrccr.report import page
from nrccr.report.charts import drawing, new_axes
from nrccr.report.folder import require_replaceable, write_report
from nrccr.report.page import PAIRS, PALETTES, Group, Report, draw, render, style
from nrccr.report.part import Part, Value

HOSTILE = "<script>alert(1)</script> \"'&amp; </svg> $\\frac{$ \x07\u202e ]]> -->"


class Read(HTMLParser):
    """The elements of a page, in order, with their attributes, and the text outside style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open = "", [""]
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, "elements overlap"

    def handle_data(self, data: str) -> None:
        self.text += data if self.open[-1] != "style" else ""

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def bars(title: str = "bars", points: int = 5, name: str = "bars") -> Part:
    with drawing():
        figure, axes = new_axes(4, 3, "item", "queries")
        axes.plot(*np.random.default_rng(0).standard_normal((2, points)), "o", markersize=1)
        axes.set_title(title)
    return Part(name, title, f"A sentence on {title}.", f"A line, {title}.", figure, [{"item": 1, "queries": 2.5}])


def report_of(*parts: Part) -> str:
    drawn = {part.name: made for part in parts if (made := draw(part)) is not None}
    return render(Report("title", "lead", [Group("all", "All", parts)], drawn))


def test_hostile_text_stays_text() -> None:
    rows = [{HOSTILE: HOSTILE, "n": 1}]
    hostile = bars(HOSTILE)
    part = Part("bars", HOSTILE, HOSTILE, HOSTILE, hostile.figure, rows, shown=True)
    drawn = {"bars": draw(part)}
    html = render(Report(HOSTILE, HOSTILE, [Group("all", HOSTILE, [part])], drawn, [HOSTILE]))
    read = Read(html)
    assert not read.all("script") and read.text.count("<script>alert(1)</script>") >= 8
    assert {tag for tag, _ in read.elements} <= set(
        "html head meta title style body a header h1 p nav h2 ol li main section h3 figure img div table caption thead "
        "tr th tbody td".split()
    )
    assert "\x07" not in html and "\u202e" not in html
    assert b"script" not in drawn["bars"].svg and b"<!--" not in drawn["bars"].svg


def test_nothing_is_fetched_and_nothing_runs() -> None:
    read = Read(report_of(bars()))
    sources = [value or "" for _, own in read.elements for name, value in own.items() if name in ("src", "href")]
    assert sources and all(re.match(r"#|data:image/|[a-z-]+\.(svg|png|csv)$", source) for source in sources)
    policy = next(own["content"] for own in read.all("meta") if "http-equiv" in own)
    assert policy is not None and policy.startswith("default-src 'none'")
    assert not [name for _, own in read.elements for name in own if name.startswith("on")]


def test_structure_serves_screen_readers() -> None:
    text = Part("texts", "Texts", "w", rows=[{"query": "一只狗", "rank": 1}], shown=True, languages={"query": "zh"})
    read = Read(report_of(bars(), text))
    assert read.all("html") == [{"lang": "en"}] and [own["alt"] for own in read.all("img")] == ["A line, bars."]
    ids = [own["id"] for _, own in read.elements if "id" in own]
    assert len(set(ids)) == len(ids)
    assert {own["href"] for own in read.all("a") if (own["href"] or "").startswith("#")} <= {f"#{name}" for name in ids}
    assert [tag for tag, _ in read.elements if re.fullmatch("h[1-6]", tag)] == ["h1", "h2", "h2", "h3", "h3"]
    assert [own.get("lang") for own in read.all("td") if "lang" in own] == ["zh"]
    assert all("scope" in own for own in read.all("th"))
    assert read.all("details") and len(read.all("table")) == 2


def test_a_figure_without_alternative_text_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="without alt"):
        draw(Part("p", "t", "w", " ", bars().figure))


def luminance(colour: str) -> float:
    """WCAG 2's relative luminance of `#rrggbb`."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", PALETTES)
def test_contrast(scheme: str) -> None:
    sheet = style()
    block = sheet[sheet.index("prefers-color-scheme:dark") :] if scheme == "dark" else sheet
    colours = dict(re.findall(r"--([a-z]+):(#[0-9a-f]{6})", block[: block.index("}")]))
    assert colours == PALETTES[scheme]
    for above, below in PAIRS:
        lights = sorted((luminance(colours[above]), luminance(colours[below])))
        assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 4.5, (scheme, above, below)
    assert "background:#fff" in sheet[sheet.index("figure{") :].partition("}")[0], "figures are drawn for white"


def test_every_colour_of_text_is_among_the_pairs() -> None:
    used = set(re.findall(r"(?<![-\w])color:var\(--(\w+)\)", style()))
    grounds = set(re.findall(r"background:var\(--(\w+)\)", style()))
    assert used == {above for above, _ in PAIRS} and grounds == {below for _, below in PAIRS}


def test_heavy_figures_are_pictures_and_the_page_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    light, heavy = bars(), bars("heavy", 60_000, "heavy")
    assert re.findall(r"data:(image/[a-z+]+);", report_of(light, heavy)) == ["image/svg+xml", "image/png"]
    usual = len(report_of(heavy))
    monkeypatch.setattr(page, "LARGEST", usual - 100)
    smaller = report_of(heavy)
    assert len(smaller) < usual - 100 and "data:image/png" in smaller
    monkeypatch.setattr(page, "LARGEST", len(report_of(Part("heavy", "heavy", "w"))) + 700)
    assert "open heavy.png" in report_of(heavy) and "data:" not in Read(report_of(heavy)).all("img")
    monkeypatch.setattr(page, "LARGEST", 500)
    with pytest.raises(UserError, match="--parts: the page has"):
        report_of(heavy)


def test_long_tables_are_cut_on_the_page_alone() -> None:
    part = Part("rows", "Rows", "w", rows=[{"n": number} for number in range(1000)])
    html = report_of(part)
    assert html.count("<tr>") == 1 + page.LONGEST_TABLE and "the first 300 of 1,000 rows" in html
    assert part.csv().count("\n") == 1001


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        ([1, 12345, None], ["1", "12,345", "–"]),
        ([48.0, 65.866, 6.0], ["48.00", "65.87", "6.00"]),
        ([0.00123, 0.1], ["0.001", "0.100"]),
        ([0.000023, 0.0], ["0.0000230", "0.0000000"]),
        ([float("nan"), 2.0, float("inf")], ["nan", "2", "inf"]),
        (["none", 2, 0.5, None], ["none", "2", "0.500", "–"]),
    ],
)
def test_numbers_of_a_column_have_the_same_decimals(column: list[Value], shown: list[str]) -> None:
    html = report_of(Part("rows", "Rows", "w", rows=[{"n": value} for value in column]))
    assert re.findall(r"<td[^>]*>([^<]*)</td>", html) == shown
    assert html.count('class="number"') == (0 if "none" in column else len(column) + 1)


def test_folder_is_the_same_every_time(tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        write_report(tmp_path / name, "t", "l", [Group("all", "All", [bars("Hund 狗")])])
        made.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert made[0] == made[1] and set(made[0]) == {"report.html", "bars.svg", "bars.png", "bars.csv"}
    assert made[0]["bars.csv"] == b"item,queries\n1,2.5\n"


def test_only_reports_are_replaced(tmp_path: Path) -> None:
    old = tmp_path / "report"
    write_report(old, "t", "l", [Group("all", "All", [bars()])])
    write_report(old, "t", "l", [Group("all", "All", [Part("words", "Words", "w")])])
    assert [path.name for path in old.iterdir()] == ["report.html"]
    (old / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match=r"holds mine.txt"):
        require_replaceable(old)
    (tmp_path / "other").mkdir()
    require_replaceable(tmp_path / "other")
    (tmp_path / "other" / "a.csv").write_text("1")
    for place in (tmp_path / "other", tmp_path / "other" / "a.csv"):
        with pytest.raises(UserError, match="is no"):
            write_report(place, "t", "l", [Group("all", "All", [bars()])])
    assert (tmp_path / "other" / "a.csv").read_text() == "1"
    for target in ("other", "there"):  # of a link what it leads to
        (tmp_path / f"to-{target}").symlink_to(tmp_path / target)
    with pytest.raises(UserError, match=r"to-other: exists and is no report"):
        require_replaceable(tmp_path / "to-other")
    write_report(tmp_path / "to-there", "t", "l", [Group("all", "All", [bars()])])
    assert (tmp_path / "there" / "report.html").is_file() and (tmp_path / "to-there").is_symlink()


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nrccr.report.folder.write_text", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(UserError, match="cannot be written"):
        write_report(tmp_path / "new" / "report", "t", "l", [Group("all", "All", [bars()])])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../up", "A", "", "a b"])
def test_names_of_parts_are_names_of_files(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names of their own"):
        write_report(tmp_path / "r", "t", "l", [Group("all", "All", [Part(name, "t", "w")])])


def test_missing_fonts_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nrccr.report.charts._installed", lambda: ())
    written = write_report(tmp_path / "r", "t", "l", [Group("all", "All", [bars("狗")])])
    assert written.missing == "狗"
    html = (tmp_path / "r" / "report.html").read_text()
    assert "No installed font has 狗" in html and "fonts-noto-cjk" in html
