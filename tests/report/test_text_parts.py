"""The parts about translations and the joint space on one page."""

from __future__ import annotations

import csv
from pathlib import Path

from nrccr.report import alignment, attention, distrust
from nrccr.report.charts import drawing
from nrccr.report.finished import ReportRun
from nrccr.report.folder import write_report
from nrccr.report.page import Group


def test_page_of_all_parts(noisy: list[ReportRun], tmp_path: Path) -> None:
    with drawing():
        parts = [part for module in (attention, alignment, distrust) for part in module.parts(noisy)]
        written = write_report(tmp_path / "report", "Report", "Two runs.", [Group("text", "Text", parts)])
    assert written.missing == ""
    html = written.page.read_text(encoding="utf-8")
    assert html.count("<figure>") == sum(part.figure is not None for part in parts) == 4
    assert 'lang="de"' in html and 'lang="en"' in html
    for part in parts:
        with (written.page.parent / f"{part.name}.csv").open(encoding="utf-8", newline="") as file:
            assert len(list(csv.reader(file))) == len(part.rows) + 1
