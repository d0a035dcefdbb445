"""The vectors of a collection's images: a `.npy` file a split, or a feature folder as `nrccr extract` makes it."""

from __future__ import annotations

from nrccr.data.bigfile import BigFile
from nrccr.data.collections import Collection, SplitName
from nrccr.data.images import EncodedImages, Vectors


def open_vectors(collection: Collection, split: SplitName) -> Vectors | EncodedImages:
    """The vectors of a split's images; a feature folder holds those of all splits.

    Raises:
        UserError: neither is there, or damaged.
    """
    if (collection.features / "shape.txt").is_file():
        return EncodedImages(BigFile(collection.features))
    return Vectors(*collection.vectors(split))
