"""What each bad input prints: one line that names what is wrong, exit code 2, and nothing is written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nrccr.data.bigfile import write_bigfile

Command = Callable[..., Any]


def refused(done: Any, *says: object) -> None:
    """The command ended with exit code 2 and one line that says all of this."""
    assert done.code == 2, done
    assert len(done.err.splitlines()) == 1 and done.err.startswith("nrccr: "), done.err
    for words in says:
        assert str(words) in done.err


def text_of(root: Path, name: str) -> Path:
    return root / "vatex" / "TextData" / f"{name}.caption.txt"


def features_of(root: Path) -> Path:
    return root / "vatex" / "FeatureData" / "i3d_kinetics"


# What spoils the collection, and what the one line must name.


def truncate(root: Path) -> list[object]:
    path = features_of(root) / "feature.bin"
    path.write_bytes(path.read_bytes()[:-4])
    return [path, "truncated"]


def poison(root: Path) -> list[object]:
    path = features_of(root) / "feature.bin"
    values = np.fromfile(path, dtype=np.float32)
    values[3] = values[-1] = np.nan
    values.tofile(path)
    return [path, "NaN"]


def lose_translation(root: Path) -> list[object]:
    for split in ("vatextrain_google_enc2zh", "vatextest_google_zh2enc"):
        text_of(root, split).unlink()
    return [root / "vatex" / "TextData", ".caption.txt"]


def empty_captions(root: Path) -> list[object]:
    for name in ("vatextrain", "vatextest_zh"):
        path = text_of(root, name)
        lines = path.read_text(encoding="utf-8").split("\n")
        lines[4] = lines[4].split(" ")[0]
        path.write_text("\n".join(lines), encoding="utf-8")
    return [".caption.txt:5: ", "no text"]


def lose_features(root: Path) -> list[object]:
    path = features_of(root) / "video2frames.txt"
    path.write_text(path.read_text().replace("'train3':", "'trainX':").replace("'test3':", "'testX':"))
    return [features_of(root), "no features"]


def lose_folder(root: Path) -> list[object]:
    shutil.rmtree(root / "vatex")
    return [root, "vatex"]


def run_code(root: Path) -> list[object]:
    path = features_of(root) / "video2frames.txt"
    path.write_text(f"__import__('os').system('touch {root / 'ran'}')")
    return [path, "not plain data"]


SPOILED = [truncate, poison, lose_translation, empty_captions, lose_features, lose_folder, run_code]


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__)
def test_a_spoiled_collection_stops_training_and_testing(
    start: Command, run_test: Command, trained: Path, tiny_collection: Path, spoil: Callable[[Path], list[object]]
) -> None:
    says = spoil(tiny_collection)
    refused(start(), *says)
    refused(run_test(trained), *says)
    assert not (trained / "test").exists() and not (tiny_collection / "ran").exists()


def test_features_of_another_width_at_test(run_test: Command, trained: Path, tiny_collection: Path) -> None:
    shutil.rmtree(features_of(tiny_collection))
    write_bigfile(features_of(tiny_collection), [(f"test{i}", np.ones((2, 12))) for i in range(8)])
    refused(run_test(trained), features_of(tiny_collection), "12 wide", "16", trained / "model.safetensors")
    assert not (trained / "test").exists()


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("train.epoch=3", "unknown key train.epoch"),
        ("train.epochs", "write key=value"),
        ("train.batch_size=1", "train.batch_size=1"),
        ("reading=best", "reading"),
        ("data.collection=activitynet", "no collection 'activitynet' in it"),
        ("data.target=fr", "'fr'"),
        ("data.feature=resnet", "resnet"),
        ("text.model=${oc.env:HOME}", "not supported"),
        ("text.model=/no/such/folder", "text.model=/no/such/folder"),
        ("text.pretrained=true", "text.backbone"),
        ("text.backbone.hiden_size=3", "text.backbone.hiden_size"),
        ("--device=cuda:7", "--device cuda:7"),
        ("--device=tpu", "--device tpu"),
    ],
)
def test_options_that_cannot_be(start: Command, option: str, says: str) -> None:
    refused(start(option), says)


def test_backbone_that_does_not_fit_together(start: Command) -> None:
    refused(start("text.backbone.num_attention_heads=5"), "text.backbone")


def test_backbone_folder_without_its_files(start: Command, tiny_bert: Path, tmp_path: Path) -> None:
    bert = Path(shutil.copytree(tiny_bert, tmp_path / "bert"))
    for name in ("vocab.txt", "config.json"):
        (bert / name).unlink()
        refused(start(f"text.model={bert}"), bert)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "nowhere.yaml", "--root", "."], "nowhere.yaml"),
        (["check", "nowhere.yaml", "--root", "."], "nowhere.yaml"),
        (["test", "nowhere", "--root", "."], "nowhere: no such run folder or checkpoint"),
        (["test", ".", "--root", ".", "--split", "dev"], "--split dev"),
        (["train", "--frobnicate"], "--frobnicate"),
        (["train"], "CONFIG"),
        (["train", "nrccr/vatex"], "--root"),
        (["fly"], "fly"),
    ],
)
def test_usage(
    nrccr_command: Command, arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(nrccr_command(*arguments), says)
    assert not list(tmp_path.iterdir())


class Shell:
    """Pickles as a shell command that would leave a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def test_checkpoints_that_are_none(run_test: Command, tmp_path: Path) -> None:
    folder = tmp_path / "published"
    folder.mkdir()
    refused(run_test(folder), folder, "model_best.pth.tar")
    checkpoint = folder / "model_best.pth.tar"
    torch.save({"model": [Shell(tmp_path / "ran")] * 5, "opt": {}}, checkpoint)
    refused(run_test(folder), checkpoint, "refused")
    refused(run_test(checkpoint), checkpoint, "refused")
    torch.save([Shell(tmp_path / "ran")], checkpoint, _use_new_zipfile_serialization=False)
    refused(run_test(folder), checkpoint, "refused")
    assert not (tmp_path / "ran").exists()
    checkpoint.write_bytes(b"not a checkpoint")
    refused(run_test(folder), checkpoint)
    assert [path.name for path in folder.iterdir()] == ["model_best.pth.tar"]


def test_damaged_run_folders(run_test: Command, trained: Path) -> None:
    weights = trained / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    refused(run_test(trained), weights)
    weights.unlink()
    refused(run_test(trained), trained, "model.safetensors")
    weights.write_bytes(whole)
    refused(run_test(trained, "joint.width=32"), weights)
    refused(run_test(trained, "evaluation.target_weight=2"), "evaluation.target_weight=2")
    (trained / "config.yaml").write_text("text: [")
    refused(run_test(trained), trained / "config.yaml")
    assert not (trained / "test").exists()


def test_results_that_cannot_be_written_are_known_before_encoding(
    run_test: Command, trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    refused(run_test(trained, "--out", tmp_path / "file"), tmp_path / "file", "--out")
    assert (tmp_path / "file").read_text() == "mine"


def test_debug_shows_the_traceback(nrccr_command: Command, tmp_path: Path) -> None:
    done = nrccr_command("test", tmp_path / "nowhere", "--root", tmp_path, "--debug")
    assert done.code == 2
    assert "Traceback" in done.err and done.err.splitlines()[-1].startswith("nrccr: ")
