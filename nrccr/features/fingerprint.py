"""A fingerprint of what image vectors depend on: encoder, pre-processing, files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedModel

from nrccr.data.images import Pictures

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
