"""The pre-processing that published models name: which of them frames pass while they are converted."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from nrccr.errors import UserError
from nrccr.features.prepare import Resize, load_preparation
from tests.features import media

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "do_normalize": True}
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SQUARE = {"height": 224, "width": 224}
SCALED = {"do_resize": True, "do_rescale": True, "rescale_factor": 0.00392156862745098}
# model_type, preprocessor_config.json as published, and how frames are scaled; none where they pass it as images do.
PUBLISHED: dict[str, tuple[str, dict[str, object], Resize | None]] = {
    "dinov2-base": (
        "dinov2",
        {**IMAGENET, **SCALED, "image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256},
         "crop_size": SQUARE, "do_center_crop": True, "resample": 3},
        Resize(256, None, (224, 224), 3, MEAN, DEVIATION),
    ),
    "dinov3-vitb16": (
        "dinov3_vit",
        {**IMAGENET, **SCALED, "image_processor_type": "DINOv3ViTImageProcessorFast", "size": SQUARE, "resample": 2,
         "crop_size": None, "do_center_crop": None},
        Resize(None, (224, 224), None, 2, MEAN, DEVIATION),
    ),
    "vit-base": (
        "vit",
        {**IMAGENET, **SCALED, "image_processor_type": "ViTImageProcessor", "size": SQUARE, "resample": 2},
        Resize(None, (224, 224), None, 2, MEAN, DEVIATION),
    ),
    "videomae-base": (
        "videomae",
        {**IMAGENET, "feature_extractor_type": "VideoMAEFeatureExtractor", "do_center_crop": True, "do_resize": True,
         "resample": 2, "size": 224},
        Resize(224, None, (224, 224), 2, MEAN, DEVIATION),
    ),
    "resnet-50": (
        "resnet",
        {**IMAGENET, "feature_extractor_type": "ConvNextFeatureExtractor", "crop_pct": 0.875, "do_resize": True,
         "resample": 3, "size": 224},
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings_are_understood(name: str, tmp_path: Path) -> None:
    kind, settings, resize = PUBLISHED[name]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(UserError, match="no pre-processing of images there"):
        load_preparation(str(tmp_path))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    preparation = load_preparation(str(tmp_path))
    assert preparation.resize == resize
    frame = av.VideoFrame.from_ndarray(media.picture(0, (300, 260)), format="rgb24")
    pixels = preparation.batch([preparation.frame(frame)], torch.device("cpu"))["pixel_values"]
    assert pixels.shape == (1, 3, 224, 224)
    if resize is not None and preparation.processor is not None:
        image = preparation.image(media.Image.fromarray(media.picture(0, (300, 260))))["pixel_values"]
        assert np.abs(pixels[0].numpy() - image).mean() < 0.1
