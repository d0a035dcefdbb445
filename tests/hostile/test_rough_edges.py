"""What is not quite the file, the name or the number that it should be: each is told as what it is."""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nrccr
from nrccr.cli.options import integers
from nrccr.errors import UserError
from nrccr.systems.settings import load_config

Command = Callable[..., Any]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"
FEATURES = "vatex/FeatureData/i3d_kinetics"


def one_line(done: Any, *says: object) -> None:
    assert done.code == 2 and len(done.err.splitlines()) == 1, done
    assert all(str(words) in done.err for words in says), done.err


@pytest.mark.parametrize(
    "name",
    [
        *(f"{FEATURES}/{name}" for name in ("feature.bin", "id.txt", "shape.txt", "video2frames.txt")),
        "vatex/TextData/vatextrain.caption.txt",
        "vatex/TextData/vatextrain_google_enc2zh.caption.txt",
    ],
)
def test_a_pointer_in_a_collection(start: Command, tiny_collection: Path, name: str) -> None:
    (tiny_collection / name).write_text(POINTER)
    one_line(start(), name, "a git-lfs pointer", "git lfs pull")


@pytest.mark.parametrize(
    "name", ["config.yaml", "model.safetensors", "backbone/config.json", "backbone/tokenizer.json"]
)
def test_a_pointer_in_a_run(run_test: Command, trained: Path, name: str) -> None:
    (trained / name).write_text(POINTER)
    one_line(run_test(trained), name, "a git-lfs pointer")


def test_a_pointer_for_a_state_a_checkpoint_or_scores(
    run_test: Command, nrccr_command: Command, tiny_config: Path, tiny_collection: Path, trained: Path, tmp_path: Path
) -> None:
    (trained / "last/state.pt").write_text(POINTER)
    resume = ("train", tiny_config, "--root", tiny_collection, "--out", trained, "--device", "cpu", "--resume")
    one_line(nrccr_command(*resume, "train.epochs=4"), "state.pt: a git-lfs pointer")
    (tmp_path / "model_best.pth.tar").write_text(POINTER)
    one_line(run_test(tmp_path), "model_best.pth.tar: a git-lfs pointer")
    (tmp_path / "scores.npy").write_text(POINTER)
    scores = ("qbnorm", "--sims_test_path", tmp_path / "scores.npy", "--method", "dsl")
    one_line(nrccr_command(*scores), "scores.npy: a git-lfs pointer")


@pytest.mark.parametrize("name", ["vocab.txt", "config.json", "model.safetensors"])
def test_a_pointer_in_a_backbone(start: Command, tiny_bert: Path, tmp_path: Path, name: str) -> None:
    bert = Path(shutil.copytree(tiny_bert, tmp_path / "bert"))
    (bert / name).write_text(POINTER)
    one_line(start(f"text.model={bert}"), bert / name, "a git-lfs pointer")


def test_a_pointer_among_images(image_run: Command, tiny_images: Path, tmp_path: Path) -> None:
    vectors = tiny_images / "multi30k/FeatureData/resnet_152/val-resnet_152-avgpool.npy"
    picture = tiny_images / "multi30k/flickr30k-images/train3.jpg"
    for path, options in ((picture, ["visual.kind=clip"]), (vectors, [])):
        path.write_text(POINTER)
        one_line(image_run("train", "--out", tmp_path / "run", *options), path, "a git-lfs pointer")


def test_an_id_that_a_third_file_has_too_is_not_called_other_characters(start: Command, tiny_collection: Path) -> None:
    path = tiny_collection / "vatex/TextData/vatextrain_google_enc2zh.caption.txt"
    path.write_text(path.read_text(encoding="utf-8").replace("train1#", "train1.mp4#"), encoding="utf-8")
    done = start()
    one_line(done, "vatextrain.caption.txt", "(train1#enc#0, train1#enc#1)")
    assert "look the same" not in done.err


def test_id_txt_with_a_byte_order_mark_or_in_utf_8(start: Command, tiny_collection: Path) -> None:
    ids, frames = (tiny_collection / FEATURES / name for name in ("id.txt", "video2frames.txt"))
    before = ids.read_bytes()
    ids.write_bytes(b"\xef\xbb\xbf" + before)
    one_line(start(), ids, "begins with a byte order mark")
    for path, encoding in ((ids, "utf-8"), (frames, "utf-8")):
        text = before.decode() if path == ids else frames.read_text()
        path.write_text(text.replace("train3_0", "träin3_0"), encoding=encoding)
    one_line(start(), ids, "'träin3_0' is written in UTF-8; save the file in Latin-1")
    ids.write_text(before.decode().replace("train3_0", "träin3_0"), encoding="latin-1")
    assert start().code == 0


def test_features_that_look_right(nrccr_command: Command, tiny_config: Path, tiny_collection: Path) -> None:
    path = tiny_collection / FEATURES / "feature.bin"
    values = np.fromfile(path, dtype="<f4").reshape(-1, 16)
    values[0], values[1, 3] = 0, 3e38
    values.tofile(path)
    done = nrccr_command("check", tiny_config, "--root", tiny_collection)
    assert done.code == 2 and "problem: " in done.out and "1 frames hold numbers above 1e+18" in done.out
    assert "note: " in done.out and "1 frames hold zeros alone (train0_0)" in done.out


def test_vectors_that_look_right(image_run: Command, tiny_images: Path) -> None:
    path = tiny_images / "multi30k/FeatureData/resnet_152/val-resnet_152-avgpool.npy"
    values = np.load(path)
    values[0], values[1, 3] = 0, 3e38
    np.save(path, values)
    done = image_run("check")
    assert done.code == 2 and "1 vectors hold numbers above 1e+18" in done.out
    assert "1 vectors hold zeros alone (val0)" in done.out


def test_names_of_videos_that_look_the_same(
    start: Command, nrccr_command: Command, tiny_config: Path, tiny_collection: Path
) -> None:
    frames = tiny_collection / FEATURES / "video2frames.txt"
    frames.write_text(frames.read_text().replace("'train3':", "'tr\u00e4in3':"), encoding="utf-8")
    for path in (tiny_collection / "vatex/TextData").glob("vatextrain*"):
        text = path.read_text(encoding="utf-8").replace("train3#", unicodedata.normalize("NFD", "träin3#"))
        path.write_text(text, encoding="utf-8")
    one_line(start(), "no features", "looks the same as 'tr\\xe4in3'", "NFC and NFD")
    assert "looks the same as 'tr\\xe4in3'" in nrccr_command("check", tiny_config, "--root", tiny_collection).out


def test_home(trained: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No shell puts the home in after `key=`; a run folder does not learn of it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "c.yaml").write_text("image: {path: ~/pictures}\n")
    found = load_config(tmp_path / "c.yaml", ["text.model=~/bert", "image.cache='~/cache'"])
    assert (found.text.model, found.image.path) == (f"{tmp_path}/bert", f"{tmp_path}/pictures")
    assert found.image.cache == f"{tmp_path}/cache"
    assert load_config(tmp_path / "c.yaml", alone=True).image.path == "~/pictures"
    shutil.copytree(tiny_bert, tmp_path / "bert")
    assert nrccr.load("~/run", text_model="~/bert").config.text.model == f"{tmp_path}/bert"


def test_home_in_options(nrccr_command: Command, tiny_config: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    one_line(nrccr_command("check", tiny_config, "--root=~/VS"), f"{tmp_path}/VS")


def test_digits_with_underscores(start: Command, tiny_collection: Path) -> None:
    one_line(start("train.epochs=1_000"), "train.epochs: '1_000' has the wrong type; it must be a whole number")
    for text in ("1_0", "+1", "\u0661", "1.0", ""):
        with pytest.raises(UserError, match="--seeds"):
            integers("--seeds", text)
    assert integers("--seeds", "0, 12") == [0, 12]
    shape = tiny_collection / FEATURES / "shape.txt"
    shape.write_text(shape.read_text().replace("1", "1_", 1))
    one_line(start(), shape, "two positive integers")


def test_a_backbone_named_in_other_bytes(trained: Path, tiny_bert: Path, tmp_path: Path) -> None:
    bert = tmp_path / os.fsdecode(b"\xca\xd3")
    shutil.copytree(tiny_bert, bert)
    model = nrccr.load(Path(shutil.copytree(trained, bert / "run")), text_model=bert)
    np.testing.assert_array_equal(model.encode_text(["狗跑"]), nrccr.load(trained).encode_text(["狗跑"]))
