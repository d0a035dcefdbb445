"""What is served: a JSON API, media of indexed items, and the page; limits on all of it.

POST /api/search   {"query": ..., "top": 10, "english": false}
                   -> {"translation": ..., "results": [{"item", "score", "frames"}, ...]}
POST /api/moments  {"video": ..., "query": ..., "window": 4.0, "top": 5, "english": false}
GET  /api/health   -> {"items": ...}
GET  /media/ITEM   the file of an item, in parts if asked for
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from nrccr.data.captions import is_blank
from nrccr.errors import UserError
from nrccr.extras import need
from nrccr.search.moments import Moments, find_moments
from nrccr.search.query import LONGEST_QUERY, Found, Searcher

LARGEST_BODY = 64 * 2**10  # bytes
MOST_CLIENTS = 10_000  # whose rate is remembered
SUFFIXES = (".mp4", ".webm", ".m4v", ".mov", ".jpg", ".jpeg", ".png", ".webp", ".gif")
# The page's own files and its queue; Gradio has other doors (uploads, files, proxies), which stay shut.
OPEN = (
    *("/assets/", "/static/", "/svelte/", "/theme.css", "/config", "/api/", "/media/"),
    *("/gradio_api/queue/join", "/gradio_api/queue/data", "/gradio_api/heartbeat/", "/gradio_api/startup-events"),
    *("/gradio_api/info", "/gradio_api/app_id", "/gradio_api/reset"),
)
COUNTED = ("/api/search", "/api/moments", "/gradio_api/queue/join")
HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
Answer = TypeVar("Answer")
log = logging.getLogger("nrccr.search")


class SearchRequest(BaseModel):
    """Body of /api/search."""

    model_config = ConfigDict(extra="forbid", strict=True)
    query: str = Field(max_length=LONGEST_QUERY)
    top: int = Field(10, ge=1, le=100)
    english: bool = False


class MomentsRequest(BaseModel):
    """Body of /api/moments."""

    model_config = ConfigDict(extra="forbid", strict=True)
    video: str = Field(max_length=LONGEST_QUERY)
    query: str = Field(max_length=LONGEST_QUERY)
    window: float = Field(4.0, ge=0.1, le=3600)
    top: int = Field(5, ge=1, le=20)
    english: bool = False


class RequestError(Exception):
    """A request that cannot be answered: a status and one line without anything of the machine."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Service:
    """What API and page ask.

    Attributes:
        searcher: model and index.
        media: folder with a file for each item, ID.mp4 or the like, if any.
    """

    searcher: Searcher
    media: Path | None = None

    def search(self, query: str, top: int, english: bool) -> Found:
        """The best items.

        Raises:
            RequestError: a query that is no query, or an index that cannot be read.
        """
        return self._answer(query, lambda: self.searcher.search(query, top, english))

    def moments(self, asked: MomentsRequest) -> Moments:
        """The moments of a video.

        Raises:
            RequestError: as `search`, and a video that the index lacks.
        """
        if self.searcher.generation().find(_text(asked.video)) is None:
            raise RequestError(404, "no such video in the index")
        return self._answer(
            asked.query,
            lambda: find_moments(
                *(self.searcher, asked.video, asked.query), window=asked.window, top=asked.top, english=asked.english
            ),
        )

    def file_of(self, item: str) -> Path | None:
        """The file of an item of the index, inside the media folder whatever its id and links say; none if missing."""
        if self.media is None or "\0" in item or self.searcher.generation().find(_text(item)) is None:
            return None
        folder = self.media.resolve()
        for suffix in SUFFIXES:
            path = (folder / f"{item}{suffix}").resolve()
            if path.is_relative_to(folder) and path.is_file():
                return path
        return None

    def _answer(self, query: str, ask: Callable[[], Answer]) -> Answer:
        if is_blank(_text(query)):
            raise RequestError(400, "the query is empty")
        if len(query) > LONGEST_QUERY:
            raise RequestError(400, f"the query is longer than {LONGEST_QUERY} characters")
        try:
            return ask()
        except UserError as error:
            log.error("%s", error)
            raise RequestError(500, "the index or its features cannot be read; the server's log says why") from error


def application(service: Service, rate: float) -> Any:
    """The FastAPI application with API and media, without the page; `rate` is searches a second for a client."""
    fastapi, responses = need("fastapi", "serve"), need("fastapi.responses", "serve")
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    def refused(_: Any, error: RequestError) -> Any:
        return responses.JSONResponse({"error": str(error)}, error.status)

    def malformed(_: Any, error: Any) -> Any:
        found = error.errors()[0]
        place = ".".join(str(part) for part in found["loc"] if part != "body")[:80]
        return responses.JSONResponse({"error": f"{place}: {found['msg']}".removeprefix(": ")}, 422)

    def search(asked: SearchRequest) -> Any:
        return asdict(service.search(asked.query, asked.top, asked.english))

    def moments(asked: MomentsRequest) -> Any:
        return asdict(service.moments(asked))

    def health() -> Any:
        return {"items": service.searcher.generation().count}

    def media(item: str) -> Any:
        path = service.file_of(item)
        if path is None:
            raise RequestError(404, "no such file")
        return responses.FileResponse(path)

    for function, kind in ((search, SearchRequest), (moments, MomentsRequest)):
        function.__annotations__ = {"asked": kind}
        app.post(f"/api/{function.__name__}")(function)
    media.__annotations__ = {"item": str}
    app.get("/api/health")(health)
    app.get("/media/{item:path}")(media)
    app.add_exception_handler(RequestError, refused)
    app.add_exception_handler(need("fastapi.exceptions", "serve").RequestValidationError, malformed)
    app.add_middleware(Limits, rate=rate)
    return app


class Limits:
    """ASGI: known paths alone, bodies of a moderate size, and a number of searches a second from one client."""

    def __init__(self, app: Any, rate: float) -> None:
        self._app, self._rate = app, rate
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        taken, begun = 0, False

        async def limited() -> Any:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > LARGEST_BODY:
                raise _TooLargeError
            return message

        async def marked(message: Any) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
            await send(message)

        try:
            await self._app(scope, limited, marked)
        except _TooLargeError:
            if not begun:
                await _refuse(send, 413, "the request is too large")

    def _refusal(self, scope: Any) -> tuple[int, str] | None:
        if scope["type"] != "http":
            return 404, "not found"
        path = scope["path"]
        if path != "/" and not any(path.startswith(start) for start in OPEN):
            return 404, "not found"
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 12 or int(length) > LARGEST_BODY:
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


class _TooLargeError(Exception):
    pass


async def _refuse(send: Any, status: int, message: str) -> None:
    body = b'{"error":"' + message.encode() + b'"}'
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": body})


def _text(text: str) -> str:
    """A text that can be encoded.

    Raises:
        RequestError: it holds half a character.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise RequestError(400, "the text is no valid Unicode") from None
    return text
