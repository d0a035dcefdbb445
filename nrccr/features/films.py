"""The frames of a film that are on screen at equal steps of time.

A film begins with its first frame. At F frames a second the k-th moment is k / F seconds later, and its frame is the
last one that begins by then, so that films of variable rate are sampled by time. The last moment is the one at or
before the beginning of the last frame.

Only the frames that are wanted are decoded, and those that they depend on. `decode_all` decodes every frame; both give
the same.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from nrccr.data.pixels import MAX_PIXELS, MAX_RATIO
from nrccr.errors import first_line
from nrccr.extras import need

MAX_PACKETS = 2_000_000  # encoded frames of a film, over 18 hours at 30 a second
MAX_TAKEN = 20_000  # frames taken of a film
# Demuxers by FFmpeg's names. None of them opens a second file: no playlists, no lists of files, no devices.
CONTAINERS = (
    *("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "asf", "flv", "mpeg", "mpegts", "mpegvideo"),
    *("h264", "hevc", "m4v", "ogg", "ivf", "nut", "yuv4mpegpipe"),
)
OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": ",".join(CONTAINERS),
    "max_pixels": str(MAX_PIXELS),
}

Frame = TypeVar("Frame")


class FilmError(Exception):
    """Why a film is not read, in words that follow its path."""


@dataclass(frozen=True)
class Packet:
    """One encoded frame, without its bytes.

    Attributes:
        pts: when it is shown, in ticks of the stream.
        key: whether decoding can begin with it.
        shown: whether it is shown at all.
    """

    pts: int
    key: bool
    shown: bool


def frames_of(path: Path, fps: Fraction) -> Iterator[Any]:
    """The frames on screen at every moment, as PyAV gives them; one that stays on screen comes again.

    Raises:
        FilmError: no film, one that is damaged, or one that is too large.
        UserError: PyAV is not installed.
    """
    packets, tick = _scan(path)
    if not packets:
        yield from decode_all(path, fps)
        return
    plan = _plan(packets, fps, tick)
    given = 0
    try:
        for frame in _decode_wanted(path, *plan):
            yield frame
            given += 1
    except _Missing:
        # A decoder that gives other frames than the packets say: from here on as if nothing were known.
        for number, frame in enumerate(decode_all(path, fps)):
            if number >= given:
                yield frame


def decode_all(path: Path, fps: Fraction) -> Iterator[Any]:
    """As `frames_of`, decoding every frame."""
    with opened(path) as (container, stream):
        rate = stream.average_rate or Fraction(25)
        tick = Fraction(stream.time_base or 1 / rate)
        frames = enumerate(guarded(container.decode(stream)))
        # Some containers have no times: there, as often as they say.
        timed = ((round(n / rate / tick) if frame.pts is None else frame.pts, frame) for n, frame in frames)
        yield from map(_whole, held(timed, Clock(fps, tick)))


def held(timed: Iterable[tuple[int, Frame]], clock: Clock) -> Iterator[Frame]:
    """The frame on screen at every moment.

    Args:
        timed: frames with the ticks when they begin; one that does not begin after the one before is left out.
        clock: the moments.

    Raises:
        FilmError: no frame, or too many.
    """
    shown: list[Frame] = []  # one, as soon as there is one
    origin = latest = moment = 0
    for number, (begin, frame) in enumerate(timed):
        if number >= MAX_PACKETS:
            raise FilmError(f"more than {MAX_PACKETS:,} frames; cut it into parts")
        if not shown:
            origin = latest = begin
        elif begin <= latest:
            continue
        while shown and clock.ticks(moment) < begin - origin:
            yield shown[0]
            moment += 1
            _require_few(moment)
        shown, latest = [frame], begin
    if not shown:
        raise FilmError("no frame in it")
    while clock.ticks(moment) <= latest - origin:
        yield shown[0]
        moment += 1
        _require_few(moment)


class Clock:
    """Moments in ticks.

    Args:
        fps: moments a second.
        tick: seconds of a tick.
    """

    def __init__(self, fps: Fraction, tick: Fraction) -> None:
        self.tick = tick
        self._step = 1 / fps / tick

    def ticks(self, moment: int) -> int:
        """The last tick at or before a moment."""
        return int(moment * self._step // 1)

    def moments(self, ticks: int) -> int:
        """How many moments there are from tick 0 to this one, both included."""
        return int(ticks // self._step) + 1


class _Missing(Exception):  # noqa: N818 - caught here
    """The decoder did not give a frame that the packets promise."""


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """A film and its first video stream, checked before anything is decoded.

    Raises:
        FilmError: no regular file, another container, no video, too large frames.
    """
    av = need("av", "extract")
    av.logging.set_level(None)  # FFmpeg writes warnings to the terminal, bytes of the file among them
    if not path.is_file():
        raise FilmError("not a regular file")
    if not path.stat().st_size:
        raise FilmError("an empty file")
    try:
        # As a URL of a file: no other protocol can hide in a name.
        container = av.open(f"file:{path.absolute()}", options=OPTIONS, metadata_errors="replace")
    except (OSError, ValueError, av.FFmpegError) as error:
        raise FilmError(f"no film in a container that is read ({_reason(error)})") from error
    with container:
        yield container, _video_of(container)


def _video_of(container: Any) -> Any:
    videos = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
    if not videos:
        kinds = sorted({stream.type for stream in container.streams})
        raise FilmError(f"no video in it{', only ' + ' and '.join(kinds) if kinds else ''}")
    context = videos[0].codec_context
    if context is None:
        raise FilmError("encoded in a way that this build of FFmpeg cannot decode")
    require_size(context.width, context.height)
    context.thread_type = "AUTO"
    return videos[0]


def require_size(width: int, height: int) -> None:
    """Refuse frames that images of this size would be refused for.

    Raises:
        FilmError: too many pixels, too narrow, or no size.
    """
    if min(width, height) < 1:
        raise FilmError("its frames have no size")
    if width * height > MAX_PIXELS or max(width, height) > MAX_RATIO * min(width, height):
        raise FilmError(f"{width} x {height} pixels, too many or too narrow")


def _scan(path: Path) -> tuple[list[Packet], Fraction]:
    """All packets in order of decoding, and the seconds of a tick; no packets where they do not tell all."""
    packets: list[Packet] = []
    with opened(path) as (container, stream):
        tick = Fraction(stream.time_base or 0)
        for packet in guarded(container.demux(stream)):
            if packet.size == 0:
                continue  # the end of the stream
            if packet.is_corrupt:
                raise FilmError(f"damaged or cut short after {len(packets)} frames")
            if packet.pts is None or not tick:
                return [], tick
            packets.append(Packet(packet.pts, packet.is_keyframe, not packet.is_discard))
            if len(packets) > MAX_PACKETS:
                raise FilmError(f"more than {MAX_PACKETS:,} frames; cut it into parts")
    if not any(packet.shown for packet in packets):
        raise FilmError("no frame in it")
    if len({packet.pts for packet in packets}) < len(packets) or not packets[0].key:
        return [], tick
    return packets, tick


Plan = tuple[list[int], list[tuple[int, int]], frozenset[int]]


def _plan(packets: list[Packet], fps: Fraction, tick: Fraction) -> Plan:
    """What to decode.

    Returns:
        the time of every moment's frame, in order; ranges of packets, first and last, each beginning with one that
        decoding can begin with; and the times of the packets that must be decoded to be seen.
    """
    times = sorted(packet.pts for packet in packets if packet.shown)
    clock = Clock(fps, tick)
    count = clock.moments(times[-1] - times[0])
    _require_few(count)
    wanted = [times[bisect_right(times, times[0] + clock.ticks(moment)) - 1] for moment in range(count)]
    position = {packet.pts: number for number, packet in enumerate(packets)}
    keys = [number for number, packet in enumerate(packets) if packet.key]
    ranges: list[tuple[int, int]] = []
    for last in sorted({position[pts] for pts in wanted}):
        # Frames that are shown before a key frame but stored after it may depend on frames before it.
        usable = bisect_right(keys, last) - 1
        while usable > 0 and packets[keys[usable]].pts > packets[last].pts:
            usable -= 1
        first = keys[usable]
        while ranges and first <= ranges[-1][1] + 1:
            first = min(first, ranges.pop()[0])
        ranges.append((first, last))
    return wanted, ranges, frozenset(wanted)


def _decode_wanted(
    path: Path, wanted: list[int], ranges: list[tuple[int, int]], needed: frozenset[int]
) -> Iterator[Any]:
    """The wanted frames in order of time.

    Raises:
        _Missing: the decoder gives none for one of them.
    """
    moment = 0
    for frame in _decode_ranges(path, ranges, needed):
        if moment < len(wanted) and frame.pts in needed and frame.pts > wanted[moment]:
            raise _Missing
        while moment < len(wanted) and frame.pts == wanted[moment]:
            yield _whole(frame)
            moment += 1
    if moment < len(wanted):
        raise _Missing


def _decode_ranges(path: Path, ranges: list[tuple[int, int]], needed: frozenset[int]) -> Iterator[Any]:
    with opened(path) as (container, stream):
        context = stream.codec_context
        left = iter(ranges)
        first, last = next(left)
        number = -1
        for packet in guarded(container.demux(stream)):
            if packet.size == 0:
                continue
            number += 1
            if number < first:
                continue
            # No other frame depends on one that is no reference, so that only those wanted need decoding.
            context.skip_frame = "DEFAULT" if packet.pts in needed else "NONREF"
            yield from guarded(_decoded(context, packet))
            if number == last:
                yield from guarded(_decoded(context, None))
                context.flush_buffers()
                first, last = next(left, (-1, -1))
                if first < 0:
                    return


def _decoded(context: Any, packet: Any) -> Iterator[Any]:
    """What comes out of a decoder for a packet, or at the end, for none."""
    yield from context.decode(packet)


def _whole(frame: Any) -> Any:
    if frame.is_corrupt:
        raise FilmError("damaged: a frame that cannot be decoded whole")
    require_size(frame.width, frame.height)
    return frame


def _require_few(count: int) -> None:
    if count > MAX_TAKEN:
        raise FilmError(f"more than {MAX_TAKEN:,} frames to take; lower --fps")


def guarded(items: Iterator[Any]) -> Iterator[Any]:
    """Errors of the decoder as ours."""
    av = need("av", "extract")
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except (OSError, ValueError, av.FFmpegError) as error:
            raise FilmError(f"damaged ({_reason(error)})") from error
        yield item


def _reason(error: BaseException) -> str:
    """FFmpeg's words, without number and path."""
    return str(getattr(error, "strerror", None) or first_line(error))
