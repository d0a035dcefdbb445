"""What the documents name is there: links, headings, commands, configurations, files of the tree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nrccr.cli.app import app
from nrccr.config.names import config_names

CHECKOUT = Path(__file__).resolve().parents[1]
DOCUMENTS = [*sorted(CHECKOUT.glob("*.md")), *sorted((CHECKOUT / "docs").glob("*.md"))]
of_each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@of_each_document
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), f"{path.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{path.name} links to {link}: no such heading"


@of_each_document
def test_commands_exist(path: Path) -> None:
    known = {info.name or getattr(info.callback, "__name__", "") for info in app.registered_commands}
    known |= {str(group.name) for group in app.registered_groups}
    named = re.findall(r"(?:^|`|&& )nrccr ([a-z]+)\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) <= known, f"{path.name} names {set(named) - known}"


@pytest.mark.parametrize("name", ["README.md", "docs/commands.md", "docs/howto.md"])
def test_configurations_exist(name: str) -> None:
    text = (CHECKOUT / name).read_text(encoding="utf-8")
    named = {
        *re.findall(r"`((?:nrccr|mlcmr|c2kd|quartet)/[\w-]+)`", text),
        *re.findall(r"nrccr (?:check|train|noise) ([\w-]+/[\w-]+)", text),
    }
    assert len(named) > 1 and named <= set(config_names())


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/commands.md", "docs/reproduction.md"])
def test_files_of_the_tree_exist(name: str) -> None:
    text = (CHECKOUT / name).read_text(encoding="utf-8")
    named = re.findall(
        r"(?:\./|\b)((?:do_(?:all|test)_[a-z0-9]+|(?:scripts|configs|tests|benchmarks)/[\w/-]+)\.(?:sh|py|yaml))\b",
        text,
    )
    assert named and [file for file in named if not (CHECKOUT / file).exists()] == []


def test_modules_named_by_deviations_exist() -> None:
    text = (CHECKOUT / "docs" / "deviations.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.py)`", text)
    assert named and [file for file in named if not (CHECKOUT / "nrccr" / file).is_file()] == []
