"""Film strips: frames in order, and features that are no pictures are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from nrccr.errors import UserError
from nrccr.report.strips import GAP, SHOWN, Strip, draw_strips, film


def test_film_spreads_frames_over_the_video() -> None:
    frames = np.repeat(np.arange(11.0)[:, None], 16, axis=1)  # (11, 4 x 4)
    strip = film(frames, "v")
    assert strip.shape == (4, SHOWN * 4 + (SHOWN - 1) * GAP)
    assert strip[0, :: 4 + GAP].tolist() == [0, 2, 4, 6, 8, 10]
    assert (strip[:, 4 : 4 + GAP] == 0.5).all()
    assert film(frames[:2], "v").shape == (4, 2 * 4 + GAP)


def test_picture(tmp_path: Path) -> None:
    frames = np.zeros((3, 16))
    path = tmp_path / "folder" / "queries.png"
    green = {}
    for right in (False, True):
        draw_strips(path, [("first", [Strip("a", 0.5, frames, right), Strip("b", 0.1, frames, False)]), ("second", [])])
        pixels = imread(path)
        green[right] = int(((pixels[..., 1] > 0.5) & (pixels[..., 0] < 0.2)).sum())
    assert green[False] == 0 and green[True] > 100
    assert [file.name for file in path.parent.iterdir()] == ["queries.png"]


def test_features_that_are_no_pictures(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="15 wide"):
        draw_strips(tmp_path / "a.png", [("first", [Strip("a", 0.5, np.zeros((3, 15)), False)])])
    assert not list(tmp_path.iterdir())
