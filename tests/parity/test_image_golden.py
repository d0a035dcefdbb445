"""The golden image checkpoints, ResNet-152 and CLIP: embeddings as the published code computes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nrccr
from nrccr.data.batch import ImageBatch, TextBatch
from nrccr.systems.retriever import Retriever


@pytest.fixture(scope="session", params=["resnet152", "clip"])
def folder(request: pytest.FixtureRequest, shared: Path) -> Path:
    return shared / "golden" / "nrccr_image" / str(request.param)


@pytest.fixture(scope="session")
def model(folder: Path, write_bert: Callable[[dict[str, Any]], Path]) -> Retriever:
    """The checkpoint with a backbone of the sizes that the golden file names."""
    sizes = json.loads((folder / "expected.json").read_text())["bert"]
    return nrccr.load(folder / "runs_0", text_model=str(write_bert(sizes)))


def test_images(folder: Path, model: Retriever) -> None:
    with np.load(folder / "inputs.npz") as given, np.load(folder / "expected.npz") as wanted:
        images = torch.from_numpy(given["images"])
        embedded = model.network.embed_visual(ImageBatch(images)).numpy()
        np.testing.assert_allclose(embedded, wanted["video"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("batch", ["first", "second"])
def test_captions(folder: Path, model: Retriever, batch: str) -> None:
    with np.load(folder / "inputs.npz") as given, np.load(folder / "expected.npz") as wanted:
        text = TextBatch(torch.from_numpy(given[f"{batch}_ids"]), torch.from_numpy(given[f"{batch}_mask"]))
        np.testing.assert_allclose(model.network.embed_text(text).numpy(), wanted[batch], atol=1e-5, rtol=0)


def test_what_the_options_say(folder: Path, model: Retriever) -> None:
    config = model.config
    assert config.visual.kind == ("clip" if folder.name == "clip" else "vectors")
    assert (config.data.collection, config.data.task, config.data.target) == ("multi30k", 2, "de")
    assert config.evaluation.target_weight == 0.5 and config.adversary.discriminator == "not-so-weak"
    assert (model.preprocess is not None) == (folder.name == "clip")


def test_raw_images_need_no_hub(folder: Path, model: Retriever) -> None:
    """A published CLIP brings all it needs: weights, and from their shapes the size of its pixels."""
    if model.preprocess is None:
        pytest.skip("takes vectors, no raw images")
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    assert model.encode_image([pixels, pixels]).shape == (2, 48)
