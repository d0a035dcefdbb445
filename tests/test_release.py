"""What a release says of itself, and the container: one version, the paper as the README cites it, steps that exist."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import nrccr

CHECKOUT = Path(__file__).resolve().parents[1]
CITATION = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text(encoding="utf-8"))


def test_one_version_everywhere() -> None:
    changes = (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = [name for name in re.findall(r"^## \[(.*?)\]", changes, re.MULTILINE) if name != "Unreleased"]
    assert released[0] == nrccr.__version__ == CITATION["version"]


def test_the_paper_is_cited_as_in_the_readme() -> None:
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    entry = re.search(r"@inproceedings\{wang2022nrccr,\n(.*?)\n\}", readme, re.DOTALL)
    assert entry is not None
    fields = dict(re.findall(r"^  (\w+) = \{(.*)\},?$", entry[1], re.MULTILINE))
    paper = CITATION["preferred-citation"]
    assert paper["title"] == fields["title"] and paper["collection-title"] == fields["booktitle"]
    authors = [f"{person['family-names']}, {person['given-names']}" for person in paper["authors"]]
    assert " and ".join(authors) == fields["author"] and str(paper["year"]) == fields["year"]
    assert f"{paper['start']}--{paper['end']}" == fields["pages"]
    assert paper["url"] in readme and CITATION["license"] == "Apache-2.0"


def steps() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, continued lines joined, without comments."""
    text = (CHECKOUT / "Dockerfile").read_text(encoding="utf-8")
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines()) if word]


def named(word: str) -> list[str]:
    return [rest for found, rest in steps() if found == word]


def context() -> list[str]:
    """What .dockerignore lets into the image: files and folders at the top of the checkout."""
    lines = (CHECKOUT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*" and patterns[-1] == "**/__pycache__"
    kept = [pattern.removeprefix("!") for pattern in patterns[1:-1] if pattern.startswith("!")]
    assert len(kept) == len(patterns) - 2
    names = [path.name for path in CHECKOUT.iterdir()]
    assert all(fnmatch.filter(names, pattern) for pattern in kept), "a pattern that fits nothing"
    return sorted(name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in kept))


def test_the_image_is_built_by_the_scripts_for_a_user_without_rights() -> None:
    words = [word for word, _ in steps()]
    assert words[:2] == ["ARG", "FROM"] and named("FROM") == ["${BASE}"] and named("USER") == ["nrccr"]
    assert words.index("USER") < words.index("COPY") and named("COPY") == ["--chown=nrccr . ."]
    demo = (CHECKOUT / "scripts" / "demo.sh").read_text(encoding="utf-8")
    extras = re.search(r"^source (scripts/setup\.sh .*)$", demo, re.MULTILINE)
    assert extras is not None
    assert named("RUN")[-1].split(" && ") == ["scripts/setup.sh", extras[1]], "as the quick start and the demo"
    (start,) = named("CMD")
    assert yaml.safe_load(start)[0] == "scripts/quickstart.sh"
    written = named("RUN")[-1] + " " + start
    for script in re.findall(r"scripts/[\w/.-]+\.sh", written):
        assert os.access(CHECKOUT / script, os.X_OK), script


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The files that the image gets, and none else."""
    folder = tmp_path / "image"
    folder.mkdir()
    for name in context():
        if (CHECKOUT / name).is_dir():
            shutil.copytree(CHECKOUT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(CHECKOUT / name, folder)
    return folder


def test_the_steps_work_on_the_files_of_the_image(image: Path, tmp_path: Path) -> None:
    """Installing is recorded, not done; the package and its configurations are all there."""
    binaries, log = tmp_path / "venv" / "bin", tmp_path / "log"
    binaries.mkdir(parents=True)
    for name in ("python", "python3"):
        recorder = f'#!/bin/sh\nif [ "$2" = pip ]; then echo "$@" >>"{log}"; exit 0; fi\nexec "{sys.executable}" "$@"\n'
        (binaries / name).write_text(recorder)
        (binaries / name).chmod(0o755)
    environment = os.environ | {"VIRTUAL_ENV": str(tmp_path / "venv")}
    for command in named("RUN")[-1].split(" && "):
        done = subprocess.run(
            shlex.split(command), cwd=image, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    installed = log.read_text()
    wanted = [
        "requirements.txt",
        *(f"requirements-{extra}.txt" for extra in ("extract", "search", "serve", "translate")),
    ]
    assert all(f"--requirement={image / name}" in installed for name in wanted)
    assert all((image / name).is_file() for name in wanted) and installed.count(f"--editable {image}") == 2
    shown = subprocess.run(
        [sys.executable, "-m", "nrccr", "--version"], cwd=image, capture_output=True, text=True, check=False
    )
    assert shown.stdout == f"nrccr {nrccr.__version__}\n"
    assert (image / "configs" / "base.yaml").is_file() and (image / "README.md").is_file()


def test_the_image_holds_no_data_and_no_history() -> None:
    assert not {".git", ".venv", "runs", "build", "dist", "tests", "findings"} & set(context())


def test_bases_and_commands_of_the_document_are_those_of_the_file() -> None:
    text = (CHECKOUT / "docs" / "container.md").read_text(encoding="utf-8")
    builds = re.findall(r"^docker build .*$", text, re.MULTILINE)
    head = (CHECKOUT / "Dockerfile").read_text(encoding="utf-8").splitlines()[:2]
    assert builds == [re.sub(r" {2,}#.*", "", line.removeprefix("# ")) for line in head]
