"""A served index of a test, and clips rendered for it."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


def render(folder: Path, names: list[str]) -> Path:
    """Eight seconds of a moving square for each name, as mp4."""
    import av

    folder.mkdir()
    for number, name in enumerate(names):
        with av.open(str(folder / f"{name}.mp4"), "w") as film:
            stream = film.add_stream("libx264", rate=10, options={"g": "10"})
            stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
            for moment in range(80):
                picture = np.full((120, 160, 3), 40 + 20 * number, dtype=np.uint8)
                picture[40:80, moment : moment + 40] = (255, 200 - 20 * number, 25 * number)
                film.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            film.mux(stream.encode())
    return folder


@contextmanager
def served(index: Path, *options: object) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """`nrccr serve` in a process of its own: its port; Ctrl-C ends it."""
    command = [sys.executable, "-m", "nrccr", "serve", str(index), "--port", "0", "--device", "cpu", *map(str, options)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert str(index) in child.stdout.readline()  # said before anything is loaded
        found = re.search(r"http://127\.0\.0\.1:(\d+)", child.stdout.readline())
        if found is None:
            raise AssertionError(child.communicate()[1])
        wait_for(int(found[1]))
        yield int(found[1]), child
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
            child.communicate(timeout=120)


def wait_for(port: int) -> None:
    """Until it answers; the socket listens from the beginning, so that one request waits."""
    import time

    for _ in range(100):
        try:
            if ask(port, "GET", "/api/health")[0] == 200:
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server does not answer")


def ask(
    port: int, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    """Status and body of a request whose path is sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
            connection.putheader("Content-Type", "application/json")
        connection.endheaders()
        try:
            if body is not None:
                connection.send(body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all of it was read
        answer = connection.getresponse()
        try:
            return answer.status, answer.read()
        except http.client.IncompleteRead as cut:  # it hung up while we were sending; the status came
            return answer.status, cut.partial
    finally:
        connection.close()


def post(port: int, path: str, value: Any) -> tuple[int, Any]:
    """Status and JSON of a request with JSON."""
    status, body = ask(port, "POST", path, json.dumps(value).encode())
    return status, json.loads(body)
