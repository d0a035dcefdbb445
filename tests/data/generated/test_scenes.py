"""Scenes of handwriting: disjoint samples, and frames that show what the scene says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nrccr.data.collections import SPLITS
from nrccr.data.generated.scenes import SIDE, Actor, Scene, draw, handwriting, make_scenes, split_samples

PIXELS, DIGITS = handwriting()


def film(action: str = "still", ground: str = "dark", place: str = "middle", size: str = "large", **more: Any) -> Any:
    actor: Any = Actor(0, int(np.flatnonzero(DIGITS == 0)[0]), size, action, place)  # type: ignore[arg-type]
    return draw(Scene("v", (actor,), ground, False, 9, **more), PIXELS)  # type: ignore[arg-type]


def centre(frame: Any) -> tuple[float, float]:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return float((rows * frame).sum() / frame.sum()), float((columns * frame).sum() / frame.sum())


def test_splits_share_no_handwriting() -> None:
    for seed in range(5):
        samples = split_samples(DIGITS, seed)
        owned = {split: {s for own in samples[split].values() for s in own} for split in SPLITS}
        assert sum(map(len, owned.values())) == len(DIGITS) == len(set.union(*owned.values()))
        for split in SPLITS:
            assert all(DIGITS[sample] == digit for digit, own in samples[split].items() for sample in own)
            scenes = make_scenes(split, 50, samples[split], seed)
            assert {actor.sample for scene in scenes for actor in scene.actors} <= owned[split]


def test_first_scenes_do_not_depend_on_the_count() -> None:
    samples = split_samples(DIGITS, 0)["test"]
    assert make_scenes("test", 5, samples, 0) == make_scenes("test", 50, samples, 0)[:5]
    assert make_scenes("test", 5, samples, 0) != make_scenes("test", 5, samples, 1)


@pytest.mark.parametrize(("action", "axis", "sign"), [("left", 1, -1), ("right", 1, 1), ("up", 0, -1), ("down", 0, 1)])
def test_movement(action: str, axis: int, sign: int) -> None:
    places = [centre(frame) for frame in film(action)]
    assert (places[-1][axis] - places[0][axis]) * sign > 10
    assert abs(places[-1][1 - axis] - places[0][1 - axis]) < 1


@pytest.mark.parametrize(("place", "axis", "sign"), [("left", 1, -1), ("right", 1, 1), ("up", 0, -1), ("down", 0, 1)])
def test_places(place: str, axis: int, sign: int) -> None:
    assert (centre(film(place=place)[0])[axis] - centre(film()[0])[axis]) * sign > 5


def test_size_and_its_change() -> None:
    ink = {action: film(action).sum(axis=(1, 2)) for action in ("grow", "shrink", "appear", "vanish", "still")}
    assert (np.diff(ink["grow"]) >= -1e-3).all() and ink["grow"][-1] > 2 * ink["grow"][0]
    assert np.allclose(ink["shrink"], ink["grow"][::-1])
    assert not ink["appear"][:4].any() and ink["appear"][4:].all()
    assert ink["vanish"][:4].all() and not ink["vanish"][4:].any()
    assert film(size="large").sum() > 2 * film(size="small").sum()
    assert np.ptp(ink["still"]) == 0


def test_grounds() -> None:
    dark = film()
    assert np.allclose(film(ground="bright"), 1 - dark)
    assert np.allclose(film(ground="brightens"), np.concatenate([dark[:4], 1 - dark[4:]]))
    assert np.allclose(film(ground="darkens"), np.concatenate([1 - dark[:4], dark[4:]]))
    assert dark.shape == (9, SIDE, SIDE) and dark.min() == 0 and dark.max() <= 1


def test_a_sequence_shows_one_digit_at_a_time() -> None:
    first, second = (
        Actor(digit, int(np.flatnonzero(DIGITS == digit)[0]), "small", "still", place)
        for digit, place in ((1, "left"), (2, "right"))
    )
    frames = draw(Scene("v", (first, second), "dark", True, 8), PIXELS)
    left, right = frames[:, :, : SIDE // 2].sum(axis=(1, 2)), frames[:, :, SIDE // 2 :].sum(axis=(1, 2))
    assert left[:4].all() and not left[4:].any() and not right[:4].any() and right[4:].all()
    both = draw(Scene("v", (first, second), "dark", False, 8), PIXELS)
    assert both[:, :, : SIDE // 2].sum(axis=(1, 2)).all() and both[:, :, SIDE // 2 :].sum(axis=(1, 2)).all()
