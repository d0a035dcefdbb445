"""A model on a hub: uploaded by `save_pretrained`, loaded by its name; the hub is one on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants

import nrccr
from nrccr.errors import UserError
from nrccr.systems.hub import is_hub_name
from tests.systems.fakehub import TOKEN, Hub, fake_hub

QUERIES = ["狗跑", "人唱水"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub without repositories, which is all that huggingface_hub knows, as if HF_ENDPOINT had been set."""
    with fake_hub() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.address)
        template = f"{running.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.chdir(tmp_path)
        yield running


def files_below(folder: Path) -> dict[str, bytes]:
    """The files of a folder, by path."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_a_model_goes_to_the_hub_and_comes_back(trained: Path, hub: Hub, tmp_path: Path) -> None:
    model = nrccr.load(trained)
    model.save_pretrained("saved", push_to_hub=True, repo_id="somebody/cross-lingual")
    loaded = nrccr.load("somebody/cross-lingual")
    assert np.array_equal(loaded.encode_text(QUERIES), model.encode_text(QUERIES))
    assert loaded.checkpoint.is_relative_to(tmp_path / "cache")
    uploaded = hub.files["somebody/cross-lingual"]
    assert uploaded == files_below(tmp_path / "saved")
    assert uploaded.keys() >= {"config.yaml", "model.safetensors", "README.md", "backbone/config.json"}
    assert [asked["visibility"] for asked in hub.created] == ["private"]
    assert 'nrccr.load("somebody/cross-lingual")' in uploaded["README.md"].decode()
    with pytest.raises(UserError, match=r"^somebody/nothing: no such folder here, and none from the hub \(Repository"):
        nrccr.load("somebody/nothing")


def test_what_the_model_before_had_and_this_one_lacks_goes(trained: Path, hub: Hub, tmp_path: Path) -> None:
    """An encoder's folder would be read with the new model; what is not of a model stays."""
    old = {"image_encoder/config.json": b"{}", "backbone/spiece.model": b"old", "config.yaml": b"old"}
    hub.files["a/b"] = {**old, "picture.png": b"mine"}
    nrccr.load(trained).save_pretrained("saved", push_to_hub=True, repo_id="a/b")
    assert hub.files["a/b"] == {**files_below(tmp_path / "saved"), "picture.png": b"mine"}


def test_only_known_files_are_fetched_and_the_cache_serves_without_network(
    trained: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nrccr.load(trained)
    model.save_pretrained(tmp_path / "saved")
    files = files_below(tmp_path / "saved")
    code = {"modeling.py": b"raise SystemExit(7)", "backbone/tokenizer.py": b"raise SystemExit(7)"}
    hub.files["a/b"] = {**files, **code, "pytorch_model.bin": b"cos\nsystem\n(S'false'\ntR."}
    assert np.array_equal(nrccr.load("a/b").encode_text(QUERIES), model.encode_text(QUERIES))
    fetched = {path.rpartition("/resolve/")[2].partition("/")[2] for _, path in hub.asked if "/resolve/" in path}
    assert fetched == files.keys()
    before = len(hub.asked)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert np.array_equal(nrccr.load("a/b").encode_text(QUERIES), model.encode_text(QUERIES))
    assert len(hub.asked) == before


def test_an_upload_without_access_leaves_the_folder_and_says_so(
    trained: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UserError, match=r"a/b: not uploaded \(.*saved is written, log in with `hf auth login`"):
        nrccr.load(trained).save_pretrained("saved", push_to_hub=True, repo_id="a/b")
    assert (tmp_path / "saved" / "model.safetensors").is_file() and hub.files == {}


def test_what_is_a_name_of_a_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert is_hub_name("somebody/model") and is_hub_name("some-body/model.v2_x")
    no_names = ("runs/vatex-s0", "model", "a/b/c", "./a/b", "/a/b", "~/b", "../b", "a/", "a//b", "a/b\n", "a/ü", "-a/b")
    assert not any(map(is_hub_name, no_names)), "a typing error in runs/ must not ask a stranger"


def test_arguments(trained: Path, tmp_path: Path) -> None:
    model, folder = nrccr.load(trained), tmp_path / "saved"
    wrong: Any = 3
    for message, act in {
        "together": lambda: model.save_pretrained(folder, push_to_hub=True),
        "or neither": lambda: model.save_pretrained(folder, repo_id="a/b"),
        "give owner/name": lambda: model.save_pretrained(folder, push_to_hub=True, repo_id="../b"),
        "is of type int": lambda: model.save_pretrained(wrong),
        "is no name of a hub": lambda: nrccr.load(trained, revision="main"),
    }.items():
        with pytest.raises(UserError, match=message):
            act()
    assert not folder.exists()
