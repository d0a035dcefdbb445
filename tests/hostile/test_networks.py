"""What a configuration describes and trained weights do not fill is not built; images of strangers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from nrccr.data.images import PictureFiles
from nrccr.data.pixels import FORMATS, load_picture
from nrccr.errors import UserError
from nrccr.models.budget import Budget
from nrccr.models.statedicts import Trained


def test_a_network_within_the_budget_is_the_same() -> None:
    torch.manual_seed(0)
    free = nn.GRU(8, 16)
    torch.manual_seed(0)
    with Budget(Trained(free.state_dict(), Path("w"))):
        held = nn.GRU(8, 16)
    assert all(torch.equal(value, free.state_dict()[name]) for name, value in held.state_dict().items())


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Linear(30_000_000, 1_000),
        lambda: nn.Embedding(10**9, 768),
        lambda: nn.GRU(16, 100_000),
        lambda: nn.ModuleList(nn.Linear(1000, 1000) for _ in range(10**6)),
        lambda: torch.arange(10**10),
        lambda: torch.zeros(10**10),
    ],
)
def test_more_than_the_weights_is_not_built(build: object) -> None:
    assert callable(build)
    with (
        Budget(Trained({"a": torch.zeros(2)}, Path("weights"))),
        pytest.raises(UserError, match="weights: its weights"),
    ):
        build()


@pytest.mark.parametrize("kind", FORMATS)
def test_listed_formats_are_read(kind: str, tmp_path: Path) -> None:
    Image.fromarray(np.full((9, 7, 3), 200, np.uint8)).save(tmp_path / "a.jpg", format=kind)
    assert load_picture(tmp_path / "a.jpg").size == (7, 9) and PictureFiles(tmp_path).unreadable(["a"]) is None


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("kind", ["eps", "ppm", "ico", "pixels", "narrow", "text", "empty"])
def test_other_images_are_refused_and_checked(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, marker = tmp_path / "a.jpg", tmp_path / "ran"
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {marker}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    if kind in ("eps", "text", "empty"):
        path.write_bytes({"eps": EPS, "text": b"hello", "empty": b""}[kind])
    elif kind in ("ppm", "ico"):
        Image.new("RGB", (16, 16)).save(path, format=kind.upper())
    else:
        Image.new("1", (9000, 9000) if kind == "pixels" else (3000, 2)).save(path, format="PNG")
    with pytest.raises(UserError, match="cannot be read as an image") as caught:
        load_picture(path)
    assert "\n" not in str(caught.value) and not marker.exists()
    assert "1 files are no images" in str(PictureFiles(tmp_path).unreadable(["a"]))


def test_an_image_is_a_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")  # to open one waits for a writer
    with pytest.raises(UserError, match="not a regular file"):
        load_picture(tmp_path / "a.jpg")
