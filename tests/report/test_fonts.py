"""Figures made legible: fonts installed lately, dollar signs, control characters, logarithmic axes."""

from __future__ import annotations

from io import BytesIO

import pytest
from matplotlib import font_manager

from nrccr.report import charts
from nrccr.report.charts import drawing, make_legible, new_axes


def test_fonts_installed_after_matplotlib_listed_them_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    faces = [face for face in font_manager.fontManager.ttflist if face.name == charts.FIRST_FONT]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [])
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [face.fname for face in faces])
    charts._installed.cache_clear()
    try:
        assert charts.FIRST_FONT in dict(charts._installed())
    finally:
        charts._installed.cache_clear()


def test_simplified_chinese_comes_first() -> None:
    families = ["Noto Serif CJK JP", "Noto Sans CJK JP", "Noto Sans CJK SC", "Droid Sans"]
    assert sorted(families, key=charts._order)[0] == "Noto Sans CJK SC"


def test_captions_are_no_formulas_and_logarithms_are_numbers() -> None:
    with drawing():
        figure, axes = new_axes(3, 2, "queries", "items")
        axes.set_title("$\\frac{ costs $5 \x07")
        axes.plot([1, 1000], [1, 2])
        axes.set_xscale("log")
        assert make_legible(figure) == ""
        figure.savefig(BytesIO(), format="svg")
    assert axes.get_title() == "$\\frac{ costs $5 \\x07"
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert {"1", "10", "1000"} <= set(labels) and not any("$" in label for label in labels)


def test_names_of_ticks_have_fonts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(charts, "fonts_for", lambda texts: (asked.extend(texts), (["A Font"], "狗"))[1])
    with drawing():
        figure, axes = new_axes(3, 2, "queries", "items")
        axes.barh(["狗在水里跑", "a dog"], [1, 2])
        assert make_legible(figure) == "狗"
    assert set(asked) == {"狗在水里跑"}
    assert [label.get_fontfamily() for label in axes.get_yticklabels()] == [["A Font"], [charts.FIRST_FONT]]
