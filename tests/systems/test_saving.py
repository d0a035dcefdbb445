"""`save_pretrained`: the folder alone gives the same model, in every command; the same bytes, and no places in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import nrccr
from nrccr.errors import UserError
from nrccr.systems.saving import subject_of
from nrccr.systems.settings import load_config
from tests.conftest import Command

QUERIES = ["狗跑", "人唱水", "女在红球水"]


def files_below(folder: Path) -> dict[str, bytes]:
    """The files of a folder, by path."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def clips() -> list[Any]:
    values = np.random.default_rng(0)
    return [values.standard_normal((count, 16)) for count in (3, 1, 7)]


def test_a_saved_folder_is_the_same_model(trained: Path, tmp_path: Path) -> None:
    model = nrccr.load(trained)
    model.save_pretrained(tmp_path / "saved")
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "saved").rename(tmp_path / "elsewhere" / "saved")
    trained.rename(tmp_path / "gone")
    loaded = nrccr.load(moved)
    assert np.array_equal(loaded.encode_text(QUERIES), model.encode_text(QUERIES))
    assert np.array_equal(loaded.encode_text(["A man runs."], "source"), model.encode_text(["A man runs."], "source"))
    assert np.array_equal(loaded.encode_video(clips()), model.encode_video(clips()))
    top = {path.split("/")[0] for path in files_below(moved)}
    assert top == {"config.yaml", "model.safetensors", "run.json", "README.md", "backbone"}


def test_the_same_bytes_every_time_and_again_from_the_saved_one(trained: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        nrccr.load(trained).save_pretrained(tmp_path / name / "saved")
    nrccr.load(tmp_path / "a" / "saved").save_pretrained(tmp_path / "c" / "saved")
    first = files_below(tmp_path / "a")
    assert first == files_below(tmp_path / "b") == files_below(tmp_path / "c")


def test_places_of_this_machine_stay_here(trained: Path, tmp_path: Path) -> None:
    record = json.loads((trained / "run.json").read_text())
    record["command"] = ["/home/me/bin/nrccr", "train", "x", "--root=/data/me", "--out", str(tmp_path / "run"), "~/y"]
    (trained / "run.json").write_text(json.dumps(record))
    nrccr.load(trained).save_pretrained(tmp_path / "saved")
    for name, content in files_below(tmp_path / "saved").items():
        assert str(tmp_path.parent).encode() not in content and b"/home/me" not in content, name
    config = yaml.safe_load((tmp_path / "saved" / "config.yaml").read_text())
    assert "/" not in config["text"]["model"]
    command = json.loads((tmp_path / "saved" / "run.json").read_text())["command"]
    assert command == ["nrccr", "train", "x", "--root=me", "--out", "run", "y"]


def test_only_places_lose_their_folders(quartet_config: Path) -> None:
    config = load_config(quartet_config, ["text.prefix=/s/q", "data.feature=/f/i3d", "data.collection=/c/own"])
    kept = subject_of(Path("run"), config, None, None).config
    assert kept.text.prefix == "/s/q" and "/" in config.text.model and "/" not in kept.text.model
    assert (kept.data.feature, kept.data.collection) == ("i3d", "own")


def test_commands_take_a_saved_folder(
    trained: Path, tmp_path: Path, tiny_collection: Path, run_test: Command, nrccr_command: Command
) -> None:
    assert run_test(trained).code == 0
    nrccr.load(trained).save_pretrained(tmp_path / "saved")
    done = run_test(tmp_path / "saved")
    assert done.code == 0, done.err
    ranks = [(folder / "test" / "ranks.tsv").read_text() for folder in (trained, tmp_path / "saved")]
    assert ranks[0] == ranks[1]
    places = ["--root", tiny_collection, "--device", "cpu"]
    ranked = [nrccr_command("rank", path, "狗跑", *places) for path in (trained, tmp_path / "saved")]
    assert ranked[0].code == 0 and ranked[0].out == ranked[1].out
    pytest.importorskip("faiss", reason="needs the extra search")
    features = tiny_collection / "vatex" / "FeatureData" / "i3d_kinetics"
    made = ("--features", features, "--out", tmp_path / "index", "--device", "cpu")
    done = nrccr_command("index", tmp_path / "saved", *made)
    assert done.code == 0 and done.out.startswith("28 items in"), done.err


def test_a_saved_folder_is_not_resumed(
    trained: Path, tmp_path: Path, tiny_collection: Path, nrccr_command: Command
) -> None:
    nrccr.load(trained).save_pretrained(tmp_path / "saved")
    places = ["--root", tiny_collection, "--device", "cpu"]
    refused = nrccr_command(
        "train", tmp_path / "saved" / "config.yaml", *places, "--out", tmp_path / "saved", "--resume"
    )
    assert refused.code == 2 and "Traceback" not in refused.err


def test_a_model_of_raw_images(image_run: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert image_run("train", "--out", run, "visual.kind=clip", "train.epochs=1").code == 0
    model = nrccr.load(run)
    model.save_pretrained(tmp_path / "saved")
    (tmp_path / "gone").mkdir()
    run.rename(tmp_path / "gone" / "run")
    loaded = nrccr.load(tmp_path / "saved")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8))
    assert np.array_equal(loaded.encode_image([image]), model.encode_image([image]))
    assert (tmp_path / "saved" / "image_encoder" / "preprocessor_config.json").is_file()
    assert "`images` are files" in (tmp_path / "saved" / "README.md").read_text()


def test_what_is_in_the_way_is_kept(trained: Path, tmp_path: Path) -> None:
    model = nrccr.load(trained)
    before = files_below(trained)
    with pytest.raises(UserError, match="holds last, which no saved model has"):
        model.save_pretrained(trained)
    assert files_below(trained) == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is a file"):
        model.save_pretrained(tmp_path / "file")
    model.save_pretrained(tmp_path / "saved")
    with torch.no_grad():
        next(model.network.parameters()).add_(1)
    model.save_pretrained(tmp_path / "saved")
    changed = nrccr.load(tmp_path / "saved").encode_text(QUERIES)
    assert np.array_equal(changed, model.encode_text(QUERIES)), "a saved one is replaced"


def test_a_card_that_came_along_is_kept(trained: Path, tmp_path: Path) -> None:
    nrccr.load(trained).save_pretrained(tmp_path / "saved")
    card = tmp_path / "saved" / "README.md"
    card.write_text("# Ours\n", encoding="utf-8")
    nrccr.load(tmp_path / "saved").save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "README.md").read_text(encoding="utf-8") == "# Ours\n"
    nrccr.load(tmp_path / "saved").save_pretrained(tmp_path / "stated", license="cc-by-4.0")
    assert "license: cc-by-4.0" in (tmp_path / "stated" / "README.md").read_text(encoding="utf-8")
    card.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"README.md: cannot be read"):
        nrccr.load(tmp_path / "saved").save_pretrained(tmp_path / "never")
    assert not (tmp_path / "never").exists()
