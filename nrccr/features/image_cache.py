"""The vectors of a frozen image encoder, computed once and kept on disk for later epochs and runs."""

from __future__ import annotations

from pathlib import Path

import torch
from tqdm import tqdm

from nrccr.data.bigfile import BigFile
from nrccr.data.images import EncodedImages, Pictures
from nrccr.data.items import Images, Visuals, load_batches
from nrccr.data.sampling import ordered_batches
from nrccr.distributed import moved
from nrccr.features.cache import make_once
from nrccr.features.fingerprint import fingerprint, hash_encoder
from nrccr.features.store import Store
from nrccr.models.image import ImageEncoder
from nrccr.models.layers import evaluating
from nrccr.processes import as_first, own_part


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
        assert visual.encoder is not None
        self._weights = hash_encoder(visual.encoder)

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
        place = self.folder / f"{name}-{fingerprint(self._weights, images.source, images.ids)}"
        make_once(
            place,
            {"encoder": self._weights, "batch_size": self.batch_size},
            encode=lambda store: self._encode(store, images),
            finish=lambda store: store.finish(images.ids),
            key="image.cache",
        )
        return Images(EncodedImages(BigFile(place)), images.ids, place)

    def _encode(self, store: Store, images: Images) -> None:
        """Encode what nobody has kept; of several processes each encodes some batches, into files of its own."""
        kept = store.parts()
        lacks = as_first(torch.tensor([int(image not in kept) for image in images.ids]))
        every = ordered_batches(images.lengths, self.batch_size, by_length=False)
        batches = own_part([chosen for chosen in every if lacks[torch.from_numpy(chosen)].any()])
        bar = tqdm(total=sum(map(len, batches)), desc="image encoder", unit="", disable=None, leave=False)
        with evaluating(self.visual), bar as progress:
            for chosen, batch in zip(batches, moved(load_batches(images, batches), self.device), strict=True):
                pixels = batch.pixels_or_vectors  # type: ignore[union-attr]
                vectors = self.visual.encode(pixels).float().cpu().numpy()  # (batch, D)
                store.add([(images.ids[index], [], row[None]) for index, row in zip(chosen, vectors, strict=True)])
                progress.update(len(chosen))
