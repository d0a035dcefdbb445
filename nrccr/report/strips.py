"""A picture of queries with their top videos as film strips.

F frames of S x S pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nrccr.errors import UserError
from nrccr.files import atomic_path

SHOWN = 6  # frames of a strip
GAP = 2  # pixels between frames
Frames = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Strip:
    """One video of a ranked list: name, score, frame features (F, S * S), and whether it is relevant."""

    video: str
    score: float
    frames: Frames
    right: bool


def draw_strips(path: Path, ranked: Sequence[tuple[str, Sequence[Strip]]]) -> None:
    """Write a PNG: one row a query, its best videos side by side, the right one framed.

    Raises:
        UserError: the features are no square pictures.
    """
    columns = max(len(strips) for _, strips in ranked)
    figure = Figure(figsize=(4.2 * columns, 1.25 * len(ranked)), layout="constrained")
    rows = figure.subfigures(len(ranked), 1, squeeze=False)[:, 0]
    for row, (query, strips) in zip(rows, ranked, strict=True):
        row.suptitle(query, fontsize=11)
        all_axes = row.subplots(1, columns, squeeze=False)[0]
        for place, axes in enumerate(all_axes):
            axes.set_xticks([])
            axes.set_yticks([])
            if place < len(strips):
                _draw(axes, place, strips[place])
            else:
                axes.axis("off")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _draw(axes: Axes, place: int, strip: Strip) -> None:
    axes.imshow(film(strip.frames, strip.video), cmap="gray", vmin=0, vmax=1)
    axes.set_xlabel(f"{place + 1}. {strip.video}  {strip.score:.3f}", fontsize=8)
    for spine in axes.spines.values():
        spine.set(color="#1a9641" if strip.right else "#bbbbbb", linewidth=4 if strip.right else 1)


def film(frames: Frames, video: str) -> Frames:
    """Frame features (F, S * S) as one picture (S, about SHOWN * S), frames spread over the video, grey between them.

    Raises:
        UserError: the features are no square pictures.
    """
    side = round(frames.shape[1] ** 0.5)
    if side * side != frames.shape[1]:
        raise UserError(
            f"video {video!r}: features {frames.shape[1]} wide are no square pictures, none can be drawn; leave it out"
        )
    return side_by_side(frames.reshape(-1, side, side))


def side_by_side(frames: Frames) -> Frames:
    """Frames (F, H, W), or with colours (F, H, W, 3), of 0..1 as one picture: SHOWN of them in a row, grey between."""
    chosen = np.unique(np.linspace(0, len(frames) - 1, SHOWN).round().astype(int))
    gap = np.full((frames.shape[1], GAP, *frames.shape[3:]), 0.5)
    parts = [part for index in chosen for part in (frames[index], gap)]
    return np.concatenate(parts[:-1], axis=1)
