"""Frames at equal steps of time: the fast way gives what decoding everything gives, and both what the times say."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from nrccr.data.pixels import clip_preprocessor
from nrccr.features import films
from nrccr.features.films import Clock, FilmError, decode_all, frames_of, held
from nrccr.features.pictures import pictures_of
from nrccr.features.prepare import BYTES, Preparation, Resize, turns_of
from tests.features import media

Make = Callable[[Path], object]
KINDS: dict[str, Make] = {
    "h264.mp4": media.film,
    "h264_short.mp4": partial(media.film, options={"g": "10"}),
    "h264_open.mkv": partial(media.film, options={"x264-params": "open-gop=1:keyint=10:bframes=3"}),
    "h264_refresh.mkv": partial(media.film, options={"x264-params": "intra-refresh=1:keyint=10"}),
    "hevc_open.mp4": partial(
        media.film, codec="libx265", options={"x265-params": "log-level=none:open-gop=1:keyint=10:bframes=3"}
    ),
    "vp9.webm": partial(media.film, codec="libvpx-vp9", options={"deadline": "realtime", "g": "10"}),
    "mpeg2.ts": partial(media.film, codec="mpeg2video", options={"bf": "2"}),
    "mpeg4.avi": partial(media.film, codec="mpeg4", options={"bf": "2"}),
    "flv.flv": partial(media.film, codec="flv"),
    "variable.mkv": partial(media.film, times=[0, 40, 80, 900, 2600, 2640, 4000], options={"g": "2"}),
    "begins_late.mkv": partial(media.film, times=[1000, 1500, 2600]),
}


def pixels(frames: object) -> list[tuple[int, bytes]]:
    return [(frame.pts, frame.to_ndarray(format="rgb24").tobytes()) for frame in frames]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", KINDS)
def test_only_what_is_needed_gives_the_same_as_everything(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    KINDS[name](path)
    for fps in (Fraction(1, 2), Fraction(3), Fraction(30)):
        assert pixels(frames_of(path, fps)) == pixels(decode_all(path, fps))


def test_fewer_frames_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = media.film(tmp_path / "a.mp4", frames=90, options={"g": "10", "sc_threshold": "0"})
    decoded: list[object] = []
    real = films._decoded

    def count(context: object, packet: object) -> object:
        decoded.append(packet)
        return real(context, packet)

    monkeypatch.setattr(films, "_decoded", count)
    assert len(list(frames_of(path, Fraction(1)))) == 3
    assert len([packet for packet in decoded if packet is not None]) == 3  # frames 0, 30, 60 are key frames


def test_a_decoder_that_holds_frames_back_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = media.film(tmp_path / "a.mp4")
    expected = pixels(decode_all(path, Fraction(5)))
    real = films._decode_ranges
    monkeypatch.setattr(films, "_decode_ranges", lambda *a: (f for i, f in enumerate(real(*a)) if i < 20 or i > 40))
    assert pixels(frames_of(path, Fraction(5))) == expected


@pytest.mark.parametrize("fps", ["1", "2", "3", "1/3", "30000/1001", "7"])
def test_moments_by_hand(fps: str) -> None:
    rate, tick = Fraction(fps), Fraction(1, 90_000)
    begins = [0, 3600, 7200, 81_000, 234_000, 237_600, 360_000]
    found = list(held(((500 + begin, number) for number, begin in enumerate(begins)), Clock(rate, tick)))
    expected, moment = [], 0
    while moment / rate <= begins[-1] * tick:
        expected.append(max(number for number, begin in enumerate(begins) if begin * tick <= moment / rate))
        moment += 1
    assert found == expected and Clock(rate, tick).moments(begins[-1]) == len(expected)


def test_times_that_go_back_are_left_out() -> None:
    timed = [(0, "a"), (10, "b"), (5, "c"), (10, "d"), (20, "e")]
    assert list(held(iter(timed), Clock(Fraction(1), Fraction(1, 10)))) == ["a", "b", "e"]


def test_too_many_frames_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = media.film(tmp_path / "a.mp4")
    monkeypatch.setattr(films, "MAX_TAKEN", 5)
    for way in (frames_of, decode_all):
        assert len(list(way(path, Fraction(2)))) == 4
        with pytest.raises(FilmError, match="more than 5 frames to take; lower --fps"):
            list(way(path, Fraction(10)))
    monkeypatch.setattr(films, "MAX_PACKETS", 10)
    for way in (frames_of, decode_all):
        with pytest.raises(FilmError, match="more than 10 frames; cut it"):
            list(way(path, Fraction(2)))


def test_large_frames_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = media.film(tmp_path / "a.mp4")
    monkeypatch.setattr(films, "MAX_PIXELS", 64 * 47)
    with pytest.raises(FilmError, match="64 x 48 pixels, too many"):
        next(frames_of(path, Fraction(1)))


def test_a_name_is_no_address(tmp_path: Path) -> None:
    for name in ("concat:a.mp4", "data:text", "%03d.mp4", "a#?b.mp4"):
        media.film(tmp_path / "a.mp4", frames=1).rename(tmp_path / name)
        assert len(list(frames_of(tmp_path / name, Fraction(1)))) == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\na.ts\n#EXT-X-ENDLIST\n"),
        ("list.ffconcat", "ffconcat version 1.0\nfile a.ts\n"),
    ],
)
def test_what_names_other_files_is_refused(name: str, content: str, tmp_path: Path) -> None:
    media.film(tmp_path / "a.ts")
    (tmp_path / name).write_text(content)
    with av.open(str(tmp_path / name)) as opened:  # FFmpeg itself would follow it
        assert len(opened.streams) == 1
    with pytest.raises(FilmError, match="no film in a container that is read"):
        next(frames_of(tmp_path / name, Fraction(1)))


def test_frames_stay_as_long_as_an_animation_says(tmp_path: Path) -> None:
    for name in ("a.gif", "a.webp", "a.png"):
        media.animated(tmp_path / name)
        shown = list(pictures_of(tmp_path / name, Fraction(2)))  # 0, 0.5, 1, 1.5 s of frames of 0.4 s
        expected = [media.picture(9 * index).astype(int) for index in (0, 1, 2, 3)]
        far = np.array([[np.abs(np.asarray(one) - other).mean() for other in expected] for one in shown])
        assert far.argmin(axis=1).tolist() == [0, 1, 2, 3]


def test_a_film_is_turned_as_it_says(tmp_path: Path) -> None:
    path = media.film(tmp_path / "a.mp4")
    plain = list(decode_all(path, Fraction(1)))[0]
    turned = list(frames_of(media.turned(tmp_path / "b.mp4", path), Fraction(1)))[0]
    assert turns_of(plain) == 0 and turns_of(turned) == 3
    keep = Resize(None, (48, 64), None, 3, (0.0,) * 3, (1.0,) * 3)
    upright = Resize(None, (64, 48), None, 3, (0.0,) * 3, (1.0,) * 3).frame(turned)[BYTES]
    assert upright.shape == (64, 48, 3)
    np.testing.assert_array_equal(upright, np.rot90(keep.frame(plain)[BYTES], -1))
    processor = clip_preprocessor(32).processor
    slow = Preparation(processor, None).frame(turned)["pixel_values"]
    by_hand = processor(Image.fromarray(upright), return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(slow, by_hand, atol=0.02)


@pytest.mark.parametrize("size", [(320, 240), (240, 320), (352, 288), (101, 99)])
def test_scaling_while_converting_is_near_to_scaling_afterwards(size: tuple[int, int]) -> None:
    y, x = np.mgrid[: size[1], : size[0]]
    smooth = np.stack([127 + 120 * np.sin(x / 20), 127 + 120 * np.cos(y / 25), (x + y) / 3], axis=-1).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(smooth, format="rgb24")
    processor = clip_preprocessor(64).processor
    resize = Resize(64, None, (64, 64), 3, tuple(processor.image_mean), tuple(processor.image_std))
    fast = Preparation(processor, resize)
    ours = fast.batch([fast.frame(frame)], torch.device("cpu"))["pixel_values"][0].numpy()
    theirs = Preparation(processor, None).frame(frame)["pixel_values"]
    assert ours.shape == theirs.shape == (3, 64, 64)
    assert np.abs(ours - theirs).mean() < 0.02 and np.abs(ours - theirs).max() < 0.2  # a level is 0.015
