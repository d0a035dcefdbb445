"""What happens in each generated video, and its frames: handwritten digits placed, moved, enlarged, inverted over time.

The handwriting is scikit-learn's: 1,797 images of 8 x 8 pixels by 43 people. A handwriting sample belongs to one split.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from sklearn.datasets import load_digits

from nrccr.data.collections import SPLITS, SplitName

Pixels = npt.NDArray[np.float32]
Action = Literal["still", "left", "right", "up", "down", "grow", "shrink", "appear", "vanish"]
Place = Literal["left", "right", "up", "down", "middle"]
Size = Literal["small", "large"]
Ground = Literal["dark", "bright", "darkens", "brightens"]

SIDE = 32  # pixels of a frame's edge
FRAMES = (6, 10)  # fewest and most of a video
SHARES = {"train": 0.6, "val": 0.15, "test": 0.25}  # of every digit's handwriting samples
STEPS: Mapping[str, tuple[int, int]] = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
PLACES: Mapping[str, tuple[int, int]] = {**STEPS, "middle": (0, 0)}
ACTIONS: tuple[Action, ...] = ("still", "left", "right", "up", "down", "grow", "shrink", "appear", "vanish")
WHERE: tuple[Place, ...] = ("left", "right", "up", "down", "middle")
GROUNDS: tuple[Ground, ...] = ("dark", "bright", "darkens", "brightens")
REACH = 9.0  # pixels from the middle to a place
SCALES = {"small": 1.0, "large": 1.8}


@dataclass(frozen=True)
class Actor:
    """One digit and what it does.

    Attributes:
        digit: 0 to 9.
        sample: which handwriting sample, an index into `handwriting()`.
        size: as drawn where it neither grows nor shrinks.
        action: what it does; a direction means that it moves there.
        place: where it does so; a mover is only shifted sideways by it.
    """

    digit: int
    sample: int
    size: Size
    action: Action
    place: Place


@dataclass(frozen=True)
class Scene:
    """One video.

    Attributes:
        video: its id.
        actors: one digit or two.
        ground: the background; `brightens` inverts the picture half way through.
        sequence: the second digit follows the first instead of joining it.
        frames: how many.
    """

    video: str
    actors: tuple[Actor, ...]
    ground: Ground
    sequence: bool
    frames: int


def handwriting() -> tuple[Pixels, npt.NDArray[np.int64]]:
    """All samples as pixels (1797, 8, 8) from 0 to 1, and their digits (1797,)."""
    digits = load_digits()
    return (digits.images / 16).astype(np.float32), digits.target.astype(np.int64)


def split_samples(digits: Sequence[int] | npt.NDArray[np.int64], seed: int) -> dict[SplitName, dict[int, list[int]]]:
    """Samples of every split by digit; no sample is in two splits."""
    choose = random.Random(f"{seed} samples")
    found: dict[SplitName, dict[int, list[int]]] = {split: {} for split in SPLITS}
    for digit in range(10):
        samples = [index for index, own in enumerate(digits) if own == digit]
        choose.shuffle(samples)
        start = 0.0
        for split in SPLITS:
            end = start + SHARES[split] * len(samples)
            found[split][digit] = sorted(samples[round(start) : round(end)])
            start = end
    return found


def make_scenes(split: SplitName, count: int, samples: Mapping[int, Sequence[int]], seed: int) -> list[Scene]:
    """The videos of a split, from its own handwriting samples."""
    choose = random.Random(f"{seed} {split} scenes")
    return [_scene(f"{split}{number:05d}", samples, choose) for number in range(count)]


def _scene(video: str, samples: Mapping[int, Sequence[int]], choose: random.Random) -> Scene:
    digits = choose.sample(range(10), k=choose.choice((1, 2)))
    places = choose.sample(WHERE, k=len(digits))
    actors = tuple(
        Actor(
            digit=digit,
            sample=choose.choice(samples[digit]),
            size=choose.choice(("small", "large")),
            action=choose.choice(ACTIONS),
            place=place,
        )
        for digit, place in zip(digits, places, strict=True)
    )
    return Scene(
        video, actors, choose.choice(GROUNDS), len(actors) == 2 and choose.random() < 0.5, choose.randint(*FRAMES)
    )


def draw(scene: Scene, pixels: Pixels, count: int | None = None) -> Pixels:
    """The frames of a video, 0 black to 1 white.

    Args:
        scene: what happens.
        pixels: those of `handwriting()`.
        count: how many frames, 2 or more, of the same course of events; the scene's own number if none.

    Returns:
        (frames, SIDE, SIDE).
    """
    frames = count or scene.frames
    return np.stack([_frame(scene, pixels, index / (frames - 1)) for index in range(frames)])


def _frame(scene: Scene, pixels: Pixels, time: float) -> Pixels:
    """The frame at a time from 0 to 1."""
    canvas = np.zeros((SIDE, SIDE), dtype=np.float32)
    for number, actor in enumerate(scene.actors):
        own = time
        if scene.sequence:
            if (time >= 0.5) != (number == 1):
                continue
            own = min(1.0, 2 * time - number)
        if (actor.action == "appear" and own < 0.5) or (actor.action == "vanish" and own >= 0.5):
            continue
        _paint(canvas, pixels[actor.sample], actor, own)
    inverted = {"dark": False, "bright": True, "darkens": time < 0.5, "brightens": time >= 0.5}[scene.ground]
    return 1 - canvas if inverted else canvas


def _paint(canvas: Pixels, sample: Pixels, actor: Actor, time: float) -> None:
    """Draw a digit as it stands at its own time from 0 to 1; where digits overlap the brighter pixel stays."""
    scale = SCALES[actor.size]
    small, large = SCALES.values()
    if actor.action in ("grow", "shrink"):
        part = time if actor.action == "grow" else 1 - time
        scale = small + part * (large * 1.2 - small)
    row: float
    column: float
    row, column = PLACES[actor.place]
    if actor.action in STEPS:
        down, right = STEPS[actor.action]
        way = 2 * time - 1  # from one edge to the other
        row, column = (down * way, column) if down else (row, right * way)
    drawn = np.clip(ndimage.zoom(sample, scale, order=1), 0, 1)
    half = drawn.shape[0] / 2
    top = int(np.clip(round(SIDE / 2 + REACH * row - half), 0, SIDE - drawn.shape[0]))
    left = int(np.clip(round(SIDE / 2 + REACH * column - half), 0, SIDE - drawn.shape[1]))
    window = canvas[top : top + drawn.shape[0], left : left + drawn.shape[1]]
    np.maximum(window, drawn, out=window)
