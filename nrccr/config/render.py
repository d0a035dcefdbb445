"""The declared keys as text: configs/base.yaml, and a JSON schema for editors."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

import yaml

from nrccr.config.keys import Key, declared, sections
from nrccr.config.schema import Config

WIDTH = 120
COLUMN = 24  # of comments, where the value leaves room
HEAD = (
    "Every key, its default and what it means; `nrccr config base` writes this file. Other files start with "
    "`extends: ../base.yaml` and change what differs; on the command line key=value does the same. An unknown key is "
    "refused. Names in brackets are the systems that read a key; elsewhere it must keep its default."
)


def spelled(value: Any) -> str:
    """A value as YAML writes it, on one line; by its type where YAML has no such values."""
    try:
        text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False)
    except (yaml.YAMLError, ValueError):
        return f"a {type(value).__name__}"
    return text.removesuffix("...\n").strip()


def base_yaml(kind: type[Config]) -> str:
    """The text of configs/base.yaml: every key with its default and its comment."""
    keys, known = declared(kind), sections(kind)
    lines = [f"# {line}" for line in textwrap.wrap(HEAD, WIDTH - 2)] + [""]
    for name, found in keys.items():
        if "." not in name:
            lines += _entry(name, spelled(found.default), _meaning(kind, found))
    for section, described in known.items():
        own = [found for name, found in keys.items() if name.startswith(f"{section}.")]
        readers = {kind.readers(found) for found in own}
        shared = readers.pop() if len(readers) == 1 else None
        about = (described.__doc__ or "").strip().removesuffix(".")
        named = _names(kind, shared) if shared is not None else ""
        lines += ["", *_entry(section, "", f"{named}{about[:1].lower()}{about[1:]}")]
        for found in own:
            name, value = found.name.partition(".")[2], spelled(found.default)
            lines += _entry(f"  {name}", value, _meaning(kind, found, named=shared is None))
    return "\n".join(lines) + "\n"


def json_schema(kind: type[Config]) -> dict[str, Any]:
    """A JSON schema of configuration files, for editors and other tools."""
    schema = kind.model_json_schema()
    extends = {"type": "string", "description": "another file, relative to this one, whose values this one replaces"}
    return schema | {"title": "Configuration of nrccr", "properties": {"extends": extends, **schema["properties"]}}


def _names(kind: type[Config], readers: tuple[str, ...]) -> str:
    """Who reads something, where not every system does."""
    return f"[{', '.join(readers)}] " if readers != tuple(kind.systems) else ""


def _meaning(kind: type[Config], found: Key, *, named: bool = True) -> str:
    words = [str(choice) for choice in found.choices if not isinstance(choice, bool)]
    meaning = found.meaning
    if any(word not in meaning for word in words):
        meaning = " | ".join(words) + (f": {meaning}" if meaning else "")
    systems = kind.systems.items()
    notes = [f"{name}: {system.NOTES[found.name]}" for name, system in systems if found.name in system.NOTES]
    return "; ".join([(_names(kind, kind.readers(found)) if named else "") + meaning, *notes])


def _entry(name: str, value: str, comment: str) -> Iterator[str]:
    """The lines of a key; a comment too long for one continues below."""
    start = f"{name}: {value}".rstrip()
    column = max(COLUMN, len(start) + 2)
    first, *others = textwrap.wrap(comment, WIDTH - column - 2, break_long_words=False, break_on_hyphens=False)
    yield f"{start:<{column}}# {first}"
    yield from (f"{'':<{column}}# {line}" for line in others)
