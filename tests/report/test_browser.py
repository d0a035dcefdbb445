"""The page of a report in Chromium: figures load, nothing is fetched or refused, both schemes, narrow and printed."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nrccr.report.folder import write_report
from nrccr.report.page import PALETTES, Group
from nrccr.report.part import Part
from tests.report.test_page import HOSTILE, bars

pytestmark = pytest.mark.browser


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Any]:
    """Chromium without a window."""
    selenium = pytest.importorskip("selenium.webdriver", reason="needs requirements-browser.txt")
    driver_file = shutil.which("chromedriver")
    if driver_file is None:
        pytest.skip("needs Debian's chromium and chromium-driver")
    options = selenium.ChromeOptions()
    for flag in (
        *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"),
        *("disable-component-update", "disable-sync", "window-size=1200,900", f"user-data-dir={tmp_path / 'profile'}"),
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = selenium.Chrome(options=options, service=selenium.ChromeService(driver_file))
    try:
        yield opened
    finally:
        opened.quit()


def test_page_in_chromium(driver: Any, tmp_path: Path) -> None:
    wide = {f"column {number}": "一只狗在水里跑" for number in range(12)}
    heavy = bars("heavy", 20_000, "heavy")
    table = Part("wide", HOSTILE, HOSTILE, rows=[wide] * 30, shown=True)
    page = write_report(tmp_path / "r", HOSTILE, "lead", [Group("all", "All", [bars(HOSTILE), heavy, table])]).page

    def in_scheme(scheme: str) -> str:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        return str(driver.execute_script("return getComputedStyle(document.body).backgroundColor"))

    driver.get(page.as_uri())
    assert driver.execute_script("return [...document.images].every(image => image.complete && image.naturalWidth)")
    kinds = driver.execute_script("return [...document.images].map(image => image.src.slice(5, 14))")
    assert kinds == ["image/svg", "image/png"] and driver.get_log("browser") == []
    for scheme in ("light", "dark"):
        own = PALETTES[scheme]["page"]
        expected = ", ".join(str(int(own[at : at + 2], 16)) for at in (1, 3, 5))
        assert in_scheme(scheme) == f"rgb({expected})"
        figure = "return getComputedStyle(document.querySelector('figure')).backgroundColor"
        assert driver.execute_script(figure) == "rgb(255, 255, 255)"
    for width in (1200, 520):  # tables scroll in their frame, the page does not
        driver.set_window_size(width, 900)
        root = driver.execute_script("const r = document.documentElement; return [r.scrollWidth, r.clientWidth]")
        assert root[0] <= root[1], width
    printed = base64.b64decode(driver.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert printed.startswith(b"%PDF") and len(printed) > 10_000
