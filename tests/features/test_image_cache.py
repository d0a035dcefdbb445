"""Vectors of a frozen image encoder: computed once, found again, computed anew when what they follow from changes.

The commands that use the cache are tested in tests/systems/nrccr/test_image_runs.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nrccr.data.images import EncodedImages, Pictures, Vectors
from nrccr.data.items import Images, Visuals
from nrccr.data.pixels import clip_preprocessor
from nrccr.errors import UserError
from nrccr.features.fingerprint import fingerprint, hash_encoder
from nrccr.features.image_cache import ImageCache
from nrccr.models.image import ImageEncoder, build_image_encoder, image_config

CPU = torch.device("cpu")
Open = Callable[..., Images]


@pytest.fixture
def visual(tiny_clip: Path) -> ImageEncoder:
    torch.manual_seed(0)
    return ImageEncoder(24, 8, build_image_encoder(image_config(str(tiny_clip)), None))


@pytest.fixture
def images(tmp_path: Path) -> Open:
    """A function of the pixels' size: seven images of noise."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    ids = [f"image{number}" for number in range(7)]
    for name in ids:
        pixels = np.random.default_rng(len(list(folder.iterdir()))).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.jpg")

    def open_(size: int = 32) -> Images:
        return Images(Pictures(folder, clip_preprocessor(size)), ids, folder)

    return open_


def folders(cache: ImageCache) -> set[str]:
    return {path.name for path in cache.folder.iterdir()}


def vectors_of(visuals: Visuals) -> np.ndarray:
    assert isinstance(visuals, Images)
    return visuals.batch(range(len(visuals))).pixels_or_vectors.numpy()


def test_vectors_are_those_of_the_encoder_and_computed_once(
    visual: ImageEncoder, images: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ImageCache(tmp_path / "cache", visual, CPU, batch_size=3)
    raw = images()
    found = cache.encoded("toys-train", raw)
    assert isinstance(found, Images) and isinstance(found.source, EncodedImages)
    assert found.ids == raw.ids and found.width == 24
    alone = torch.cat([visual.encode(raw.batch([row]).pixels_or_vectors) for row in range(7)])
    np.testing.assert_allclose(vectors_of(found), alone.detach().numpy(), atol=1e-5)
    (name,) = folders(cache)
    assert name.startswith("toys-train-") and found.place == cache.folder / name

    def read(*_: object) -> None:
        raise AssertionError("an image was decoded again")

    monkeypatch.setattr(Pictures, "read", read)
    again = ImageCache(tmp_path / "cache", visual, CPU, batch_size=5).encoded("toys-train", images())
    np.testing.assert_array_equal(vectors_of(again), vectors_of(found))


def test_what_vectors_follow_from_is_in_the_folders_name(visual: ImageEncoder, images: Open, tmp_path: Path) -> None:
    assert visual.encoder is not None
    raw = images()
    assert isinstance(raw.source, Pictures)
    encoder = hash_encoder(visual.encoder)
    first = fingerprint(encoder, raw.source, raw.ids)
    assert first == fingerprint(encoder, raw.source, raw.ids)
    other_size = images(16).source
    assert isinstance(other_size, Pictures)
    changed = [fingerprint(encoder, other_size, raw.ids), fingerprint(encoder, raw.source, raw.ids[::-1])]
    as_shown = Pictures(raw.source.folder, raw.source.preprocess, "shown")
    changed.append(fingerprint(encoder, as_shown, raw.ids))
    Image.new("RGB", (60, 40), "red").save(raw.source.path("image3"))
    changed.append(fingerprint(encoder, raw.source, raw.ids))
    with torch.no_grad():
        next(visual.encoder.parameters()).view(-1)[0] += 1
    assert hash_encoder(visual.encoder) != encoder
    changed.append(fingerprint(hash_encoder(visual.encoder), raw.source, raw.ids))
    assert len({first, *changed}) == 6


def test_other_images_are_returned_as_they_are(visual: ImageEncoder, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.zeros((2, 24), np.float32))
    (tmp_path / "ids.txt").write_text("a b")
    given = Images(Vectors(tmp_path / "v.npy", tmp_path / "ids.txt"), ["b"], tmp_path / "v.npy")
    assert ImageCache(tmp_path / "cache", visual, CPU, 3).encoded("toys-train", given) is given
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_cannot_be_written_is_one_line(visual: ImageEncoder, images: Open, tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(UserError) as caught:
        ImageCache(tmp_path / "cache", visual, CPU, 3).encoded("toys-train", images())
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'cache'}/toys-train-") and "\n" not in said
    assert said.endswith("give another folder as image.cache=FOLDER")


def test_a_damaged_image_leaves_nothing_half_written(visual: ImageEncoder, images: Open, tmp_path: Path) -> None:
    raw = images()
    assert isinstance(raw.source, Pictures)
    raw.source.path("image6").write_bytes(b"text")
    cache = ImageCache(tmp_path / "cache", visual, CPU, 3)
    with pytest.raises(UserError, match="image6.jpg: cannot be read as an image"):
        cache.encoded("toys-train", raw)
    assert not cache.folder.exists() or not folders(cache)


def test_a_stopped_encoding_goes_on(
    visual: ImageEncoder, images: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ImageCache(tmp_path / "whole", visual, CPU, 2).encoded("toys-train", images())
    read: list[str] = []
    real = Pictures.read

    def stopped(self: Pictures, image_ids: list[str]) -> np.ndarray:
        if len(read) == 4:
            raise KeyboardInterrupt
        read.extend(image_ids)
        return real(self, image_ids)

    cache = ImageCache(tmp_path / "cache", visual, CPU, 2)
    monkeypatch.setattr(Pictures, "read", stopped)
    with pytest.raises(KeyboardInterrupt):
        cache.encoded("toys-train", images())
    (name,) = folders(cache)
    assert name.endswith(".partial") and read == [f"image{number}" for number in range(4)]
    read.clear()
    found = cache.encoded("toys-train", images())
    assert read == ["image4", "image5", "image6"] and folders(cache) == {name.removesuffix(".partial")}
    assert isinstance(whole, Images) and isinstance(found, Images)
    for file in whole.place.iterdir():
        assert (found.place / file.name).read_bytes() == file.read_bytes()
