"""Source distribution and wheel: what is in them, the index's checks, and the wheel at work away from the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import nrccr

CHECKOUT = Path(__file__).resolve().parents[1]
# Names of the command line; the generated collection as small as it can be, and one short epoch.
SMALL = ["--videos", "24,6,8", "--captions", "2", "--noise", "20"]
SHORT = ["train.epochs=1", "train.batch_size=16", "text.width=32", "visual.width=32", "joint.width=32"]


def run(*command: object, folder: Path, **variables: str) -> str:
    """What a command prints, run in a folder without the checkout on the path."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=inherited | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What scripts/release.sh builds, built offline from a copy, so that the checkout stays clean."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    for name in ("nrccr", "configs", "tests", "scripts", "benchmarks"):
        shutil.copytree(CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", build, built, folder=source)
    (archive,) = built.glob("nrccr-*.tar.gz")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", *offline, "--wheel-dir", built, archive, folder=built)
    return built


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    """The wheel, built of the source distribution."""
    (found,) = dist.glob("nrccr-*.whl")
    return found


def files_below(name: str) -> set[str]:
    """Files of a folder of the checkout, relative to it."""
    folder = CHECKOUT / name
    found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in found}


def test_the_wheel_holds_the_package_and_its_configurations_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    package, configs = files_below("nrccr"), files_below("configs")
    assert "py.typed" in package and "base.yaml" in configs and "nrccr/vatex.yaml" in configs
    wanted = {f"nrccr/{name}" for name in package} | {f"nrccr/configs/{name}" for name in configs}
    assert names == wanted, "a new folder needs an entry in pyproject.toml: packages, or package-data"


def test_both_have_the_version_and_pass_the_checks_of_an_index(dist: Path) -> None:
    names = sorted(path.name for path in dist.iterdir())
    assert names == [f"nrccr-{nrccr.__version__}-py3-none-any.whl", f"nrccr-{nrccr.__version__}.tar.gz"]
    for check in ("twine", "check_wheel_contents"):
        pytest.importorskip(check, reason="needs the extra dev")
    shown = run(sys.executable, "-m", "twine", "--no-color", "check", "--strict", *dist.iterdir(), folder=dist)
    assert shown.count("PASSED") == 2
    assert ": OK" in run(sys.executable, "-m", "check_wheel_contents", dist / names[0], folder=dist)


def test_from_nothing_to_ranked_videos_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    offline = ["--no-index", "--no-deps", "--disable-pip-version-check"]
    run(sys.executable, "-m", "pip", "install", "--quiet", *offline, "--target", site, wheel, folder=empty)

    def nrccr(*arguments: object) -> str:
        return run(site / "bin" / "nrccr", *arguments, folder=empty, PYTHONPATH=str(site), OMP_NUM_THREADS="1")

    where = "import nrccr.config.names as names; print(names.__file__, names.CONFIGS)"
    assert run(sys.executable, "-c", where, folder=empty, PYTHONPATH=str(site)).split() == [
        str(site / "nrccr" / "config" / "names.py"),
        str(site / "nrccr" / "configs"),
    ]
    nrccr("generate", "data", *SMALL)
    device = ["--root", "data", "--device", "cpu"]
    nrccr("train", "nrccr/generated", *device, *SHORT)
    trained = empty / "runs" / "generated-s0"
    assert (trained / "model.safetensors").is_file()
    assert "collection: generated" in (trained / "config.yaml").read_text(encoding="utf-8")
    assert "text to video" in nrccr("test", trained, *device)
    metrics = json.loads((trained / "test" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["items"] == 8 and metrics["queries"] == 16
    assert "test0000" in nrccr("rank", trained, "Eine Sieben wandert nach rechts.", *device)
    assert sorted(path.name for path in empty.iterdir()) == ["data", "runs"]
