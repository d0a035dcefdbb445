"""docs/tutorial.md: its commands run in order as they stand, on a sample of a toy size, down to the served page."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.sample import HEAD, main
from tests.search.serving import ask, post, served

Command = Callable[..., Any]
CHECKOUT = Path(__file__).resolve().parents[1]
PAGE = CHECKOUT / "docs" / "tutorial.md"
# What makes it a toy; the commands of the page come with these words more.
SMALLER = {
    "scripts/sample.py": "--videos 12,4,4 --captions 2",
    "nrccr train": "train.epochs=1 train.batch_size=8",
}


def commands() -> list[str]:
    """The lines of the page's bash blocks, continued ones joined."""
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in re.sub(r"\\\n *", "", block).splitlines()]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the checkout's files, in which the tutorial leaves what it makes."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for path in CHECKOUT.iterdir():
        if not path.name.startswith(".") and path.name not in ("runs", "build", "dist"):
            (folder / path.name).symlink_to(path)
    return folder


def smaller(line: str) -> str:
    """The command with what makes it a toy."""
    return " ".join([line, *(words for start, words in SMALLER.items() if start in line)])


def test_the_commands_run_in_order_down_to_the_page(
    checkout: Path, nrccr_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for extra in ("av", "faiss", "gradio"):
        pytest.importorskip(extra, reason="needs the extras extract, search and serve")
    monkeypatch.chdir(checkout)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    install, *before, last = map(smaller, commands())
    assert install.split()[0] == "scripts/setup.sh"
    assert all((CHECKOUT / f"requirements-{extra}.txt").is_file() for extra in install.split()[1:])
    said = ""
    for line in before:
        word, *arguments = shlex.split(line)
        if word == "nrccr":
            done = nrccr_command(*arguments)
            assert done.code == 0, (line, done)
            said += done.out
        else:
            shell = subprocess.run(
                ["bash", "-c", line.replace("python ", f"{sys.executable} ")],
                capture_output=True,
                text=True,
                check=False,
            )
            assert shell.returncode == 0, (line, shell)
    assert "no problems found" in said and "text to video" in said and "20 items in" in said
    found = re.findall(r"(?:train|val|test)\d{5}", said[said.index("20 items in") :])
    assert len(found) == len(set(found)) == 5

    words = shlex.split(last)
    assert words[:2] == ["nrccr", "serve"]
    with served(Path(words[2]), *words[3:]) as (port, _):
        status, answer = post(port, "/api/search", {"query": "Eine Acht wandert nach rechts.", "top": 5})
        assert status == 200 and [line["item"] for line in answer["results"]] == found, answer
        assert ask(port, "GET", f"/media/{found[0]}", headers={"Range": "bytes=0-99"})[0] == 206


def test_what_the_page_shows_of_the_table_is_what_a_table_has() -> None:
    shown = re.search(r"^\| (item \|.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert shown is not None
    assert tuple(shown[1].split(" | ")) == HEAD


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "exists already"),
        (("--videos", "3,3"), "give three numbers"),
        (("--videos", "a,b,c"), "give whole numbers"),
    ],
)
def test_what_a_sample_cannot_be_is_said(
    options: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path), *options])
    assert stopped.value.code == 2 and says in capsys.readouterr().err


def test_a_toy_changes_nothing_but_sizes() -> None:
    assert sum(any(start in line for line in commands()) for start in SMALLER) == len(SMALLER)
