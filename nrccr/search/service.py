"""What is served: a JSON API and media of indexed items.

POST /api/search   {"query": ..., "top": 10, "english": false}
                   -> {"translation": ..., "results": [{"item", "score", "frames"}, ...]}
POST /api/moments  {"video": ..., "query": ..., "window": 4.0, "top": 5, "english": false}
GET  /api/health   -> {"items": ...}
GET  /media/ITEM   the file of an item, in parts if asked for

Errors are {"error": ...}, also those of addresses below /api and /media that do not exist.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from nrccr.data.captions import is_blank
from nrccr.errors import UserError
from nrccr.extras import need
from nrccr.search.guard import METHODS, error_body
from nrccr.search.moments import Moments, find_moments
from nrccr.search.query import LONGEST_QUERY, Found, Searcher
from nrccr.search.store import Generation

# Of an item's file, in the order in which they are looked for; not every system knows the types of all.
TYPES = {
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".m4v": "video/mp4",
    ".mov": "video/quicktime",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".gif": "image/gif",
}
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

    def generation(self) -> Generation:
        """The newest generation of the index.

        Raises:
            RequestError: it is gone, or cannot be read.
        """
        return _readable(self.searcher.generation)

    def search(self, query: str, top: int, english: bool) -> Found:
        """The best items.

        Raises:
            RequestError: a query that is no query, or an index that cannot be read.
        """
        return self._answer(query, lambda: self.searcher.search(query, top, english))

    def moments(self, asked: MomentsRequest) -> Moments:
        """The moments of a video.

        Raises:
            RequestError: as `search`, an index of images, and a video that the index lacks.
        """
        if self.searcher.retriever.config.visual.kind != "video":
            raise RequestError(400, "moments are of videos; this index is of images")
        if self.generation().find(_text(asked.video)) is None:
            raise RequestError(404, "no such video in the index")
        return self._answer(
            asked.query,
            lambda: find_moments(
                *(self.searcher, asked.video, asked.query), window=asked.window, top=asked.top, english=asked.english
            ),
        )

    def file_of(self, item: str) -> Path | None:
        """The file of an item of the index, inside the media folder whatever its id and links say; none if missing."""
        if self.media is None or "\0" in item or self.generation().find(_text(item)) is None:
            return None
        folder = self.media.resolve()
        for suffix in TYPES:
            with suppress(OSError, RuntimeError):  # a name longer than files have; links in a circle
                path = (folder / f"{item}{suffix}").resolve()
                if path.is_relative_to(folder) and path.is_file():
                    return path
        return None

    def _answer(self, query: str, ask: Callable[[], Answer]) -> Answer:
        if is_blank(_text(query)):
            raise RequestError(400, "the query is empty")
        if len(query) > LONGEST_QUERY:
            raise RequestError(400, f"the query is longer than {LONGEST_QUERY} characters")
        return _readable(ask)


def application(service: Service) -> Any:
    """The FastAPI application with API and media, without the page."""
    fastapi, responses = need("fastapi", "serve"), need("fastapi.responses", "serve")
    exceptions = need("starlette.exceptions", "serve")
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    def failed(status: int, message: str) -> Any:
        return responses.Response(error_body(message), status, media_type="application/json")

    def refused(_: Any, error: RequestError) -> Any:
        return failed(error.status, str(error))

    def unknown(_: Any, error: Any) -> Any:
        return failed(error.status_code, str(error.detail).lower())

    def malformed(_: Any, error: Any) -> Any:
        found = error.errors()[0]
        place = ".".join(str(part) for part in found["loc"] if part != "body")[:80]
        return failed(422, f"{place}: {found['msg']}".removeprefix(": "))

    def search(asked: SearchRequest) -> Any:
        return asdict(service.search(asked.query, asked.top, asked.english))

    def moments(asked: MomentsRequest) -> Any:
        return asdict(service.moments(asked))

    def health() -> Any:
        return {"items": service.generation().count}

    def media(item: str) -> Any:
        path = service.file_of(item)
        if path is None:
            raise RequestError(404, "no such file")
        return responses.FileResponse(path, media_type=TYPES.get(path.suffix))

    def elsewhere(request: Any) -> Any:
        known = any(route.matches(request.scope)[0].value for route in routes)
        return failed(405, "method not allowed") if known else failed(404, "not found")

    for function, kind in ((search, SearchRequest), (moments, MomentsRequest)):
        function.__annotations__ = {"asked": kind}
        app.post(f"/api/{function.__name__}")(function)
    media.__annotations__ = {"item": str}
    app.get("/api/health")(health)
    app.get("/media/{item:path}")(media)
    routes = [*app.routes]
    for start in ("/api", "/media"):  # else the page's application would answer
        app.add_route(f"{start}/{{rest:path}}", elsewhere, methods=[*METHODS])
    app.add_exception_handler(RequestError, refused)
    app.add_exception_handler(exceptions.HTTPException, unknown)
    app.add_exception_handler(need("fastapi.exceptions", "serve").RequestValidationError, malformed)
    return app


def _readable(ask: Callable[[], Answer]) -> Answer:
    """What it returns.

    Raises:
        RequestError: files that it reads are gone or damaged.
    """
    try:
        return ask()
    except (UserError, OSError) as error:
        log.error("%s", error)
        raise RequestError(503, "the index or its features cannot be read; the server's log says why") from error


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
