"""Fonts that have the glyphs of a text, and the rows of a part as CSV."""

from __future__ import annotations

import csv
import io

import pytest

from nrccr.report import charts
from nrccr.report.charts import FIRST_FONT, fonts_for, run_style
from nrccr.report.part import Part


def test_latin_cyrillic_and_arabic_need_no_other_font() -> None:
    assert fonts_for(["a dog", "щенок", "كلب"]) == ([FIRST_FONT], "")


def test_what_no_font_has_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "_installed", lambda: ())
    assert fonts_for(["a 狗"]) == ([FIRST_FONT], "狗")


def test_rows_become_csv() -> None:
    rows = [{"query": 'a "dog", running', "rank": 1}, {"query": "一只狗", "rank": 2}]
    read = list(csv.DictReader(io.StringIO(Part("p", "t", "w", rows=rows).csv())))
    assert read == [{key: str(value) for key, value in row.items()} for row in rows]
    assert Part("p", "t", "w").csv() == ""


def test_forty_runs_look_different() -> None:
    assert len({tuple(run_style(index).values()) for index in range(40)}) == 40
