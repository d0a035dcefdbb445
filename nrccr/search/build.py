"""Videos or images of a feature folder -> an index; items added to it and removed from it.

N items, M queries of the bank, D joint-space width.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from nrccr.data.bigfile import BigFile
from nrccr.errors import UserError
from nrccr.evaluation.blocks import Cosines
from nrccr.evaluation.directions import Bank
from nrccr.evaluation.encode import require_finite
from nrccr.evaluation.normalise import fold_bias, nearest_neighbour_bias
from nrccr.evaluation.score import mix
from nrccr.features.store import FINGERPRINT
from nrccr.files import digest_of
from nrccr.search.store import CURRENT, About, Draft, Item, open_index, with_items, without_items, writing
from nrccr.search.store import write_generation as write
from nrccr.search.vectors import Floats, Shape, Vectors
from nrccr.systems.retriever import Retriever

BLOCK = 1024  # videos whose frames are in memory at once
LARGEST_FINGERPRINT = 1 << 20  # bytes
FPS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12}|/[0-9]{1,12})?")
MOST_FPS = 1000


@dataclass(frozen=True)
class Hubs:
    """The bias of nnn against hubs: of a bank's queries, mean of the k highest scores times alpha."""

    bank: Bank
    k: int = 1
    alpha: float = 0.75


def fingerprint_of(retriever: Retriever) -> str:
    """A hash of a model: weights, reading, how many frames of a video it takes."""
    config = retriever.config
    settings = {"model": config.model, "reading": config.reading, "frames": config.data.max_frames}
    settings["switches"] = config.switches.model_dump(mode="json")
    text = f"{digest_of(retriever.checkpoint)} {json.dumps(settings, sort_keys=True)}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def require_same_model(about: About, retriever: Retriever, index: Path) -> None:
    """Make sure that an index was made with a model.

    Raises:
        UserError: it was made with another.
    """
    if fingerprint_of(retriever) != about.fingerprint:
        raise UserError(
            f"{index}: made with another model than {retriever.checkpoint}; name that one with --run, or build the "
            "index again"
        )


def fps_of(features: Path, given: float | None) -> float:
    """Frames a second of a feature folder: as given, as its fingerprint says, or 1.

    Raises:
        UserError: both are there and differ.
    """
    recorded = _recorded_fps(features)
    if given is not None and recorded is not None and _differ(given, recorded):
        raise UserError(f"--fps {given}: {features / FINGERPRINT} says {recorded:g}; leave the option out")
    found = given if given is not None else recorded
    return 1.0 if found is None else found


def _recorded_fps(features: Path) -> float | None:
    """Frames a second as a fingerprint says; none where there is none, or it says what no extraction writes."""
    path = features / FINGERPRINT
    if not path.is_file() or path.stat().st_size > LARGEST_FINGERPRINT:
        return None
    try:
        said = str(json.loads(path.read_text(encoding="utf-8"))["fps"])
        rate = Fraction(said) if FPS.fullmatch(said) else Fraction(0)
    except (ValueError, KeyError, TypeError, ZeroDivisionError, RecursionError):
        return None
    return float(rate) if 0 < rate <= MOST_FPS else None


def _differ(one: float, other: float) -> bool:
    return abs(one - other) > 1e-6 * other


def build(retriever: Retriever, features: Path, index: Path, about: tuple[float, Shape], hubs: Hubs | None) -> int:
    """Write an index of all items of a feature folder; returns how many.

    Args:
        retriever: the model.
        features: bigfile of frames, or of one vector an image.
        index: the folder to make.
        about: frames a second, and how vectors are kept.
        hubs: the bias to fold in.

    Raises:
        UserError: an index is there already, features of another width, or damaged ones.
    """
    fps, shape = about
    with writing(index):
        if (index / CURRENT).exists():
            raise UserError(f"{index}: holds an index already; choose another folder, or give --add")
        bigfile = _opened(retriever, features)
        items, vectors = _encoded(retriever, bigfile, [*bigfile.video_ids])
        bank = None if hubs is None else mixed_bank(hubs.bank, retriever.config.evaluation.target_weight)
        folded = None if hubs is None else (hubs.k, hubs.alpha)
        rows = _rows(vectors, bank, folded, shape)
        described = About(
            # Weights in the hub's cache are links to files of other names.
            run=str(retriever.checkpoint.parent.resolve() / retriever.checkpoint.name),
            fingerprint=fingerprint_of(retriever),
            features=str(features.resolve()),
            fps=fps,
            width=rows.shape[1],
            shape=shape,
            hubs=folded,
        )
        keys = np.arange(len(items), dtype=np.int64)
        made = Vectors.build(rows, keys, shape)
        gone = np.empty(0, dtype=np.int64)
        write(index, Draft(described, made, dict(enumerate(items)), gone, bank))
    return len(items)


def add(retriever: Retriever, features: Path, index: Path) -> int:
    """Add the items of a feature folder that an index lacks; the others are not encoded. Returns how many.

    Raises:
        UserError: no index, one of another model or feature width.
    """
    with writing(index):
        draft = _draft(index)
        require_same_model(draft.about, retriever, index)
        bigfile = _opened(retriever, features)
        recorded = _recorded_fps(features)
        if recorded is not None and _differ(recorded, draft.about.fps):
            raise UserError(f"{features}: other frames a second than the index, {draft.about.fps:g}; extract it anew")
        known = {item.id for item in draft.items.values()}
        new = [name for name in bigfile.video_ids if name not in known]
        if not new:
            return 0
        items, vectors = _encoded(retriever, bigfile, new)
        rows = _rows(vectors, draft.bank, draft.about.hubs, draft.about.shape)
        # Moments are read from the newest folder, which must have the old items too.
        kept = known <= set(bigfile.video_ids)
        about = draft.about if not kept else About(**draft.about.__dict__ | {"features": str(features.resolve())})
        draft = with_items(draft, items, rows)
        write(index, Draft(about, draft.vectors, draft.items, draft.gone, draft.bank))
    return len(new)


def remove(index: Path, names: Sequence[str]) -> None:
    """Remove items from an index.

    Raises:
        UserError: no index, or no such item; nothing is removed then.
    """
    with writing(index):
        write(index, without_items(_draft(index), names))


def mixed_bank(bank: Bank, target_weight: float) -> Floats:
    """A bank's queries (M, D), each mixed with its translation where it has one: scores are linear in the query."""
    made = bank.embeddings.target
    if bank.embeddings.source is not None:
        made = mix(bank.embeddings.source, made, target_weight)
    return np.asarray(made.float().cpu().numpy(), dtype=np.float32)


def _draft(index: Path) -> Draft:
    found = open_index(index, mapped=False)
    try:
        return found.draft()
    finally:
        found.close()


def _opened(retriever: Retriever, features: Path) -> BigFile:
    bigfile = BigFile(features)
    if bigfile.width != retriever.feature_width:
        raise UserError(
            f"{features}: features are {bigfile.width} wide, {retriever.checkpoint} was trained on "
            f"{retriever.feature_width}; give the features it was trained on"
        )
    return bigfile


def _encoded(retriever: Retriever, bigfile: BigFile, names: Sequence[str]) -> tuple[list[Item], Floats]:
    items = [Item(name, len(bigfile.rows(name))) for name in names]
    return items, np.concatenate([*_vectors(retriever, bigfile, names)])


def _vectors(retriever: Retriever, bigfile: BigFile, names: Sequence[str]) -> Iterator[Floats]:
    for start in range(0, len(names), BLOCK):
        block = names[start : start + BLOCK]
        frames = [bigfile.read([bigfile.rows(name)])[0][0] for name in block]
        bad = next((name for name, values in zip(block, frames, strict=True) if not np.isfinite(values).all()), None)
        if bad is not None:
            raise UserError(f"{bigfile.folder}: {bad} holds a NaN or an infinity; extract it again")
        videos = retriever.config.visual.kind == "video"
        yield retriever.encode_video(frames) if videos else retriever.encode_image([rows[0] for rows in frames])


def _rows(vectors: Floats, bank: Floats | None, hubs: tuple[int, float] | None, shape: Shape) -> Floats:
    """Vectors as the index keeps them: with the bias, and for ivfpq zeros up to a width that codes divide."""
    import torch

    tensor: Any = torch.from_numpy(vectors)
    require_finite(tensor, [str(row) for row in range(len(vectors))])
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    if bank is not None and hubs is not None:
        if bank.shape[1] != vectors.shape[1]:
            raise UserError(f"the bank's vectors are {bank.shape[1]} wide, the model's {vectors.shape[1]}")
        bias = nearest_neighbour_bias(Cosines(torch.from_numpy(bank), tensor), *hubs)
        rows = fold_bias(rows, bias)
    if shape.kind == "ivfpq":
        rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % shape.code_bytes)))
    return np.ascontiguousarray(rows)
