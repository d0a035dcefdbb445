"""Damaged and odd films and images: what is taken of each, or what is said of it. `docs/features.md` lists them."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from nrccr.data.bigfile import BigFile
from tests.conftest import CHECKOUT, Command
from tests.features import media

NO_FILM = "no film in a container that is read (Invalid data found when processing input)"
# name: how it is made, and the frames taken at 2 a second or the reason that is printed.
ODD: dict[str, tuple[Callable[[Path], object], int | str]] = {
    "one_frame.mp4": (partial(media.film, frames=1), 1),
    "no_frames.mp4": (media.without_frames, "no video in it"),
    "empty.mp4": (media.text(""), "an empty file"),
    "text.mp4": (media.text("This is no film.\n" * 99), NO_FILM),
    "cut_index.mp4": (partial(media.cut, share=0.5), NO_FILM),
    "cut_frames.mp4": (partial(media.cut, share=0.6, container={"movflags": "+faststart"}), "damaged or cut short"),
    "cut.mkv": (partial(media.cut, share=0.6), 2),
    "spoilt.mp4": (media.spoilt, "damaged (Invalid data found when processing input)"),
    "film_named.jpg": (lambda path: media.film(path.with_suffix(".mp4")).rename(path), 4),
    "image_named.mp4": (lambda path: media.image(path.with_suffix(".jpg")).rename(path), 1),
    "sound_only.mp4": (media.sound, "no video in it, only audio"),
    "turned.mp4": (media.turned, 4),
    "variable_rate.mkv": (partial(media.film, times=[0, 40, 80, 900, 2600, 2640, 4000]), 9),
    "large_4k.mp4": (partial(media.film, frames=1, codec="mpeg4", size=(3840, 2160)), 1),
    "narrow.mkv": (partial(media.film, codec="ffv1", frames=2, size=(2048, 16)), "2048 x 16 pixels, too many or too"),
    "hevc.mp4": (partial(media.film, codec="libx265", options={"x265-params": "log-level=none"}), 4),
    "vp9.webm": (partial(media.film, codec="libvpx-vp9", options={"deadline": "realtime"}), 4),
    "no_times.avi": (partial(media.film, codec="mpeg4", options={"bf": "2"}), 4),
    "open_gop.mkv": (partial(media.film, options={"x264-params": "open-gop=1:keyint=10:bframes=3"}), 4),
    "animated.gif": (media.animated, 4),
    "animated_webp.webp": (media.animated, 4),
    "still.gif": (partial(media.image, mode="P"), 1),
    "cmyk.jpg": (partial(media.image, mode="CMYK"), 1),
    "deep_png.png": (media.deep, 1),
    "deep_tiff.tif": (media.deep, 1),
    "numbers.tif": (
        partial(media.image, mode="F"),
        "cannot be read as an image (its pixels are 32-bit numbers without a range",
    ),
    "exif.jpg": (media.exif, 1),
    "bomb.png": (media.bomb, "cannot be read as an image (Image size (10000000000 pixels)"),
    "playlist.mp4": (media.text("#EXTM3U\n#EXTINF:2,\none_frame.mp4\n#EXT-X-ENDLIST\n"), "no film in a container"),
    "list_of_files.mp4": (media.text("ffconcat version 1.0\nfile 'one_frame.mp4'\n"), "no film in a container"),
    "description.mp4": (media.text("v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n"), "no film in a container"),
    "pipe.mp4": (os.mkfifo, "not a regular file"),
    "link_out.mp4": (lambda path: path.symlink_to("/etc/hostname"), "a link that leads out of its folder"),
    "link_inside.mp4": (lambda path: path.symlink_to("one_frame.mp4"), 1),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "odd"
    made.mkdir()
    for name, (make, _) in ODD.items():
        make(made / name)
    return made


def test_every_file_gives_frames_or_a_reason(folder: Path, nrccr_command: Command, tmp_path: Path) -> None:
    out = tmp_path / "features"
    (folder / "notes.srt").write_text("1")
    done = nrccr_command("extract", folder, "--model", "pixels", "--fps", 2, "--out", out, "--device", "cpu")
    assert done.code == 0, done.err
    assert done.err == "" and done.out.startswith("1 files with other endings are left alone")
    features = BigFile(out)
    told = dict(line.split("\t") for line in (out / "skipped.txt").read_text().splitlines())
    for name, (_, expected) in ODD.items():
        item = Path(name).stem
        if isinstance(expected, int):
            assert name not in told, told[name]
            assert len(features.rows(item)) == expected, name
        else:
            assert item not in features and told[name].startswith(expected), (name, told.get(name))
            assert f"skipped {folder / name}: {told[name]}\n" in done.out
    assert len(features.video_ids) + len(told) == len(ODD)


def test_the_list_in_the_documents_is_whole() -> None:
    document = (CHECKOUT / "docs" / "features.md").read_text(encoding="utf-8")
    assert [name for name in ODD if f"`{name}`" not in document] == []
