"""Configuration files as plain data: YAML without surprises, what a file extends, and where each key was set."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from nrccr.errors import UserError, is_unicode, require_content

MAX_BYTES = 256 * 2**10  # of a file
MAX_DEPTH = 20  # of lists and mappings within each other
MAX_DIGITS = 20
_NO_TEXT = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")  # the rest stands for bytes of names that are no Unicode


@dataclass(frozen=True)
class Layer:
    """Values from one place, and the line of each.

    Attributes:
        name: the place, for messages: a file, or `override KEY=VALUE`.
        values: what it sets, nested.
        lines: the line of each key and section by its name with dots, from 1; empty where there are no lines.
    """

    name: str
    values: dict[str, Any]
    lines: dict[str, int] = field(default_factory=dict)

    def sets(self, key: str) -> bool:
        """Whether it holds a key or section."""
        found: Any = self.values
        for part in key.split("."):
            if not isinstance(found, dict) or part not in found:
                return False
            found = found[part]
        return True

    def place(self, key: str) -> str:
        """`FILE:LINE` of a key, or of the section around it; the name alone where there are no lines."""
        while key and key not in self.lines:
            key = key.rpartition(".")[0]
        return f"{self.name}:{self.lines[key]}" if key else self.name


def read_layers(path: Path, *, alone: bool = False) -> list[Layer]:
    """The YAML file and all that it extends, the deepest first.

    Args:
        path: the file.
        alone: it is a run folder's, whole by itself; it must not name another file, nor the user's home as `~`.

    Raises:
        UserError: a missing or malformed file, or files that extend each other in a circle.
    """
    layers: list[Layer] = []
    seen: set[str] = set()
    current: Path | None = path
    while current is not None:
        place = os.path.realpath(current)  # Path.resolve() fails on links in a circle
        if place in seen:
            raise UserError(f"{current}: extends itself through other files; remove one extends")
        seen.add(place)
        layer = _read_yaml(current)
        if alone and "extends" in layer.values:
            raise UserError(f"{layer.place('extends')}: a run's configuration extends nothing; remove extends")
        parent = layer.values.pop("extends", None)
        layers.append(layer if alone else replace(layer, values=_at_home(layer.values)))
        if parent is not None and not isinstance(parent, str):
            raise UserError(f"{layer.place('extends')}: extends must name one YAML file")
        current = None if parent is None else current.parent / parent
    return layers[::-1]


def parse_override(override: str) -> Layer:
    """`key=value`, the key with dots, as a layer.

    Raises:
        UserError: another form, or a value that is not YAML.
    """
    key, equals, text = override.partition("=")
    if not equals or not key or not all(key.split(".")):
        raise UserError(f"override {override!r}: write key=value, for instance train.batch_size=64")
    if not is_unicode(text):
        text = json.dumps(text)  # a file's name in bytes that are no Unicode, which YAML would refuse
    nested: Any = _at_home(parse_yaml(text, f"override {override}")) if text else ""
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return Layer(f"override {override}", nested)


def _at_home(value: Any) -> Any:
    """A value with `~/` at the beginning of text, in it and in what it holds, as the user's home; no shell does it."""
    if isinstance(value, dict):
        return {key: _at_home(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_at_home(part) for part in value]
    return os.path.expanduser(value) if isinstance(value, str) and value.startswith("~/") else value


def merged(layers: Sequence[Layer]) -> dict[str, Any]:
    """The values of all layers; later ones replace earlier ones, key by key. Below a section `{}` clears."""
    whole: dict[str, Any] = {}
    for layer in layers:
        _merge(whole, layer.values, top=True)
    return whole


def _merge(base: dict[str, Any], values: dict[str, Any], *, top: bool) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict) and (value or top):
            _merge(base[key], value, top=False)
        else:
            base[key] = deepcopy(value)


def _decimal(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    """010 is ten, not eight."""
    digits = str(loader.construct_scalar(node))
    if len(digits) > MAX_DIGITS:
        message = f"a number of {len(digits)} digits; give at most {MAX_DIGITS}"
        raise yaml.constructor.ConstructorError(None, None, message, node.start_mark)
    return int(digits)


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: `no` is a word (a language, too), 1e-4 is a number, 2026-01-01 is a word. No key twice.

    Aliases are refused: a few of them can stand for more values than memory holds. A merge key `<<` is a key like any.
    So are tags (`!!bool`): a value's type is that of its key.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """A node that is no alias, has no tag and lies in few others."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        wrong = ""
        if isinstance(event, yaml.AliasEvent):
            wrong = "aliases (*name) are not supported"
        elif getattr(event, "tag", None) is not None:
            wrong = "tags (!name) are not supported; write the value itself"
        elif self.depth >= MAX_DEPTH:
            wrong = f"nested more than {MAX_DEPTH} deep"
        if wrong:
            raise yaml.composer.ComposerError(None, None, wrong, event.start_mark)
        self.depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        if isinstance(node, yaml.ScalarNode) and _NO_TEXT.search(node.value):
            message = "a character that no name or path may hold"
            raise yaml.composer.ComposerError(None, None, message, node.start_mark)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping of words, refused if a key is duplicated."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key.start_mark)
            if key.value in seen:
                message = f"key {key.value} is duplicated; keep one"
                raise yaml.constructor.ConstructorError(None, None, message, key.start_mark)
            seen.add(key.value)
        return {str(key): value for key, value in super().construct_mapping(node, deep).items()}


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith(":null")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_constructor("tag:yaml.org,2002:int", _decimal)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)


def parse_yaml(text: str, name: str) -> Any:
    """Read YAML text as plain values; `name` is its source, for messages.

    Raises:
        UserError: not YAML, or an interpolation `${...}`.
    """
    return _parse(text, name, several=False)[0]


def _parse(text: str, name: str, *, several: bool) -> tuple[Any, dict[str, int]]:
    """The values and the line of each key; with `several`, messages name lines."""
    before, found, _ = text.partition("${")
    if found:
        place = f"{name}:{1 + before.count(chr(10))}" if several else name
        raise UserError(f"{place}: ${{...}} is not supported; write the value itself")
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None, {}
            lines = dict(_lines(node))
            return loader.construct_document(node), lines
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{name}:{mark.line + 1}" if several and mark is not None else name
        what = " ".join(f"{error.context or ''} {error.problem or ''}".split())
        raise UserError(f"{place}: not valid YAML: {what}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from error


def _lines(node: yaml.Node, prefix: str = "") -> list[tuple[str, int]]:
    """The line of each key below a node, by its name with dots."""
    found: list[tuple[str, int]] = []
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            found += [(name, key.start_mark.line + 1), *_lines(value, f"{name}.")]
    return found


def holds_interpolation(value: Any) -> bool:
    """Whether text anywhere in a value, keys too, has `${`, however it was written in the file."""
    if isinstance(value, dict):
        return any(holds_interpolation(part) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple | set):
        return any(holds_interpolation(part) for part in value)
    return isinstance(value, str) and "${" in value


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by their dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _read_yaml(path: Path) -> Layer:
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: cannot read this configuration: not a regular file; give a YAML file")
        require_content(path)
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        text = raw.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read this configuration: {error}") from error
    if len(raw) > MAX_BYTES:
        raise UserError(f"{path}: more than {MAX_BYTES // 2**10} KiB, which no configuration has; give a YAML file")
    values, lines = _parse(text, str(path), several=True)
    if values is None:
        return Layer(str(path), {})
    if not isinstance(values, dict):
        raise UserError(f"{path}: a configuration must be a mapping of keys to values")
    return Layer(str(path), values, lines)
