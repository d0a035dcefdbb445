"""Connections to the server: how many, and how long one may take to say what it wants. Needs the extra `serve`."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from nrccr.search.guard import LOOPBACK, Guard, error_body

MOST_CONNECTIONS = 500  # at once; a usual process may have 1,024 files open
HEAD_SECONDS = 10.0  # in which the head of a request must be there
STALLED_SECONDS = 120.0  # without reading an answer; a player that comes back asks for the rest
HEAD_BYTES = 32 * 2**10


class Connection(H11Protocol):
    """uvicorn's HTTP/1.1 with limits in time and number, and errors in JSON."""

    _waiting: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request, or refuse where there are too many connections."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            self._refuse(503, "Service Unavailable", "too many connections; come back later")
            return
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Take a part of a request; time runs until its head is whole."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._waiting is None:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._stop_waiting()
        self._stop_stalled()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read its answer."""
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads on."""
        self._stop_stalled()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; an answer that has begun ends there."""
        self._refuse(400, "Bad Request", "no valid HTTP request")

    def on_response_complete(self) -> None:
        """The time for the next request's head is uvicorn's for idle connections, until its first byte."""
        self._stop_waiting()
        super().on_response_complete()

    def _await_head(self) -> None:
        self._waiting = self.loop.call_later(
            HEAD_SECONDS, self._refuse, 408, "Request Timeout", "the request did not arrive in time"
        )

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _stop_stalled(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _refuse(self, status: int, phrase: str, message: str) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = error_body(message)
            head = f"HTTP/1.1 {status} {phrase}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            self.transport.write(f"{head}Connection: close\r\n\r\n".encode("ascii") + body)
        self.transport.close()


def server_of(app: Any, address: str, rate: float) -> uvicorn.Server:
    """A server of API and page.

    Args:
        app: both.
        address: where it will listen; on loopback only requests for a name of loopback are answered.
        rate: searches a second for a client.
    """
    hosts = LOOPBACK | {address} if ipaddress.ip_address(address).is_loopback else None
    options = uvicorn.Config(
        Guard(app, rate, hosts),
        http=Connection,
        ws="none",
        h11_max_incomplete_event_size=HEAD_BYTES,
        log_level="error",
        proxy_headers=False,  # a client could give itself another address, and so another rate
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(options)
