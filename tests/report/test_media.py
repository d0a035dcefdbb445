"""How items look: strips of features that are pixels, of films, images in small; and nothing outside their folders."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nrccr.data.bigfile import write_bigfile
from nrccr.data.collections import leads_inside
from nrccr.report.finished import Searched, read
from nrccr.report.media import EDGE, FILM_EDGE, looks
from nrccr.report.strips import GAP, SHOWN

Command = Callable[..., Any]


@pytest.fixture
def searched(trained: Path, tiny_collection: Path) -> Searched:
    return read([trained], tiny_collection, "cpu")[0].headline


def test_no_media_no_picture(searched: Searched) -> None:
    assert looks(searched)("test0") is None


def test_features_that_are_pixels_become_a_strip(trained: Path, tiny_collection: Path) -> None:
    features = tiny_collection / "vatex" / "FeatureData"
    shutil.rmtree(features / "i3d_kinetics")
    frames = [(f"{split}{i}", np.full((3, 16), 0.1 * i)) for split in ("train", "val", "test") for i in range(12)]
    write_bigfile(features / "pixels", frames)
    config = trained / "config.yaml"
    config.write_text(config.read_text().replace("feature: null\n  max", "feature: pixels\n  max"))
    strip = looks(read([trained], tiny_collection, "cpu")[0].headline)("test5")
    assert strip is not None and strip.shape == (4, 3 * 4 + 2 * GAP)
    np.testing.assert_allclose(strip[:, :4], 0.5, atol=1e-6)


def test_films(searched: Searched, tiny_collection: Path) -> None:
    pytest.importorskip("av", reason="needs the extra `extract`")
    from nrccr.data.generated.media import write_film

    media = tiny_collection / "vatex" / "media"
    media.mkdir()
    write_film(media / "test0.mp4", np.linspace(0, 1, 60)[:, None, None].repeat(32, 1).repeat(32, 2))
    (media / "test1.mp4").write_bytes((media / "test0.mp4").read_bytes()[:300])  # damaged
    shutil.copy(media / "test0.mp4", media.parent / "outside.mp4")
    look = looks(searched)
    strip = look("test0")
    assert strip is not None and strip.shape == (FILM_EDGE, SHOWN * FILM_EDGE + (SHOWN - 1) * GAP, 3)
    middles = strip[48, 48 :: FILM_EDGE + GAP, 0]  # five seconds, brighter from frame to frame
    assert len(middles) == SHOWN and (np.diff(middles) > 0.1).all()
    assert [look(item) for item in ("test1", "test2", "../outside")] == [None, None, None]


def test_images(image_run: Command, tiny_images: Path, tmp_path: Path) -> None:
    done = image_run("train", "--out", tmp_path / "images", "train.epochs=1")
    assert done.code == 0, done.err
    pictures = tiny_images / "multi30k" / "flickr30k-images"
    Image.new("RGB", (400, 200), "red").save(pictures / "test3.jpg")
    (pictures / "test4.jpg").write_bytes(b"no image")
    Image.new("RGB", (9, 9)).save(pictures.parent / "outside.jpg")
    look = looks(read([tmp_path / "images"], tiny_images, "cpu")[0].headline)
    shown = look("test3")
    assert shown is not None and shown.shape == (EDGE // 2, EDGE, 3)
    np.testing.assert_allclose(shown[40, 80], [1, 0, 0], atol=0.02)
    assert look("test4") is None and look("../outside") is None


@pytest.mark.parametrize(("item", "inside"), [("a", True), ("a/b..c", True), ("../a", False), ("/a", False)])
def test_ids_that_lead_out_of_a_folder(item: str, inside: bool) -> None:
    assert leads_inside(item) is inside
