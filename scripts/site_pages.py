#!/usr/bin/env python3
"""Writes the pages that the documentation site is built of: python scripts/site_pages.py FOLDER

Those of docs/ as they are, the first screen of the README as home, and the references of the command line, of the
configuration and of Python, made of the code, so that they cannot say anything else than the code does.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from nrccr.cli.app import app
from nrccr.config.keys import Key, declared, sections
from nrccr.config.render import spelled
from nrccr.config.schema import Config
from nrccr.systems.settings import config_type

CHECKOUT = Path(__file__).resolve().parents[1]
COPIED = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")  # pages beside docs/
HOME_ENDS = "## From films to a page"  # what follows in the README has pages of its own
# Where links out of docs/ lead on the site.
MOVED = {"configs/base.yaml": "reference/configuration.md", "README.md": "index.md", "docs/": ""}
CHANGES = {
    "all": "what a step computes",
    "length": "how long it trains",
    "test": "tests",
    "digits": "last digits",
    "nothing": "no number",
}
# What a user imports, by page heading; modules show their public names.
PYTHON = {
    "Load a model": ("nrccr.load", "nrccr.systems.retriever.Retriever"),
    "Measure": ("nrccr.evaluation.metrics.retrieval_metrics",),
    "Normalise": ("nrccr.evaluation.normalise.normalise",),
    "Search": ("nrccr.search.query.Searcher",),
    "Write features": ("nrccr.data.bigfile.write_bigfile",),
    "Errors": ("nrccr.errors.UserError",),
}
MEMBERS = """
    options:
      show_root_heading: true
"""


def pages(checkout: Path) -> dict[str, str]:
    """Text of every page by its name in the site's folder."""
    found = {path.name: relinked(path.read_text(encoding="utf-8")) for path in sorted((checkout / "docs").glob("*.md"))}
    found |= {name.lower(): relinked((checkout / name).read_text(encoding="utf-8")) for name in COPIED}
    found["index.md"] = home((checkout / "README.md").read_text(encoding="utf-8"))
    found["reference/commands.md"] = commands()
    found["reference/configuration.md"] = configuration(config_type())
    found["reference/python.md"] = python_names()
    return found


def relinked(text: str) -> str:
    """The text with links between files of the checkout as links between pages."""

    def moved(link: re.Match[str]) -> str:
        target = link[1].removeprefix("../")
        for old, new in MOVED.items():
            if target.startswith(old):
                target = new + target.removeprefix(old)
        name, hash_sign, anchor = target.partition("#")
        return f"]({name.lower() if name in COPIED else name}{hash_sign}{anchor})"

    return kept_whole(re.sub(r"\]\((?!https://|#)([^)\s]+)\)", moved, text))


def kept_whole(text: str) -> str:
    """The text with short options in prose marked, so that no browser breaks a line within one, as after `--`."""
    parts = re.split(r"(^```.*?^```|^#.*?$)", text, flags=re.MULTILINE | re.DOTALL)  # code and headings stay
    return "".join(
        part if number % 2 else re.sub(r"(`--[a-z][^`\n]{0,30}`)(?!\{)", r"\1{.option}", part)
        for number, part in enumerate(parts)
    )


def home(readme: str) -> str:
    """The README's first screen, results and merits, with the ways on."""
    start, mark, _ = readme.partition(HOME_ENDS)
    if not mark:
        raise ValueError(f"README.md has no heading {HOME_ENDS!r}, where the home page ends")
    return relinked(start) + (
        "## Where to go on\n\n"
        "- [Tutorial](tutorial.md): from your own table of captions to a page that finds your films.\n"
        "- [One page for each system](howto.md): NRCCR, MLCMR, C2KD, Quartet, QB-Norm.\n"
        "- [Commands](commands.md), with [every option](reference/commands.md) and "
        "[every key of the configuration](reference/configuration.md); the same [from Python](python.md).\n"
        "- [Troubleshooting](troubleshooting.md): the most frequent mistakes and what they print.\n"
    )


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown; nothing if it has no rows."""
    if not rows:
        return ""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines) + "\n\n"


def commands() -> str:
    """Every command with its arguments and options, in the words of `--help`."""
    group: Any = typer.main.get_command(app)
    parts = [
        "# Every command and option\n\nMade of the code: what `nrccr COMMAND --help` prints. How they are used: "
        "[Commands](../commands.md).\n\n`nrccr --debug COMMAND ...` shows the traceback of an error, `nrccr --version` "
        "the version.\n\n"
    ]
    for name, command in sorted(group.commands.items()):
        inner = getattr(command, "commands", None) or {}
        shown = {f"{name} {verb}": found for verb, found in sorted(inner.items())} or {name: command}
        for title, found in shown.items():
            parts.append(_command(title, found, type(group).context_class))
    return "".join(parts)


def _command(title: str, command: Any, context: Any) -> str:
    """The section of one command."""
    current = context(command, info_name=f"nrccr {title}")
    usage = re.sub(r"\s+", " ", command.get_usage(current).removeprefix("Usage:")).strip()
    found: dict[str, list[tuple[str, ...]]] = {"argument": [], "option": []}
    for parameter in command.get_params(current):
        record = parameter.get_help_record(current)
        if record is not None and record[0] != "--help":
            found[parameter.param_type_name].append((f"`{record[0]}`", escaped(re.sub(r"\s+", " ", record[1]))))
    rows = table(("argument", "meaning"), found["argument"]) + table(("option", "meaning"), found["option"])
    help_text = escaped(re.sub(r"\s+", " ", command.help or "").strip())
    return f"## {title}\n\n{help_text}\n\n```\n{usage}\n```\n\n{rows}"


def configuration(kind: type[Config]) -> str:
    """Every declared key: default, range, meaning, which systems read it, what it changes."""
    keys = declared(kind)
    parts = [
        "# Every key of the configuration\n\nMade of the code; `nrccr config base` prints the same as a YAML file, "
        "`configs/base.yaml`, and `nrccr config schema` a JSON schema for editors. A key is set in a file or as "
        "`key=value` on the command line; one that a system does not read must keep its default.\n\n"
        "## General\n\n"
    ]
    parts.append(_keys(kind, [found for name, found in keys.items() if "." not in name]))
    for section, described in sections(kind).items():
        about = re.sub(r"\s+", " ", (described.__doc__ or "").strip())
        own = [found for name, found in keys.items() if name.startswith(f"{section}.")]
        parts.append(f"## {section}\n\n{escaped(about)}\n\n{_keys(kind, own)}")
    return "".join(parts)


def _keys(kind: type[Config], keys: list[Key]) -> str:
    return table(("key", "default", "meaning"), [_key(kind, found) for found in keys])


def _key(kind: type[Config], found: Key) -> tuple[str, ...]:
    """The row of one key."""
    readers = kind.readers(found)
    notes = [f"{name}: {known.NOTES[found.name]}" for name, known in kind.systems.items() if found.name in known.NOTES]
    choices = [str(choice) for choice in found.choices if not isinstance(choice, bool)]
    words = [f"`{choice}`" for choice in choices if any(word not in found.meaning for word in choices)]
    default = f"`{spelled(found.default)}`"
    if found.readings:
        default = "<br>".join(f"{name}: `{spelled(value)}`" for name, value in found.readings.items())
    facts = [
        *(escaped(part) for part in (found.meaning, *notes, found.words)),
        " or ".join(words),
        f"changes {CHANGES[found.changes]}",
        f"read by {', '.join(readers)}" if readers != tuple(kind.systems) else "",
    ]
    return f"`{found.name}`", default, "; ".join(fact for fact in facts if fact) + "."


def escaped(text: str) -> str:
    """Text whose signs mean themselves in Markdown, code in backticks as it is."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else _plain(part) for part in parts)


def _plain(text: str) -> str:
    marked = re.sub(r"([\\*_\[\]])", r"\\\1", text)
    return marked.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def python_names() -> str:
    """The page whose entries mkdocstrings fills from the docstrings."""
    parts = ["# Python reference\n\nMade of the docstrings. With examples: [From Python](../python.md).\n"]
    for heading, names in PYTHON.items():
        parts.append(f"\n## {heading}\n" + "".join(f"\n::: {name}{MEMBERS}" for name in names))
    return "".join(parts)


def pictures(checkout: Path) -> Iterator[Path]:
    """What pages show, and how."""
    for ending in ("png", "svg", "css"):
        yield from sorted((checkout / "docs").glob(f"*.{ending}"))


def write(checkout: Path, folder: Path) -> None:
    """The site's folder, made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in pages(checkout).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for picture in pictures(checkout):
        shutil.copy(picture, folder)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python scripts/site_pages.py FOLDER")
    write(CHECKOUT, Path(sys.argv[1]))
