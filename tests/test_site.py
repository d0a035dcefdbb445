"""The documentation site: references made of the code, every page in the navigation, links that lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nrccr.cli.app import app
from nrccr.config.keys import declared
from nrccr.systems.settings import config_type
from scripts.site_links import problems
from scripts.site_pages import escaped, kept_whole, pages, relinked, write

CHECKOUT = Path(__file__).resolve().parents[1]


def build(folder: Path, settings: str) -> subprocess.CompletedProcess[str]:
    """Build the site of a folder strictly, as scripts/docs.sh does."""
    pytest.importorskip("zensical", reason="needs the extra docs")
    (folder / "mkdocs.yml").write_text(settings, encoding="utf-8")
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_site_is_built_strictly_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    write(CHECKOUT, tmp_path / "build" / "docs")
    done = build(tmp_path, (CHECKOUT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / "build" / "site"
    assert list(problems(site)) == []
    reference = (site / "reference" / "python.html").read_text(encoding="utf-8")
    assert 'id="nrccr.systems.retriever.Retriever.encode_text"' in reference
    assert "Nothing in it is executed" in reference
    assert "&gt;&gt;&gt; " in reference and "<blockquote>" not in reference  # examples are code, not quotations
    assert '<code class="option">--resume</code>' in (site / "tutorial.html").read_text(encoding="utf-8")
    assert "--random-weights" in (site / "reference" / "commands.html").read_text(encoding="utf-8")


def test_links_that_lead_nowhere_end_the_build(tmp_path: Path) -> None:
    docs = tmp_path / "build" / "docs"
    docs.mkdir(parents=True)
    (docs / "index.md").write_text("# Home\n\n[a](no_such_page.md) [b](#no-such-heading) [c](other.md#nowhere)\n")
    (docs / "other.md").write_text("# Other\n\n[d](index.md#home)\n")
    settings = (CHECKOUT / "mkdocs.yml").read_text(encoding="utf-8")
    short = re.sub(r"^nav:\n(?: .*\n)+", "nav: [index.md, other.md]\n", settings, flags=re.MULTILINE)
    done = build(tmp_path, short)
    assert done.returncode != 0 and "3 issues found" in done.stdout + done.stderr, done.stdout + done.stderr


def test_every_page_is_in_the_navigation() -> None:
    listed: list[str] = []
    for entry in yaml.safe_load((CHECKOUT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]:
        for found in entry.values():
            listed += [found] if isinstance(found, str) else [page for inner in found for page in inner.values()]
    assert sorted(listed) == sorted(pages(CHECKOUT)), "nav of mkdocs.yml names every page once"


def test_the_references_hold_every_command_option_and_key() -> None:
    found = pages(CHECKOUT)
    headings = set(re.findall(r"^## (.*)$", found["reference/commands.md"], re.MULTILINE))
    verbs = {info.name or getattr(info.callback, "__name__", "") for info in app.registered_commands}
    assert headings == verbs | {"config base", "config schema"}
    keys = re.findall(r"^\| `([a-z0-9_.]+)` \|", found["reference/configuration.md"], re.MULTILINE)
    assert keys == list(declared(config_type()))


def test_options_that_documents_show_exist() -> None:
    """A document may show a part of the options, but none that a command lacks."""
    text = pages(CHECKOUT)["reference/commands.md"]
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    wrong, seen = [], 0
    for path in [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]:
        joined = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for verb, rest in re.findall(r"^nrccr ([a-z]+)\b([^\n#`|]*)", joined, re.MULTILINE):
            for option in re.findall(r"(?<=\s)--[a-z][a-z-]*", re.sub(r'"[^"]*"', "", rest)):
                seen += 1
                if not re.search(rf"{option}(?![a-z-])", sections[verb]):
                    wrong.append(f"{path.name}: nrccr {verb} {option}")
    assert seen > 50 and wrong == []


def test_links_out_of_the_documents_lead_to_pages() -> None:
    text = "[a](../configs/base.yaml) [b](docs/search.md#ask-it) [c](../SECURITY.md) [d](https://x.org/docs/) [e](#f)"
    moved = "[a](reference/configuration.md) [b](search.md#ask-it) [c](security.md) [d](https://x.org/docs/) [e](#f)"
    assert relinked(text) == moved


def test_options_in_prose_are_kept_on_one_line() -> None:
    text = "## `--name`\n\nGive `--name NAME`, not `nrccr x --name`.\n\n```\nx `--name`\n```\n\n| `--seed` | 0 |\n"
    marked = text.replace("`--name NAME`", "`--name NAME`{.option}").replace("`--seed`", "`--seed`{.option}")
    assert kept_whole(text) == marked


def test_signs_of_markdown_mean_themselves() -> None:
    assert escaped("a_b <RUN> *x* `c_d <e>`") == r"a\_b &lt;RUN&gt; \*x\* `c_d <e>`"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('<a href="other.html">x</a>', "other.html: no such file"),
        ('<a href="#nowhere">x</a>', "#nowhere: no such anchor"),
        ('<img src="https://example.org/a.png">', "loads https://example.org/a.png"),
        ('<script src="//example.org/a.js"></script>', "loads //example.org/a.js"),
    ],
)
def test_the_check_of_a_built_site_sees_what_is_wrong(body: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(f'<h1 id="top">x</h1><a href="#top">x</a>{body}', encoding="utf-8")
    found = list(problems(tmp_path))
    assert found and all(line.startswith("index.html: ") for line in found) and says in found[0]


def test_a_folder_without_pages_is_a_problem(tmp_path: Path) -> None:
    assert list(problems(tmp_path)) == [f"{tmp_path}: no pages in it"]
