"""A run in the corrected reading and an index of its test videos."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nrccr.data.bigfile import BigFile, write_bigfile
from tests.conftest import Command


@pytest.fixture
def run(
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    tiny_config: Path,
    tiny_collection: Path,
    nrccr_command: Command,
) -> Path:
    """A run in the corrected reading, scores not scaled, with its test; trained once for all tests."""
    pytest.importorskip("faiss", reason="needs the extra search")
    kept = tmp_path_factory.getbasetemp() / "corrected_once"
    if not kept.exists():
        options = ["reading=corrected", "switches.score=raw"]
        arguments = ("--root", tiny_collection, "--out", kept, "--device", "cpu", "--test")
        done = nrccr_command("train", tiny_config, *arguments, *options)
        assert done.code == 0, done.err
    return Path(shutil.copytree(kept, tmp_path / "corrected"))


def part(whole: Path, folder: Path, names: list[str]) -> Path:
    """A feature folder of some videos of another."""
    bigfile = BigFile(whole)
    write_bigfile(folder, ((name, bigfile.read([bigfile.rows(name)])[0][0]) for name in names))
    return folder


TESTED = [f"test{number}" for number in range(8)]


@pytest.fixture
def features(tiny_collection: Path, tmp_path: Path) -> Path:
    """The features of the test videos."""
    return part(tiny_collection / "vatex" / "FeatureData" / "i3d_kinetics", tmp_path / "features", TESTED)


@pytest.fixture
def index(
    tmp_path_factory: pytest.TempPathFactory, run: Path, features: Path, tmp_path: Path, nrccr_command: Command
) -> Path:
    """An exact index of the test videos, a copy of one that is made once for all tests, from files that stay."""
    base = tmp_path_factory.getbasetemp()
    kept, seen = base / "index_once", base / "features_once"
    if not kept.exists():
        shutil.copytree(features, seen)
        done = nrccr_command("index", base / "corrected_once", "--features", seen, "--out", kept, "--device", "cpu")
        assert done.code == 0 and "8 items" in done.out and done.err == "", done.err
    return Path(shutil.copytree(kept, tmp_path / "index"))
