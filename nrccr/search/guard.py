"""What stands before API and page: who may ask, what is open, how large and how often; errors as one line of JSON."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import OrderedDict
from http import HTTPStatus
from typing import Any

from nrccr.errors import first_line, printable

LARGEST_BODY = 64 * 2**10  # bytes
MOST_READ = 16 * 2**20  # bytes of a larger one: who is still sending when we hang up may lose our answer
BODY_SECONDS = 10.0  # in which a body must be there
MOST_CLIENTS = 10_000  # whose rate is remembered
# The page's own files and its queue; Gradio has other doors (uploads, files, proxies), which stay shut.
OPEN = (
    *("/assets/", "/static/", "/svelte/", "/theme.css", "/config", "/api/", "/media/"),
    *("/gradio_api/queue/join", "/gradio_api/queue/data", "/gradio_api/heartbeat/", "/gradio_api/startup-events"),
    *("/gradio_api/info", "/gradio_api/app_id", "/gradio_api/reset"),
)
ASKED = ("/", "/favicon.ico", "/manifest.json")  # the page, and what a browser asks for beside it
METHODS = ("GET", "HEAD", "POST")
OWN = ("/api/", "/media/")  # whose errors in JSON are ours already
COUNTED = ("/api/search", "/api/moments", "/gradio_api/queue/join")
HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
log = logging.getLogger("nrccr.search")


class Guard:
    """ASGI: requests to this host from its own pages, known paths, bodies that are small and soon there, a rate.

    Args:
        app: API and page.
        rate: searches a second for a client.
        hosts: names by which it may be called, or any.
    """

    def __init__(self, app: Any, rate: float, hosts: frozenset[str] | None) -> None:
        self._app, self._rate, self._hosts = app, rate, hosts
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refuse(send, *refusal)
            return
        try:
            body = await asyncio.wait_for(_whole(receive), BODY_SECONDS)
        except TimeoutError:
            await refuse(send, 408, "the request did not arrive in time")
            return
        except _GoneError:
            return
        if body is None:
            await refuse(send, 413, "the request is too large")
            return
        await self._ask(scope, receive, send, body)

    async def _ask(self, scope: Any, receive: Any, send: Any, body: bytes) -> None:
        """Call the application; its errors that are not ours become ours."""
        given, begun, replaced = False, False, False

        async def replayed() -> Any:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def marked(message: Any) -> None:
            nonlocal begun, replaced
            if replaced:
                return
            if message["type"] == "http.response.start":
                begun = True
                status = message["status"]
                kind = dict(message.get("headers", [])).get(b"content-type", b"")
                if status >= 400 and not (scope["path"].startswith(OWN) and kind == b"application/json"):
                    replaced = True
                    await refuse(send, status, HTTPStatus(status).phrase.lower())
                    return
                message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
            await send(message)

        try:
            await self._app(scope, replayed, marked)
        except Exception as error:  # Gradio's, of what it does not expect; a client could fill the log with tracebacks
            reason = printable(f"{type(error).__name__}: {first_line(error)}")
            log.error("%s %s failed (%s)", scope["method"], printable(scope["path"][:200]), reason)
            if not begun:
                await refuse(send, 500, "the request failed; the server's log says why")

    def _refusal(self, scope: Any) -> tuple[int, str] | None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if self._hosts is not None and _name_of(host) not in self._hosts:
            return 421, "this server is called by another name"  # a page elsewhere whose name was turned to us
        origin = headers.get(b"origin")
        if origin is not None and origin.decode("latin-1").lower() not in (f"http://{host}", f"https://{host}"):
            return 403, "requests from pages of other servers are not answered"
        path = scope["path"]
        if scope["method"] not in METHODS:
            return 405, "method not allowed"
        if path not in ASKED and not path.startswith(OPEN):
            return 404, "not found"
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 12 or int(length) > MOST_READ:
            return 413, "the request is too large"
        client = (scope.get("client") or ("unknown", 0))[0]
        if path in COUNTED and not self._may(client, time.monotonic()):
            return 429, "too many requests; wait a second"
        return None

    def _may(self, client: str, now: float) -> bool:
        """A bucket of two seconds' requests for each client."""
        most = max(1.0, 2 * self._rate)
        left, seen = self._left.pop(client, (most, now))
        left = min(most, left + (now - seen) * self._rate)
        allowed = left >= 1
        self._left[client] = (left - allowed, now)
        if len(self._left) > MOST_CLIENTS:
            self._left.popitem(last=False)
        return allowed


class _GoneError(Exception):
    """The client hung up."""


async def _whole(receive: Any) -> bytes | None:
    """A request's body; none where it is too large, of which nothing is kept."""
    parts: list[bytes] = []
    taken, more = 0, True
    while more and taken <= MOST_READ:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _GoneError
        part = message.get("body", b"")
        taken, more = taken + len(part), message.get("more_body", False)
        if taken <= LARGEST_BODY:
            parts.append(part)
    return b"".join(parts) if taken <= LARGEST_BODY else None


def _name_of(host: str) -> str:
    """A Host header without its port."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def error_body(message: str) -> bytes:
    """An error as JSON, in ASCII whatever it quotes."""
    return json.dumps({"error": message}).encode("ascii")


async def refuse(send: Any, status: int, message: str) -> None:
    """Answer with an error and hang up."""
    body = error_body(message)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": body})
