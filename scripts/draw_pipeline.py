"""Draws docs/pipeline.svg, the picture at the top of the README: python scripts/draw_pipeline.py"""

from __future__ import annotations

from pathlib import Path

WIDTH, HEIGHT = 960, 440
BLUE, GREEN, ORANGE, GREY, WHITE = "#dbe9f6", "#e0f0dd", "#fde3c8", "#eeeeee", "#ffffff"


def box(x: int, y: int, width: int, height: int, color: str, *lines: str) -> str:
    """A rounded box with centred lines; the first is bold."""
    first = y + height / 2 - 8 * (len(lines) - 1) + 5
    words = "".join(
        f'<text x="{x + width / 2}" y="{first + 17 * number}" text-anchor="middle"'
        f"{' font-weight=' + chr(34) + 'bold' + chr(34) if number == 0 else ''}>{line}</text>"
        for number, line in enumerate(lines)
    )
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="{color}" stroke="#555"/>{words}'


def arrow(*points: tuple[int, int], dashed: bool = False) -> str:
    """A line through points with a head at the last."""
    path = " ".join(f"{x},{y}" for x, y in points)
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<polyline points="{path}" fill="none" stroke="#555" stroke-width="1.6"{dash} marker-end="url(#head)"/>'


def label(x: int, y: int, text: str, anchor: str = "middle") -> str:
    """A small line of text."""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="12" fill="#333">{text}</text>'


PARTS = [
    label(20, 24, "training", "start"),
    box(20, 40, 190, 44, BLUE, "English caption", "written by people"),
    box(20, 104, 190, 44, ORANGE, "its translation", "by a machine, noisy"),
    box(20, 168, 190, 44, ORANGE, "back-translation", "by a machine, noisier"),
    box(20, 252, 190, 44, GREEN, "video or image"),
    box(290, 92, 150, 68, BLUE, "text encoder", "shared multilingual", "BERT, attention"),
    box(290, 252, 150, 44, GREEN, "visual encoder"),
    box(510, 40, 170, 44, GREY, "teacher", "looks at both languages"),
    box(510, 116, 170, 44, GREY, "student", "translation alone"),
    box(760, 116, 180, 120, WHITE, "joint space", "matching pairs close,", "others apart (ranking)"),
    *(arrow((210, y), (250, y), (250, 126), (288, 126)) for y in (62, 190)),
    arrow((210, 126), (288, 126)),
    arrow((440, 138), (508, 138)),
    arrow((440, 110), (470, 110), (470, 62), (508, 62)),
    arrow((595, 84), (595, 114), dashed=True),
    label(603, 104, "distils scores, features", "start"),
    arrow((680, 62), (745, 62), (745, 140), (758, 140)),
    arrow((680, 138), (720, 138), (720, 170), (758, 170)),
    arrow((210, 274), (288, 274)),
    arrow((440, 274), (740, 274), (740, 210), (758, 210)),
    arrow((365, 160), (365, 186), (250, 186), dashed=True),
    label(372, 182, "cycle consistency, language adversary", "start"),
    '<line x1="20" y1="322" x2="940" y2="322" stroke="#bbb"/>',
    label(20, 346, "test", "start"),
    box(20, 362, 190, 52, BLUE, "target-language query", "written by people"),
    box(290, 362, 150, 52, BLUE, "text encoder"),
    box(510, 362, 170, 52, WHITE, "cosines"),
    box(760, 362, 180, 52, GREEN, "videos, best first"),
    arrow((210, 388), (288, 388)),
    arrow((440, 388), (508, 388)),
    arrow((680, 388), (758, 388)),
]

HEAD = (
    '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0,0 L10,5 L0,10 z" fill="#555"/></marker></defs>'
)

if __name__ == "__main__":
    drawing = "\n".join([HEAD, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', *PARTS])
    font = 'font-family="Helvetica, Arial, sans-serif" font-size="13"'
    words = 'role="img" aria-label="NRCCR: training on noisy translations, then ranking"'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {font} {words}>\n{drawing}\n</svg>\n'
    Path(__file__).parents[1].joinpath("docs", "pipeline.svg").write_text(svg, encoding="utf-8")
