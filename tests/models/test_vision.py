"""Folders of vision models that are none: one line, and no pipe is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nrccr.errors import UserError
from nrccr.features.prepare import load_preparation
from nrccr.models.vision import vision_config

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"
TINY = '{"model_type": "dinov3_vit", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}'


@pytest.mark.parametrize(
    "content",
    ["", "[]", "3", '{"model_type": []}', '{"model_type": {}}', '{"model_type": "clip", "vision_config": 3}',
     '{"model_type": "dinov2", "hidden_size": {}}', "[" * 100_000, POINTER, "pipe"],
)  # fmt: skip
def test_a_configuration_that_is_none(content: str, tmp_path: Path) -> None:
    if content == "pipe":
        os.mkfifo(tmp_path / "config.json")
    else:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match="no configuration there|no kind of vision model|a git-lfs pointer"):
        vision_config(str(tmp_path))


@pytest.mark.parametrize("size", ["3", '{"height": 0, "width": 3}', '{"height": "a", "width": []}', "[[]]"])
def test_a_pre_processing_that_does_not_work(size: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(TINY)
    (tmp_path / "preprocessor_config.json").write_text(f'{{"size": {size}, "image_mean": "x"}}')
    with pytest.raises(UserError, match="no pre-processing of images there"):
        load_preparation(str(tmp_path))
