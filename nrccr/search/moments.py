"""The moments of one video that a query means: windows of its frames, encoded like videos, ranked over time.

W windows, F frames, D joint-space width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nrccr.data.bigfile import BigFile
from nrccr.errors import UserError
from nrccr.search.query import Searcher

MOST_WINDOWS = 2000


@dataclass(frozen=True)
class Window:
    """A clip of a video, in seconds from its beginning, and its score."""

    start: float
    end: float
    score: float


@dataclass(frozen=True)
class Moments:
    """What a query finds in a video.

    Attributes:
        seconds: of the video, as far as it has frames.
        curve: every window, in the order of time.
        best: the highest ones that do not overlap, best first.
        translation: that the query was mixed with, if any.
    """

    seconds: float
    curve: list[Window]
    best: list[Window]
    translation: str | None = None


def find_moments(
    searcher: Searcher, video: str, query: str, *, window: float = 4.0, top: int = 5, english: bool = False
) -> Moments:
    """Rank a video's windows for a query.

    Args:
        searcher: model and index.
        video: an item of the index.
        query: in any language of the model.
        window: seconds of a window; windows begin at every frame, or further apart in a long video.
        top: how many of the best.
        english: whether the query is in the source language.

    Raises:
        UserError: no such video, a model of images, features that are gone.
    """
    about = searcher.generation().about
    if searcher.retriever.config.visual.kind != "video":
        raise UserError("moments are of videos; this model takes images")
    if searcher.generation().find(video) is None:
        raise UserError(f"{video} is not in the index {searcher.index}; `nrccr search` shows which items are")
    bigfile = BigFile(Path(about.features))
    frames = bigfile.read([bigfile.rows(video)])[0][0]  # (F, feature width)
    length = max(1, min(len(frames), round(window * about.fps)))
    step = max(1, -(-(len(frames) - length + 1) // MOST_WINDOWS))
    starts = range(0, len(frames) - length + 1, step)
    asked = searcher.encode(query, english)
    vectors = searcher.encode_windows([frames[start : start + length] for start in starts])  # (W, D)
    scores = vectors @ asked.vector
    curve = [
        Window(start / about.fps, (start + length) / about.fps, float(score))
        for start, score in zip(starts, scores, strict=True)
    ]
    return Moments(len(frames) / about.fps, curve, apart(curve, top), asked.translation)


def apart(windows: list[Window], top: int) -> list[Window]:
    """The highest windows that do not overlap, best first; the earlier one of equals."""
    best: list[Window] = []
    for place in np.argsort([-window.score for window in windows], kind="stable"):
        window = windows[int(place)]
        if all(window.end <= other.start or other.end <= window.start for other in best):
            best.append(window)
        if len(best) == top:
            break
    return best
