"""`nrccr convert`: what it prints, and its one-line refusals."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Command = Callable[..., Any]


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(records))
    return path


def record(name: str, **captions: Any) -> dict[str, Any]:
    return {"id": name, "2d": np.random.default_rng(len(name)).standard_normal((2, 4)).astype(np.float32), **captions}


@pytest.fixture
def train(tmp_path: Path) -> Path:
    records = [
        record("a", caption_en=["A dog.", "A ball."], caption_de=["Ein Hund.", "Ein Ball."]),
        record("bb", caption_en=["Water."], caption_de=[""]),
    ]
    return write(tmp_path / "msrvtt_train_multilingual.pkl", records)


@pytest.fixture
def test(tmp_path: Path) -> Path:
    records = [record("ccc", eval_caption_en="Red.", eval_caption_de="Rot.")]
    return write(tmp_path / "msrvtt_jsfusion_test_multilingual.pkl", records)


def test_both_splits(nrccr_command: Command, train: Path, test: Path, tmp_path: Path) -> None:
    done = nrccr_command("convert", "c2kd", train, test, tmp_path / "root")
    assert done.code == 0 and done.err == "", done.err
    rows = [" ".join(line.replace("│", " ").split()) for line in done.out.splitlines()]
    assert {"train 2 en 3", "de 2 1", "en_words 3", "test 1 en 1", "de 1", "en_words 1"} <= set(rows), done.out
    text = tmp_path / "root" / "multi_msrvtt" / "TextData"
    assert (text / "multi_msrvtttrain_de.caption.txt").read_text() == "a#de#0 Ein Hund.\na#de#1 Ein Ball.\n"
    assert (text / "multi_msrvtttest_de.caption.txt").read_text() == "ccc#de#0 Rot.\n"


def test_missing_captions_filled(nrccr_command: Command, train: Path, tmp_path: Path) -> None:
    assert nrccr_command("convert", "c2kd", train, tmp_path / "root", "--fill-missing").code == 0
    text = tmp_path / "root" / "multi_msrvtt" / "TextData"
    assert (text / "multi_msrvtttrain_de.caption.txt").read_text().endswith("bb#de#0 Water.\n")


def test_what_was_left_out_or_renamed_is_said(nrccr_command: Command, train: Path, tmp_path: Path) -> None:
    empty = record("none", eval_caption_en="x") | {"2d": np.zeros((0, 4), dtype=np.float32)}
    again = record("a", eval_caption_en="other") | {"2d": np.ones((3, 4), dtype=np.float32)}
    test = write(tmp_path / "vatex_test.pkl", [empty, again])
    done = nrccr_command("convert", "c2kd", train, test, tmp_path / "root", "--name", "vatex")
    assert done.code == 0, done.err
    assert "note: 1 videos without frames were left out (none)" in done.out
    assert "note: 1 videos have the id of another, with other features (a.2)" in done.out
    assert (tmp_path / "root" / "multi_vatex").is_dir()


def test_the_collection_may_stand_in_the_folders(nrccr_command: Command, train: Path, tmp_path: Path) -> None:
    moved = tmp_path / "rudder" / "clip" / "train.pkl"
    captions = {"captions": {"en": "glue", "hi": "गोंद"}}
    write(moved, [record("a", **captions)])
    assert nrccr_command("convert", "c2kd", moved, tmp_path / "root").code == 0
    assert (tmp_path / "root" / "multi_rudder" / "TextData" / "multi_ruddertrain_hi.caption.txt").is_file()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (["nrccr", "{train}", "{out}"], "convert nrccr: give c2kd"),
        (["c2kd", "{train}", "{train}", "{out}"], "is of split train too"),
        (["c2kd", "{train}", "{out}", "--name", "coco"], "collection 'coco' is unknown; choose one of msrvtt"),
        (["c2kd", "{train}", "{out}", "--feature", "s3d"], "has no feature 's3d'"),
        (["c2kd", "{root}/data.pkl", "{out}"], "train or test?"),
        (["c2kd", "{root}/train.pkl", "{out}"], "which collection is it?"),
        (["c2kd", "{root}/msrvtt_train.pkl", "{out}"], "no such file"),
        (["c2kd", "{train}"], "Missing argument"),
        (["c2kd", "{train}", "{train}"], "msrvtt_train_multilingual.pkl: is a file; is the last argument the folder"),
    ],
)
def test_refusals(nrccr_command: Command, train: Path, tmp_path: Path, changed: list[str], says: str) -> None:
    places = {"train": train, "out": tmp_path / "out", "root": tmp_path}
    done = nrccr_command("convert", *(word.format(**places) for word in changed))
    assert done.code == 2 and len(done.err.splitlines()) == 1 and says in done.err, done.err
    assert done.out == "" and not (tmp_path / "out" / "multi_msrvtt").exists()
