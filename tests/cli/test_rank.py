"""`nrccr generate`, a run on it, `nrccr rank`: what the quick start does, small."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nrccr
from nrccr.data.bigfile import read_video_frames

Command = Callable[..., Any]
CONFIG = Path(__file__).resolve().parents[2] / "configs" / "nrccr" / "generated.yaml"
QUERIES = ["Eine große Drei wandert nach links.", "Links steht eine Acht."]


@pytest.fixture
def run(tmp_path: Path, nrccr_command: Command) -> Path:
    root = tmp_path / "root"
    made = nrccr_command("generate", root, "--videos", "12,4,6", "--captions", "2", "--noise", "20", "--seed", "1")
    assert made.code == 0 and "22 videos" in made.out and "noise20" in made.out, made.err
    options = ["train.epochs=1", "text.backbone.num_hidden_layers=1"]
    done = nrccr_command(
        "train", CONFIG, "--root", root, "--out", tmp_path / "run", "--device", "cpu", "--test", *options
    )
    assert done.code == 0 and done.err == "", done.err
    return tmp_path


def test_rank(run: Path, nrccr_command: Command) -> None:
    arguments = ["rank", run / "run", "--root", run / "root", "--device", "cpu"]
    picture = run / "queries.png"
    done = nrccr_command(*arguments, "--right", "test00001,test00004", "--top", "6", "--picture", picture, *QUERIES)
    assert done.code == 0 and done.err == "", done.err
    assert picture.read_bytes().startswith(b"\x89PNG")
    # The same by hand: one query, one video at a time.
    model = nrccr.load(run / "run", device="cpu")
    frames = _frames(run / "root")
    visual = np.concatenate([model.encode_video([frames[name]]) for name in frames])
    for query, right in zip(QUERIES, ("test00001", "test00004"), strict=True):
        scores = (model.encode_text([query]) @ visual.T)[0]
        order = [list(frames)[index] for index in np.argsort(-scores)]
        shown = [line for line in done.out.splitlines() if "test0000" in line]
        start = 0 if query == QUERIES[0] else 6
        assert [name for line in shown[start : start + 6] for name in frames if name in line] == order
        assert str(1 + order.index(right)) in shown[start].split("│")[-2]
        assert [right in line for line in shown[start : start + 6]] == [
            "*" in line for line in shown[start : start + 6]
        ]


def _frames(root: Path) -> dict[str, Any]:
    from nrccr.data.bigfile import BigFile

    folder = root / "generated" / "FeatureData" / "pixels"
    features = BigFile(folder)
    names = [name for name in read_video_frames(folder / "video2frames.txt") if name.startswith("test")]
    return {name: features.read([features.rows(name)])[0][0] for name in names}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--right", "test00001", *QUERIES], "--right names 1 items for 2 queries"),
        (["--right", "nobody", QUERIES[0]], "--right nobody"),
        (["--split", "train", QUERIES[0]], "--split train"),
        ([""], "caption 0 is empty"),
        (["--top", "0", QUERIES[0]], "--top"),
    ],
)
def test_bad_arguments(run: Path, nrccr_command: Command, arguments: list[str], says: str) -> None:
    done = nrccr_command("rank", run / "run", "--root", run / "root", "--device", "cpu", *arguments)
    assert done.code == 2 and says in done.err and done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--noise", "20,many"], "--noise 20,many"),
        (["--noise", "90"], "0.9"),
        (["--videos", "5,5"], "--videos 5,5"),
        (["--captions", "0"], "1 caption"),
    ],
)
def test_generate_refuses(tmp_path: Path, nrccr_command: Command, arguments: list[str], says: str) -> None:
    done = nrccr_command("generate", tmp_path / "root", *arguments)
    assert done.code == 2 and says in done.err and done.err.count("\n") == 1
    assert not (tmp_path / "root").exists()
