"""Small collections written for a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nrccr.data.bigfile import write_bigfile

SPLITS = {
    "train": {"{c}train": "enc", "{c}train_google_enc2zh": "enc2zh", "{c}train_google_enc2zh2enc": "enc2zh2enc"},
    "val": {"{c}val_google_zh2enc": "zh2enc", "{c}val_zh": "zh"},
    "test": {"{c}test_google_zh2enc": "zh2enc", "{c}test_zh": "zh"},
}

MakeCollection = Callable[..., Path]


@pytest.fixture
def make_collection(tmp_path: Path) -> MakeCollection:
    """A function that writes a collection and returns the root.

    Every split has two videos (`train0`, `train1`, `val0`, ...) with two captions each; videos have 1, 2, ... frames,
    width 4. Caption files are named after the collection unless a prefix is given.
    """

    def make(collection: str = "vatex", prefix: str | None = None) -> Path:
        root = tmp_path / "VisualSearch"
        text = root / collection / "TextData"
        text.mkdir(parents=True)
        videos = [f"{split}{index}" for split in SPLITS for index in range(2)]
        for split, files in SPLITS.items():
            for name, tag in files.items():
                path = text / (name.format(c=prefix or collection) + ".caption.txt")
                ids = [f"{split}{index}#{tag}#{k}" for index in range(2) for k in range(2)]
                path.write_text("".join(f"{caption} a caption\n" for caption in ids), encoding="utf-8")
        random = np.random.default_rng(0)
        frames = [(video, random.random((count, 4))) for count, video in enumerate(videos, start=1)]
        feature = "i3d_kinetics" if collection == "vatex" else "resnext101-resnet152"
        write_bigfile(root / collection / "FeatureData" / feature, frames)
        return root

    return make
