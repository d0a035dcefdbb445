"""Fingerprints of what vectors depend on: encoder, pre-processing, options, files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from nrccr.data.images import Pictures
from nrccr.features.prepare import Preparation
from nrccr.models.vision import Encoder, VisionEncoder

# Entries of a configuration that change no vector.
IRRELEVANT = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures")


def fingerprint(encoder: str, pictures: Pictures, image_ids: Sequence[str]) -> str:
    """A hash of an encoder, the pre-processing, how pixels are read, and every image's id, size and time of change.

    Args:
        encoder: from `hash_encoder`.
        pictures: where the images are, with their pre-processing.
        image_ids: which.
    """
    settings = {k: v for k, v in pictures.preprocess.describe().items() if k not in IRRELEVANT}
    if pictures.pixels != "stored":  # which earlier versions read without a name
        settings["pixels"] = pictures.pixels
    digest = hashlib.sha256(f"{encoder} {json.dumps(settings, sort_keys=True, default=str)}".encode())
    for image in image_ids:
        stat = pictures.path(image).stat()
        digest.update(f"\n{image} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def hash_encoder(encoder: PreTrainedModel) -> str:
    """A hash of an encoder's weights and configuration."""
    config = {k: v for k, v in encoder.config.to_dict().items() if k not in IRRELEVANT}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, value in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value.detach().float().cpu().numpy()).tobytes())
    return digest.hexdigest()


def extraction(
    model: str, encoder: Encoder, preparation: Preparation, *, fps: Fraction, batch_size: int
) -> dict[str, Any]:
    """What the vectors of an extraction follow from, beside the files, in plain data; `id` is a hash of the rest.

    A folder is named without its path, which may differ between machines; the hash of its weights tells it apart.

    Args:
        model: as `--model`.
        encoder: the model.
        preparation: its pre-processing.
        fps: moments a second of a film.
        batch_size: frames encoded together, which may change last digits.
    """
    inner = encoder.encoder if isinstance(encoder, VisionEncoder) else None
    found: dict[str, Any] = {
        "model": Path(model).resolve().name if Path(model).is_dir() else model,
        "revision": getattr(inner.config, "_commit_hash", None) if inner is not None else None,
        "weights": hash_encoder(inner) if inner is not None else None,
        "vector": encoder.kind.vector if isinstance(encoder, VisionEncoder) else "brightness",
        "clip_frames": encoder.clip_frames,
        "fps": str(fps),
        "batch_size": batch_size,
        "preparation": preparation.describe(),
        "versions": {name: _version(name) for name in ("av", "numpy", "pillow", "torch", "transformers")},
    }
    text = json.dumps(found, sort_keys=True, default=str)
    return {"id": hashlib.sha256(text.encode()).hexdigest()[:16], **json.loads(text)}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
