"""Reading ahead: several threads read, one takes what they read, in order.

PyAV, numpy and Pillow let other threads run while they decode.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, Full, Queue
from typing import Generic, TypeVar

Job = TypeVar("Job")
Piece = TypeVar("Piece")
AHEAD = 2  # pieces of a job that wait to be taken
POLL = 0.1  # seconds


class _Feed(Generic[Piece]):
    """What one job gave, as it comes."""

    def __init__(self, stop: threading.Event) -> None:
        self._queue: Queue[tuple[Piece | None, BaseException | None]] = Queue(AHEAD)
        self._stop = stop

    def fill(self, pieces: Callable[[], Iterable[Piece]]) -> None:
        """Read all pieces, in a thread of the pool."""
        try:
            for piece in pieces():
                if not self._put((piece, None)):
                    return
            self._put((None, None))
        except BaseException as error:  # raised where the pieces are taken
            self._put((None, error))

    def _put(self, entry: tuple[Piece | None, BaseException | None]) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(entry, timeout=POLL)
                return True
            except Full:
                continue
        return False

    def __iter__(self) -> Iterator[Piece]:
        while True:
            try:
                piece, error = self._queue.get(timeout=POLL)
            except Empty:
                continue  # so that Ctrl-C is heard
            if error is not None:
                raise error
            if piece is None:
                return
            yield piece


def prefetch(
    jobs: Iterable[Job], read: Callable[[Job], Iterable[Piece]], workers: int
) -> Iterator[tuple[Job, Iterator[Piece]]]:
    """Each job, in order, with what `read` gives for it; an error of `read` comes out where its pieces are taken.

    Args:
        jobs: what to read.
        read: gives pieces, none of which is None.
        workers: threads, each with a job of its own.
    """
    stop = threading.Event()
    waiting: deque[tuple[Job, _Feed[Piece]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="read")
    try:
        for job in jobs:
            feed: _Feed[Piece] = _Feed(stop)
            pool.submit(feed.fill, lambda job=job: read(job))  # type: ignore[misc]
            waiting.append((job, feed))
            if len(waiting) > workers:
                ready, feed = waiting.popleft()
                yield ready, iter(feed)
        while waiting:
            ready, feed = waiting.popleft()
            yield ready, iter(feed)
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
