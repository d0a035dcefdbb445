"""The commands on a collection of images: vectors, raw images through a tiny CLIP, its cache, its training."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import nrccr
from nrccr.data.images import Pictures
from nrccr.data.items import Images
from nrccr.errors import UserError
from nrccr.evaluation.encode import encode_visuals
from nrccr.models.image import ImageEncoder
from nrccr.safeload.unpickle import load_weights
from nrccr.systems.nrccr.data import Reader
from nrccr.systems.retriever import Retriever
from nrccr.systems.settings import load_config

Command = Callable[..., Any]
CLIP = ("visual.kind=clip",)


def metrics_of(folder: Path, split: str = "test") -> dict[str, Any]:
    return json.loads((folder / split / "metrics.json").read_text())


def image_weights(run: Path) -> dict[str, torch.Tensor]:
    return {k: v for k, v in load_weights(run / "model.safetensors").items() if k.startswith("visual.encoder.")}


def test_vectors_train_test_and_resume(image_run: Command, tmp_path: Path, tiny_images: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    done = image_run("train", "--out", whole, "--test")
    assert done.code == 0, done.err
    assert "train: 24 captions, 12 items" in done.out and "text to image" in done.out
    assert metrics_of(whole)["items"] == 8 and metrics_of(whole)["target_weight"] == 0.5
    assert image_run("train", "--out", halves, "train.epochs=1").code == 0
    assert image_run("train", "--out", halves, "--resume").code == 0
    weights, wanted = (load_weights(folder / "model.safetensors") for folder in (halves, whole))
    assert all(torch.equal(weights[name], value) for name, value in wanted.items())
    model = nrccr.load(whole)
    assert model.feature_width == 16
    vectors = np.load(tiny_images / "multi30k/FeatureData/resnet_152/val-resnet_152-avgpool.npy")
    embedded = model.encode_image([*vectors])
    assert embedded.shape == (8, 24)
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-5)


def test_clip_reads_its_cache_in_later_epochs_and_runs(
    image_run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every image is decoded once: an epoch, a run and a test that need it again find its vector."""
    decoded: list[str] = []
    read = Pictures.read

    def counted(self: Pictures, image_ids: Any) -> Any:
        decoded.extend(image_ids)
        return read(self, image_ids)

    monkeypatch.setattr(Pictures, "read", counted)
    done = image_run("train", "--out", tmp_path / "first", *CLIP)
    assert done.code == 0, done.err
    assert sorted(decoded) == sorted([f"train{i}" for i in range(12)] + [f"val{i}" for i in range(8)])
    assert {name.rpartition("-")[0] for name in os.listdir(tmp_path / "cache")} == {"multi30k-train", "multi30k-val"}
    decoded.clear()
    assert image_run("train", "--out", tmp_path / "second", *CLIP).code == 0
    assert decoded == []
    assert image_run("test", tmp_path / "first", "--task", "text-to-text").code == 0
    assert decoded == []  # captions alone are encoded
    for name in ("first", "second"):
        assert image_run("test", tmp_path / name).code == 0
    assert sorted(decoded) == sorted(f"test{i}" for i in range(8))
    assert metrics_of(tmp_path / "first")["SumR"] == metrics_of(tmp_path / "second")["SumR"]


def test_training_and_test_see_images_as_the_switch_says(image_run: Command, tmp_path: Path, tiny_images: Path) -> None:
    """The cache of one reading is not the other's; check, training and test agree."""
    for folder, reading in (("a", "released"), ("b", "corrected")):
        options = (*CLIP, f"reading={reading}", "train.epochs=1")
        assert image_run("check", *options).code == 0
        assert image_run("train", "--out", tmp_path / folder, *options).code == 0
        assert image_run("test", tmp_path / folder).code == 0
        assert len(os.listdir(tmp_path / "cache")) == (3 if folder == "a" else 6)
        assert metrics_of(tmp_path / folder)["switches"]["pixels"] == {"a": "stored", "b": "shown"}[folder]
    picture = tiny_images / "multi30k" / "flickr30k-images" / "test3.jpg"
    Image.fromarray(np.ones((40, 40), dtype=np.int32)).save(picture, format="TIFF")
    assert image_run("check", *CLIP).code == 0 and image_run("test", tmp_path / "a").code == 0
    assert "1 files are no images (test3)" in image_run("check", *CLIP, "switches.pixels=shown").out
    refused(image_run("test", tmp_path / "b"), "test3.jpg: cannot be read as an image", "8 or 16 bits")


def test_a_run_does_not_choose_where_a_test_writes_its_cache(
    image_run: Command, nrccr_command: Command, tmp_path: Path, tiny_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert image_run("train", "--out", tmp_path / "run", *CLIP, "--test").code == 0
    assert len(os.listdir(tmp_path / "cache")) == 3, "right after the training, --test does write there"
    shutil.rmtree(tmp_path / "cache")
    test = ("test", tmp_path / "run", "--root", tiny_images, "--device", "cpu")
    assert nrccr_command(*test).code == 0
    assert not (tmp_path / "cache").exists() and len(os.listdir(tmp_path / "runs" / "image-features")) == 1
    assert nrccr_command(*test, "image.cache=elsewhere").code == 0
    assert len(os.listdir(tmp_path / "elsewhere")) == 1


def test_a_run_with_clip_stands_alone(image_run: Command, tmp_path: Path, tiny_images: Path, tiny_clip: Path) -> None:
    """Its folder holds the encoder's weights, configuration and pre-processing; cached == from the file."""
    run = tmp_path / "run"
    assert image_run("train", "--out", run, *CLIP, "data.workers=1").code == 0
    assert image_run("test", run, "evaluation.save_scores=true").code == 0
    assert load_config(run / "config.yaml").image.model == str(tiny_clip)
    model = nrccr.load(run)
    assert model.config.image.model == str(run / "image_encoder")
    folder = tiny_images / "multi30k" / "flickr30k-images"
    with np.load(run / "test" / "scores.npz") as arrays:
        names, cached = arrays["item_ids"].tolist(), arrays["visual"]
    files = [folder / f"{name}.jpg" for name in names]
    np.testing.assert_allclose(model.encode_image(files), cached, atol=1e-6)
    opened = [Image.open(path) for path in files]
    np.testing.assert_array_equal(model.encode_image(opened), model.encode_image(files))
    raw = [np.asarray(image.convert("RGB")) for image in opened]
    np.testing.assert_array_equal(model.encode_image(raw), model.encode_image(files))
    exif = Image.Exif()
    exif[0x0112] = 6  # a phone's: turn right to show it
    phone = tmp_path / "phone.png"
    opened[0].convert("RGB").transpose(Image.Transpose.ROTATE_90).save(phone, exif=exif)
    both = model.encode_image([phone, Image.open(phone)])
    np.testing.assert_allclose(both, np.repeat(model.encode_image(raw[:1]), 2, axis=0), atol=1e-6)
    with pytest.raises(UserError, match="image 1 cannot be read .*8 or 16 bits"):
        model.encode_image([phone, Image.fromarray(np.ones((2, 2), dtype=np.float32))])
    for wrong in (None, 3, {}, object()):
        with pytest.raises(UserError, match="image 1 is of type"):
            model.encode_image([phone, wrong])


def test_workers_decode_the_same_pixels(image_run: Command, tmp_path: Path, tiny_images: Path) -> None:
    run = tmp_path / "run"
    assert image_run("train", "--out", run, *CLIP).code == 0
    model = nrccr.load(run)
    reader = Reader.open(model.config, tiny_images, model.tokenizer, model.preprocess)
    images = reader.split("val").visuals
    assert isinstance(images, Images) and images.workers == 0
    alone = encode_visuals(model.network, images, 3, model.device)
    images.workers = 2
    assert torch.equal(encode_visuals(model.network, images, 3, model.device), alone)


def test_a_frozen_encoder_keeps_its_weights_and_a_trainable_one_changes(image_run: Command, tmp_path: Path) -> None:
    frozen, tuned = tmp_path / "frozen", tmp_path / "tuned"
    assert image_run("train", "--out", frozen, *CLIP).code == 0
    assert image_run("train", "--out", tuned, *CLIP, "image.trainable=true").code == 0
    before, after = image_weights(frozen), image_weights(tuned)
    assert before.keys() == after.keys() and before
    shorter = tmp_path / "shorter"
    assert image_run("train", "--out", shorter, *CLIP, "train.epochs=1").code == 0
    assert all(torch.equal(value, image_weights(shorter)[name]) for name, value in before.items())
    changed = [name for name, value in after.items() if not torch.equal(value, before[name])]
    assert any("layers.0.mlp" in name for name in changed)
    cached = os.listdir(tmp_path / "cache")
    assert image_run("test", tuned).code == 0
    assert os.listdir(tmp_path / "cache") == cached, "an encoder that trains has no cache"


def test_other_weights_settings_or_files_are_computed_anew(
    image_run: Command, tmp_path: Path, tiny_images: Path, tiny_clip: Path
) -> None:
    def names() -> set[str]:
        return {name for name in os.listdir(tmp_path / "cache") if name.startswith("multi30k-train-")}

    assert image_run("train", "--out", tmp_path / "a", *CLIP).code == 0
    first = names()
    assert image_run("train", "--out", tmp_path / "b", *CLIP, "seed=1").code == 0  # other random weights
    second = names() - first
    picture = tiny_images / "multi30k" / "flickr30k-images" / "train3.jpg"
    Image.new("RGB", (60, 40), "red").save(picture)
    assert image_run("train", "--out", tmp_path / "c", *CLIP).code == 0
    third = names() - first - second
    assert (len(first), len(second), len(third)) == (1, 1, 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_is_one_line_and_leaves_nothing(
    image_run: Command, tmp_path: Path, tiny_images: Path, workers: int
) -> None:
    picture = tiny_images / "multi30k" / "flickr30k-images" / "train5.jpg"
    picture.write_bytes(picture.read_bytes()[:300])
    done = image_run("train", "--out", tmp_path / "run", *CLIP, f"data.workers={workers}")
    assert done.code == 2 and len(done.err.splitlines()) == 1, done.err
    assert done.err.startswith(f"nrccr: {picture}: cannot be read as an image")
    assert not (tmp_path / "run").exists() and not list((tmp_path / "cache").glob("*"))


def refused(done: Any, *says: object) -> None:
    assert done.code == 2 and len(done.err.splitlines()) == 1, done.err
    assert all(str(part) in done.err for part in says), done.err


def test_bad_input_is_one_line(image_run: Command, tmp_path: Path, tiny_images: Path) -> None:
    out, folder = ("--out", tmp_path / "run"), tiny_images / "multi30k"
    refused(image_run("train", *out, *CLIP, "image.path=nowhere"), "nowhere", "image.path")
    refused(image_run("train", *out, "visual.kind=video"), "visual.kind=video", "holds images")
    refused(image_run("train", *out, "data.task=2"), "Flickr30ktrain_google_enc2de2enc.caption.txt")
    refused(image_run("train", *out, "data.task=3"), "data.task=3", "1 or 2")
    refused(image_run("train", *out, "data.collection=mscoco", "data.target=zh", "data.task=2"), "no second task")
    (folder / "flickr30k-images" / "val2.jpg").unlink()
    refused(image_run("train", *out, *CLIP), "1 of 8 images with captions are not there (val2)")
    vectors = folder / "FeatureData" / "resnet_152" / "val-resnet_152-avgpool.npy"
    np.save(vectors, np.ones((8, 15), np.float32))
    refused(image_run("train", *out), vectors, "15 wide", "16")
    assert not (tmp_path / "run").exists()


def test_a_test_wants_vectors_of_the_same_width(image_run: Command, tmp_path: Path, tiny_images: Path) -> None:
    run = tmp_path / "run"
    assert image_run("train", "--out", run).code == 0
    vectors = tiny_images / "multi30k" / "FeatureData" / "resnet_152" / "test_2016_flickr-resnet_152-avgpool.npy"
    np.save(vectors, np.ones((8, 15), np.float32))
    refused(image_run("test", run), vectors, "15 wide", "16")


def test_check(image_run: Command, tiny_images: Path) -> None:
    done = image_run("check")
    assert done.code == 0 and "no problems found" in done.out and "12 images, width 16" in done.out
    done = image_run("check", *CLIP)
    assert done.code == 0 and "no problems found" in done.out
    folder = tiny_images / "multi30k" / "flickr30k-images"
    (folder / "val2.jpg").unlink()
    (folder / "test3.jpg").write_text("no image")
    done = image_run("check", *CLIP)
    assert done.code == 2
    assert "1 of 8 items have no features (val2)" in done.out and "1 files are no images (test3)" in done.out


def test_queries_of_images_are_not_cleaned(image_run: Command, tmp_path: Path, tiny_images: Path) -> None:
    run = tmp_path / "run"
    assert image_run("train", "--out", run).code == 0
    model = nrccr.load(run)
    reader = Reader.open(model.config, tiny_images, model.tokenizer)
    path = reader.collection.split("val").source
    text = "a red, red dog"
    path.write_text(path.read_text().replace(path.read_text().split("\n")[0], f"val0#de2enc#0 {text}", 1))
    translations = reader.split("val").headline.translations
    assert translations is not None
    tokens = translations.batch([0]).tokens[0]
    wanted = model.tokenizer.encode([text]).batch([0]).tokens[0]
    assert tokens.tolist() == wanted.tolist()
    as_source, as_target = model.encode_text([text], role="source"), model.encode_text([text], role="target")
    np.testing.assert_array_equal(as_source, as_target)


@pytest.fixture
def trained_on_vectors(image_run: Command, tmp_path: Path) -> Retriever:
    assert image_run("train", "--out", tmp_path / "run", "train.epochs=1").code == 0
    return nrccr.load(tmp_path / "run")


def test_encode_image_refuses(trained_on_vectors: Retriever) -> None:
    good, bad = np.ones(16, np.float32), np.full(16, np.nan, np.float32)
    wrong: list[tuple[Any, str]] = [
        ([], "no images"),
        ([good, np.ones(15)], "image 1 is float64 (15,)"),
        ([bad], "image 0 holds a NaN"),
        (["picture.jpg"], "image 0 is raw"),
    ]
    for images, says in wrong:
        with pytest.raises(UserError) as caught:
            trained_on_vectors.encode_image(images)
        assert says in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="use encode_image"):
        trained_on_vectors.encode_video([np.ones((2, 16))])
    assert isinstance(trained_on_vectors.network.visual, ImageEncoder)
