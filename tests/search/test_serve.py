"""`nrccr serve`: the API, what it refuses, and the page in a real browser."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nrccr.search import build
from nrccr.search.query import Searcher
from tests.search.conftest import TESTED
from tests.search.serving import ask, post, render, served

pytest.importorskip("gradio", reason="needs the extra serve")
Command = Callable[..., Any]
QUERY = "人唱红球"


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """A clip of each video, beside a file that must not be served."""
    pytest.importorskip("av", reason="needs the extra extract")
    folder = render(tmp_path / "media", TESTED)
    (tmp_path / "secret.mp4").write_text("secret")
    return folder


def test_a_port_that_is_taken_is_said_before_anything_is_loaded(nrccr_command: Command, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = nrccr_command("serve", tmp_path / "no-index", "--port", port)
    assert (done.code, done.out) == (2, "") and done.err.startswith(f"nrccr: 127.0.0.1:{port}: cannot listen there (")


def test_api_and_what_it_refuses(index: Path, media: Path) -> None:
    """Right answers; paths, sizes, bodies and rates that it refuses; an update while it runs; Ctrl-C."""
    expected = [result.item for result in Searcher(index, device="cpu").search(QUERY, 8).results]
    (media / "test1.mp4").unlink()
    (media / "test1.mp4").symlink_to(media.parent / "secret.mp4")
    with served(index, "--media", media, "--rate", "20") as (port, child):
        status, found = post(port, "/api/search", {"query": QUERY, "top": 8})
        assert status == 200 and [result["item"] for result in found["results"]] == expected
        status, found = post(port, "/api/moments", {"video": "test6", "query": QUERY, "window": 2})
        assert status == 200 and len(found["curve"]) == 5 and found["best"]
        status, body = ask(port, "GET", "/media/test0", headers={"Range": "bytes=0-99"})
        assert status == 206 and body == (media / "test0.mp4").read_bytes()[:100]
        strange = ["../secret", "..%2fsecret", "%2e%2e/secret", "test1", "/etc/passwd", "test0/../../secret", "a%00b"]
        doors = ["/gradio_api/file=" + str(media.parent / "secret.mp4"), "/gradio_api/upload", "/file=/etc/passwd"]
        doors += [
            "/gradio_api/proxy=http://127.0.0.1/",
            "/static/../../../../etc/passwd",
            "/assets/..%2f..%2fsecret.mp4",
        ]
        for path, kind in (("/favicon.ico", b"<svg "), ("/manifest.json", b'{"name"')):
            status, body = ask(port, "GET", path)
            assert status == 200 and body.startswith(kind), (path, status, body)
        for path in [*(f"/media/{name}" for name in strange), *doors, "/docs", "/openapi.json"]:
            status, body = ask(port, "GET", path)
            assert status in (400, 403, 404) and b"secret" not in body and b"root:" not in body, (path, status, body)
        for body in (b"{", b"[]", b'{"query": 3}', b'{"query": "a", "other": 1}', b'{"query": "a", "top": 1000000}'):
            status, answer = ask(port, "POST", "/api/search", body)
            assert status == 422 and set(json.loads(answer)) == {"error"}, answer
        for query, code in ((" ", 400), ("x" * 2000, 422), ("\ud800", 422)):
            assert post(port, "/api/search", {"query": query})[0] == code
        assert post(port, "/api/moments", {"video": "../x", "query": QUERY})[0] == 404
        assert ask(port, "POST", "/api/search", b'{"query": "' + b"x" * 10_000_000 + b'"}')[0] == 413
        build.remove(index, [expected[0]])
        assert post(port, "/api/search", {"query": QUERY, "top": 8})[1]["results"][0]["item"] == expected[1]
        statuses = {post(port, "/api/search", {"query": QUERY})[0] for _ in range(120)}
        assert statuses <= {200, 429} and ask(port, "GET", "/api/health")[0] == 200
        child.send_signal(signal.SIGINT)
        out, errors = child.communicate(timeout=30)
        assert child.returncode == 0 and "Traceback" not in errors, errors


@pytest.mark.browser
def test_page_in_chromium(index: Path, media: Path, tmp_path: Path) -> None:
    """Type a query, see the right clip first; open the second tab, click a moment: the player jumps."""
    selenium = pytest.importorskip("selenium.webdriver", reason="needs requirements-browser.txt")
    driver_file = shutil.which("chromedriver")
    if driver_file is None:
        pytest.skip("needs Debian's chromium and chromium-driver")
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    options = selenium.ChromeOptions()
    for flag in (
        *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"),
        *("disable-component-update", "disable-sync", "window-size=1200,900", f"user-data-dir={tmp_path / 'profile'}"),
    ):
        options.add_argument(f"--{flag}")
    searcher = Searcher(index, device="cpu")
    best = searcher.search(QUERY, 1).results[0].item
    with served(index, "--media", media) as (port, _):
        driver = selenium.Chrome(options=options, service=selenium.ChromeService(driver_file))
        try:
            wait = WebDriverWait(driver, 60)

            def first(selector: str) -> object:
                return wait.until(lambda d: next(iter(d.find_elements(By.CSS_SELECTOR, selector)), None))

            driver.get(f"http://127.0.0.1:{port}/")
            first("#query textarea, #query input").send_keys(QUERY, Keys.ENTER)
            assert first("#found figure").get_attribute("data-item") == best
            ready = "return document.querySelector('#found video').readyState"
            wait.until(lambda d: d.execute_script(ready) >= 1)
            time.sleep(1)
            driver.save_screenshot(str(tmp_path / "search.png"))
            wait.until(lambda d: d.find_elements(By.CSS_SELECTOR, "button[role=tab]"))[1].click()
            chosen = first("#video input")
            wait.until(lambda d: chosen.is_displayed())
            chosen.send_keys(Keys.CONTROL, "a")
            chosen.send_keys("test6", Keys.ENTER)
            driver.execute_script("document.body.click()")
            first("#clip-query textarea, #clip-query input").send_keys(QUERY, Keys.ENTER)
            buttons = wait.until(lambda d: d.find_elements(By.CSS_SELECTOR, "#moments button[data-start]"))
            player = "return document.getElementById('player')"
            wait.until(lambda d: d.execute_script(f"{player}.readyState") >= 1)
            start = max((float(button.get_attribute("data-start")), button) for button in buttons)[0]
            clicked = next(button for button in buttons if float(button.get_attribute("data-start")) == start)
            driver.execute_script("arguments[0].scrollIntoView()", clicked)
            clicked.click()
            wait.until(lambda d: d.execute_script(f"{player}.currentTime") >= start)
            driver.save_screenshot(str(tmp_path / "moments.png"))
            addresses = driver.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
            assert all(f"127.0.0.1:{port}" in address or address.startswith("data:") for address in addresses)
        finally:
            driver.quit()
