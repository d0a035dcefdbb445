"""Configurations by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nrccr.config.names import CONFIGS, complete_config, config_names, find_config
from nrccr.errors import UserError

Command = Callable[..., Any]


def complaint(name: str) -> str:
    """The one line that an unknown name gives."""
    with pytest.raises(UserError) as caught:
        find_config(Path(name))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the checkout's own folders."""
    monkeypatch.chdir(tmp_path)


def test_every_file_has_a_name() -> None:
    names = config_names()
    assert names == sorted(names) and {"base", "nrccr/vatex", "mlcmr/generated", "c2kd/vatex-student"} <= set(names)
    assert {find_config(Path(name)) for name in names} == set(CONFIGS.rglob("*.yaml"))


def test_with_or_without_the_ending() -> None:
    assert find_config(Path("nrccr/vatex")) == find_config(Path("nrccr/vatex.yaml")) == CONFIGS / "nrccr" / "vatex.yaml"


def test_a_file_that_exists_wins_and_a_folder_does_not(tmp_path: Path) -> None:
    own = tmp_path / "nrccr" / "vatex.yaml"
    own.parent.mkdir()
    own.write_text("model: nrccr\n")
    assert find_config(Path("nrccr/vatex.yaml")) == Path("nrccr/vatex.yaml")
    assert find_config(own) == own
    (tmp_path / "nrccr" / "vatex").mkdir()
    assert find_config(Path("nrccr/vatex")) == CONFIGS / "nrccr" / "vatex.yaml"


def test_an_unknown_name_is_told_what_is_near_or_where_to_look(tmp_path: Path) -> None:
    assert "did you mean nrccr/vatex or " in complaint("nrccr/vatx")
    assert "nrccr/vatex" in complaint("configs/nrccr/vatex.yaml").partition("did you mean")[2]
    for name in ("qqqqqqq", "/no/such/file.yaml"):
        assert f"{name}: no such configuration" in complaint(name)
        assert f"{CONFIGS} (baseline/, c2kd/, mlcmr/, nrccr/, quartet/)" in complaint(name)
    (tmp_path / "zzz").mkdir()
    assert "zzz: is a folder" in complaint("zzz")


def test_no_name_leads_out_of_the_folder() -> None:
    assert "no such configuration" in complaint("../pyproject")
    assert "no such configuration" in complaint("nrccr/../nrccr/vatex")


def test_completion_offers_the_names_that_begin_so() -> None:
    assert complete_config("nrccr/vatex-s") == [
        "nrccr/vatex-sim",
        "nrccr/vatex-sim-feat",
        "nrccr/vatex-sim-feat-cyc",
        "nrccr/vatex-small",
        "nrccr/vatex-small-basic",
    ]
    assert complete_config("./my") == []


def test_the_commands_take_names(nrccr_command: Command, tiny_collection: Path, tmp_path: Path) -> None:
    done = nrccr_command("check", "nrccr/vatex-small", "--root", tiny_collection)
    assert "vatex in" in done.out and done.code == 0, done.err
    for command in ("check", "train"):
        done = nrccr_command(command, "nrccr/vatx", "--root", tmp_path)
        assert done.code == 2 and done.err.startswith("nrccr: nrccr/vatx: no such configuration"), done.err
    done = nrccr_command("noise", "nrccr/vatx")
    assert done.code == 2 and done.err.startswith("nrccr: nrccr/vatx: no such configuration"), done.err
