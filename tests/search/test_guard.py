"""What stands before the served page, with limits small enough to meet in a moment."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("gradio", reason="needs the extra serve")
from nrccr.search import guard, listen  # noqa: E402 - after the extra is there
from tests.search.serving import ask  # noqa: E402

Start = Callable[..., int]
LARGE = 32 << 20  # bytes, more than a connection holds


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Echoes bodies, fails, or answers with a lot or with another's error."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/config":
        raise ValueError("\x1b[31m/a/path")
    body = (await receive())["body"]
    status = 503 if scope["path"] == "/theme.css" else 200
    content = bytes(LARGE) if scope["path"] == "/assets/large" else body
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": content})


@pytest.fixture
def start() -> Iterator[Start]:
    """A function that serves the application on loopback, searches limited to a rate: its port."""
    running: list[tuple[Any, threading.Thread]] = []

    def run(rate: float = 1000.0) -> int:
        bound = socket.create_server(("127.0.0.1", 0))
        server = listen.server_of(application, "127.0.0.1", rate)
        thread = threading.Thread(target=server.run, args=([bound],))
        thread.start()
        running.append((server, thread))
        return int(bound.getsockname()[1])

    yield run
    for server, thread in running:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


def told(answer: tuple[int, bytes]) -> int:
    """The status of an answer that is an error of ours."""
    status, body = answer
    assert set(json.loads(body)) == {"error"}, answer
    return status


def rest(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of what a connection still says until it ends."""
    connection.settimeout(10)
    said = b""
    while part := connection.recv(1 << 16):
        said += part
    head, _, body = said.partition(b"\r\n\r\n")
    return int(head[9:12]), body


def test_who_may_ask(start: Start) -> None:
    port = start()
    assert ask(port, "POST", "/api/x", b"abc") == (200, b"abc")
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", ""):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert told(rest(connection)) == 421
    for origin, right in ((f"http://127.0.0.1:{port}", True), ("http://evil.example", False), ("null", False)):
        answer = ask(port, "POST", "/api/x", b"abc", {"Origin": origin})
        assert answer == (200, b"abc") if right else told(answer) == 403
    assert told(ask(port, "GET", "/elsewhere")) == 404 and told(ask(port, "PUT", "/api/x")) == 405


def test_any_name_where_other_machines_may_ask() -> None:
    for address, status in (("0.0.0.0", 200), ("127.0.0.1", 421)):
        server, said = listen.server_of(application, address, 1.0), []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            said.append(message)  # noqa: B023 - awaited in this round

        scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"videos.example")]}
        asyncio.run(server.config.app(scope, receive, send))
        assert said[0]["status"] == status


def test_errors_are_ours(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """An exception and another's error page become one line; the log shows no control characters and no traceback."""
    port = start()
    assert told(ask(port, "GET", "/config")) == 500 and told(ask(port, "GET", "/theme.css")) == 503
    assert r"GET /config failed (ValueError: \x1b[31m/a/path)" in caplog.text and "Traceback" not in caplog.text


def test_a_rate_that_no_header_evades(start: Start) -> None:
    port = start(0.1)
    answers = [ask(port, "POST", "/api/search", b"{}", {"X-Forwarded-For": f"10.0.0.{number}"}) for number in range(5)]
    assert [status for status, _ in answers] == [200, 429, 429, 429, 429] and told(answers[1]) == 429
    assert ask(port, "POST", "/api/x", b"{}")[0] == 200  # not counted


def test_bodies(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest, one byte more, one without a length, one that does not come."""
    port = start()
    whole = b"x" * guard.LARGEST_BODY
    assert ask(port, "POST", "/api/x", whole) == (200, whole)
    assert told(ask(port, "POST", "/api/x", whole + b"x")) == 413
    head = f"POST /api/x HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode()
    chunked = b"".join(b"100\r\n" + b"x" * 256 + b"\r\n" for _ in range(300))
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked + b"0\r\n\r\n")
    assert told(rest(connection)) == 413
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.2)
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(head + b"Content-Length: 9\r\n\r\nabc")
    assert told(rest(connection)) == 408


def ports_that_end(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Clients' ports of the connections that the server is done with, from now on; it grows."""
    ended: set[int] = set()
    usual = listen.Connection.connection_lost

    def lost(self: listen.Connection, exc: Exception | None) -> None:
        usual(self, exc)
        ended.add(self.transport.get_extra_info("peername")[1])

    monkeypatch.setattr(listen.Connection, "connection_lost", lost)
    return ended


def wait_until(true: Callable[[], bool]) -> None:
    """However slow the machine is, but not for ever."""
    for _ in range(600):
        if true():
            return
        time.sleep(0.05)
    pytest.fail("nothing happened in 30 s")


def test_connections(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads that do not come whole, a second one that does not, one connection too many, one that reads nothing."""
    monkeypatch.setattr(listen, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(listen, "STALLED_SECONDS", 0.3)
    monkeypatch.setattr(listen, "MOST_CONNECTIONS", 4)
    port = start()
    head = f"GET /api/x HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode()
    for begin in (b"", head, head + b"X: y"):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(begin)
        assert told(rest(connection)) == 408
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(head + b"\r\n")
    first = b""
    while not first.endswith(b"0\r\n\r\n"):  # the last chunk
        first += connection.recv(1 << 16)
    assert first.startswith(b"HTTP/1.1 200")
    connection.sendall(b"GET")
    assert told(rest(connection)) == 408
    monkeypatch.setattr(listen, "HEAD_SECONDS", 30.0)
    ended = ports_that_end(monkeypatch)
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
    assert told(rest(idle[4])) == 503
    ports = {connection.getsockname()[1] for connection in idle}
    for connection in idle:
        connection.close()
    wait_until(lambda: ports <= ended)
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(head.replace(b"/api/x", b"/assets/large") + b"\r\n")
    wait_until(lambda: connection.getsockname()[1] in ended)
    answer = b""
    while part := connection.recv(1 << 16):
        answer += part
    assert answer.startswith(b"HTTP/1.1 200") and len(answer) < LARGE, len(answer)  # it was cut off
