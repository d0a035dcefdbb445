"""Configurations from strangers: nothing is read from the environment, from other files, or without end."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
import yaml

from nrccr.errors import UserError
from nrccr.systems import loading
from nrccr.systems.loading import load_retriever
from nrccr.systems.settings import build_config, load_config


def refused(path: Path) -> str:
    """The one line about a configuration."""
    with pytest.raises(UserError) as caught:
        load_config(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('data:\n  collection: "\\x24{oc.env:HOME}"\n', ":2: ${...} is not supported in data.collection"),
        ('data:\n  languages: [en, "\\u0024{a}"]\n', ":2: ${...} is not supported in data.languages"),
        ('text:\n  backbone: {"\\x24{a}": 1}\n', ":2: ${...} is not supported in text.backbone"),
        ('"\\x24{a}": 1\n', ":1: ${...} is not supported"),
        ("seed: !!bool abc\n", ":1: not valid YAML: tags"),
        ("seed: !!int x\n", ":1: not valid YAML: tags"),
        ("seed: !!python/object/apply:os.system [true]\n", ":1: not valid YAML: tags"),
        ("seed: !!binary aGk=\n", ":1: not valid YAML: tags"),
        ("a: !!set {b, c}\n", ":1: not valid YAML: tags"),
        ("seed: " + "9" * 400 + "\n", ":1: not valid YAML: a number of 400 digits"),
        ("seed: " + "9" * 5000 + "\n", ":1: not valid YAML: a number of 5000 digits"),
        ("a: " + "[" * 5000 + "\n", "not valid YAML"),
        ("a: " + "{a: " * 500 + "\n", ":1: not valid YAML: nested more than 20 deep"),
        ("\n".join("  " * depth + "a:" for depth in range(200)), ":20: not valid YAML: nested more than 20 deep"),
        ("? " * 3000 + "a\n", "not valid YAML"),
        ("a: &a [*a]\n", ":1: not valid YAML: aliases"),
        ("a: &a b\nb: {<<: *a}\n", ":2: not valid YAML: aliases"),
        ("? [a, b]\n: 1\n", ":1: not valid YAML: a key must be a word"),
        ("#" * 300_000, "more than 256 KiB"),
        ("\x00", "not valid YAML"),
        ("%YAML 9.9\n---\na: 1\n", "not valid YAML"),
        ("---\na: 1\n---\nb: 1\n", "not valid YAML"),
    ],
)
def test_hostile_configurations_are_one_line(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    assert says in refused(path)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.yaml")  # to open one waits for a writer
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    (tmp_path / "folder.yaml").mkdir()
    for name in ("fifo", "zero", "folder"):
        assert "not a regular file" in refused(tmp_path / f"{name}.yaml")
    (tmp_path / "c.yaml").write_text("extends: /dev/zero\n")
    with pytest.raises(UserError, match="/dev/zero: .*not a regular file"):
        load_config(tmp_path / "c.yaml")


def test_a_run_extends_nothing(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("seed: 1\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("model: nrccr\nextends: ../other.yaml\n")
    with pytest.raises(UserError, match="config.yaml:2: a run's configuration extends nothing"):
        load_retriever(tmp_path / "run", [], "cpu")


def test_overrides_hold_no_interpolation() -> None:
    with pytest.raises(UserError, match="not supported"):
        build_config([], ['data.collection="\\x24{oc.env:HOME}"'])


def test_a_run_without_its_encoder_asks_for_it(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: nrccr\ntext: {model: someone/secret}\n")
    with pytest.raises(UserError, match="no folder backbone, and text.model=someone/secret is no folder; give"):
        load_retriever(tmp_path, [], "cpu")


def test_the_network_is_asked_only_for_a_named_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(loading.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(loading, "_load", lambda *_: seen.append(loading.constants.is_offline_mode()))
    for overrides in ([], [f"text.model={tmp_path}"], ["seed=1"], ["text.model=some/name"], ["image.model=some/name"]):
        load_retriever(tmp_path, overrides, "cpu")
    assert seen == [True, True, True, False, False] and not loading.constants.is_offline_mode()


def test_a_checkpoint_opens_no_connection(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its options name an encoder of a hub; with a local one given, or none, no address is looked up."""

    def refuse(*arguments: object, **_: object) -> None:
        raise AssertionError(f"asked for {arguments[:2]}")

    monkeypatch.setattr(loading.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(UserError, match=r"the network is only asked for a model that you name; give text.model="):
        load_retriever(shared / "golden/nrccr_video/runs_0/model_best.pth.tar", [], "cpu")


def test_options_of_a_checkpoint_hold_no_interpolation(shared: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(shared / "golden/nrccr_video/runs_0/model_best.pth.tar", weights_only=False)
    found = 0
    for key, value in vars(checkpoint["opt"]).copy().items():
        setattr(checkpoint["opt"], key, "${oc.env:HOME}")
        torch.save(checkpoint, tmp_path / "model_best.pth.tar")
        with pytest.raises(UserError) as caught:
            load_retriever(tmp_path, [], "cpu")
        found += "${...} is not supported" in str(caught.value)
        assert os.environ["HOME"] not in str(caught.value).replace(str(tmp_path), "")
        setattr(checkpoint["opt"], key, value)
    assert found >= 1


def test_a_whole_configuration_is_far_below_the_limits() -> None:
    from nrccr.config.yaml import MAX_BYTES
    from nrccr.systems.settings import config_type

    assert len(yaml.safe_dump(config_type()().model_dump(mode="json"))) < MAX_BYTES // 20
