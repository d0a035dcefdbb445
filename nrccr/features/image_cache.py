"""The vectors of a frozen image encoder, computed once and kept on disk for later epochs and runs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from nrccr.data.bigfile import BigFile, write_bigfile
from nrccr.data.images import EncodedImages, Pictures
from nrccr.data.items import Images, Visuals
from nrccr.data.sampling import ordered_batches
from nrccr.errors import UserError, first_line
from nrccr.evaluation.encode import load_batches
from nrccr.models.image import ImageEncoder
from nrccr.models.layers import evaluating

# What a configuration holds besides what an encoder computes.
NO_MATTER = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures")


class ImageCache:
    """Folders `NAME-FINGERPRINT` of vectors; the fingerprint covers weights, pre-processing and image files.

    Args:
        folder: where they lie; made when it is needed.
        visual: the visual branch, with a frozen encoder, on `device`.
        device: where to compute.
        batch_size: images encoded together.
    """

    def __init__(self, folder: Path, visual: ImageEncoder, device: torch.device, batch_size: int) -> None:
        self.folder = folder
        self.visual = visual
        self.device = device
        self.batch_size = batch_size
        self._weights = _hash_weights(visual)

    def encoded(self, name: str, images: Visuals) -> Visuals:
        """The images as vectors of the encoder: read from their folder, or computed and written first.

        Args:
            name: of collection and split, for the folder's name.
            images: raw images; anything else is returned as it is.

        Raises:
            UserError: a damaged image or a folder that cannot be written.
        """
        if not isinstance(images, Images) or not isinstance(images.source, Pictures):
            return images
        place = self.folder / f"{name}-{self.fingerprint(images.source, images.ids)}"
        if not place.is_dir():
            self._write(place, images)
        return Images(EncodedImages(BigFile(place)), images.ids, place)

    def fingerprint(self, pictures: Pictures, image_ids: Sequence[str]) -> str:
        """A hash of the encoder, the pre-processing, and every image's id, size and time of change."""
        settings = {k: v for k, v in pictures.preprocess.describe().items() if k not in NO_MATTER}
        digest = hashlib.sha256(f"{self._weights} {json.dumps(settings, sort_keys=True, default=str)}".encode())
        for image in image_ids:
            stat = pictures.path(image).stat()
            digest.update(f"\n{image} {stat.st_size} {stat.st_mtime_ns}".encode())
        return digest.hexdigest()[:16]

    def _write(self, place: Path, images: Images) -> None:
        own = place.with_name(f"{place.name}.{os.getpid()}")  # another run may compute the same
        try:
            write_bigfile(own, self._vectors(images))
            if not place.is_dir():
                os.rename(own, place)
        except OSError as error:
            raise UserError(
                f"{place}: cannot be written ({first_line(error)}); give another folder as image.cache=FOLDER"
            ) from error
        finally:
            shutil.rmtree(own, ignore_errors=True)

    def _vectors(self, images: Images) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        batches = [*ordered_batches(images.lengths, self.batch_size, by_length=False)]
        bar = tqdm(total=len(images), desc="image encoder", unit="", disable=None, leave=False)
        with evaluating(self.visual), bar as progress:
            for chosen, batch in zip(batches, load_batches(images, batches), strict=True):
                pixels = batch.to(self.device).pixels_or_vectors  # type: ignore[union-attr]
                vectors = self.visual.encode(pixels).float().cpu().numpy()  # (batch, D)
                yield from ((images.ids[i], row[None]) for i, row in zip(chosen, vectors, strict=True))
                progress.update(len(chosen))


def _hash_weights(visual: ImageEncoder) -> str:
    """A hash of the encoder's weights and configuration."""
    assert visual.encoder is not None
    config = {k: v for k, v in visual.encoder.config.to_dict().items() if k not in NO_MATTER}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, value in sorted(visual.encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value.detach().float().cpu().numpy()).tobytes())
    return digest.hexdigest()
