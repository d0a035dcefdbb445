"""What a user may hand to the functions of a loaded model: arrays, tensors, lists, generators; all else is one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nrccr
from nrccr.errors import UserError
from nrccr.systems.retriever import Retriever

CAPTIONS = ["狗跑", "人唱水"]
VIDEOS = np.random.default_rng(0).standard_normal((2, 3, 16)).astype(np.float32)


@pytest.fixture
def model(trained: Path) -> Retriever:
    return nrccr.load(trained, device=torch.device("cpu"))


def one_line(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_captions(model: Retriever) -> None:
    expected = model.encode_text(CAPTIONS)
    for texts in (np.array(CAPTIONS), np.array(CAPTIONS, dtype=object), tuple(CAPTIONS), (text for text in CAPTIONS)):
        np.testing.assert_array_equal(model.encode_text(texts), expected)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (None, "caption 1 is of type NoneType"),
        (float("nan"), "caption 1 is of type float"),
        (3, "caption 1 is of type int"),
        (b"dog", "caption 1 is of type bytes"),
        ("", "caption 1 is empty"),
        ("\u200b\ufeff \u200d", "caption 1 is empty"),
        ("\udcca男", "caption 1 is no valid Unicode"),
    ],
)
def test_what_is_no_caption(model: Retriever, wrong: Any, says: str) -> None:
    assert says in one_line(lambda: model.encode_text(["狗", wrong]))


def test_what_is_no_list(model: Retriever) -> None:
    nothing: Any
    for nothing in (None, 3, "狗", b"dog", np.array("狗"), [], np.array([]), iter(())):
        assert "encode_text: " in one_line(lambda given=nothing: model.encode_text(given))  # type: ignore[misc]
    for nothing in (None, 3.0, "video", [], iter(())):
        assert "encode_video: " in one_line(lambda given=nothing: model.encode_video(given))  # type: ignore[misc]


def test_videos(model: Retriever) -> None:
    expected = model.encode_video([video for video in VIDEOS])
    wide = torch.from_numpy(VIDEOS).double().requires_grad_()
    backwards = np.ascontiguousarray(VIDEOS[:, :, ::-1])[:, :, ::-1]
    for videos in (VIDEOS, VIDEOS.tolist(), wide, list(wide), (video for video in VIDEOS), backwards):
        np.testing.assert_array_equal(model.encode_video(videos), expected)
    half = torch.from_numpy(VIDEOS).bfloat16()
    np.testing.assert_array_equal(model.encode_video(half), model.encode_video(half.float()))
    fixed = VIDEOS.copy()
    fixed.setflags(write=False)
    np.testing.assert_array_equal(model.encode_video(fixed), expected)


@pytest.mark.parametrize(
    "wrong", [None, "frames", [[1.0], [1.0, 2.0]], [["a"] * 16], [[None] * 16], [[1e300] * 16], {}]
)
def test_what_is_no_video(model: Retriever, wrong: Any) -> None:
    assert "encode_video: video 1 " in one_line(lambda: model.encode_video([VIDEOS[0], wrong]))


def test_load(trained: Path) -> None:
    wrong: Any
    assert nrccr.load(trained, device=torch.device("cpu")).device == torch.device("cpu")
    for wrong in (None, 3, b"run"):
        assert "path is of type" in one_line(lambda given=wrong: nrccr.load(given))  # type: ignore[misc]
    assert "text_model is of type" in one_line(lambda: nrccr.load(trained, text_model=wrong))
    assert "overrides: entry 1" in one_line(lambda: nrccr.load(trained, overrides=["seed=1", wrong]))
    for wrong in (None, 3, "seed=1", np.array(3), object()):
        assert "overrides" in one_line(lambda given=wrong: nrccr.load(trained, overrides=given))  # type: ignore[misc]
    for wrong in (3, 3.5, [], {}, object(), "tpu", b"cpu"):
        assert "unknown device" in one_line(lambda given=wrong: nrccr.load(trained, device=given))  # type: ignore[misc]


def test_a_home_that_nobody_has(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a shell, the folder is then one of that name."""
    monkeypatch.chdir(tmp_path)
    nobody = "~nobody-of-that-name/model"
    assert f"{nobody}: no such run folder" in one_line(lambda: nrccr.load(nobody))
    assert nobody in one_line(lambda: nrccr.load(trained, text_model=nobody))
    nrccr.load(trained).save_pretrained(nobody)
    assert nrccr.load(nobody).encode_text(CAPTIONS).shape == (2, 24)
