"""Configuration files as plain data: YAML without surprises, and what a file extends."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from nrccr.errors import UserError


def read_layers(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The YAML file and all that it extends, the deepest first, as plain values.

    Raises:
        UserError: a missing or malformed file, or files that extend each other in a circle.
    """
    layers: list[tuple[str, dict[str, Any]]] = []
    seen: set[Path] = set()
    current: Path | None = path
    while current is not None:
        if current.resolve() in seen:
            raise UserError(f"{current}: extends itself through other files; break the circle")
        seen.add(current.resolve())
        values = _read_yaml(current)
        parent = values.pop("extends", None)
        layers.append((str(current), values))
        if parent is not None and not isinstance(parent, str):
            raise UserError(f"{current}: extends must name one YAML file")
        current = None if parent is None else current.parent / parent
    return layers[::-1]


def _decimal(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    """010 is ten, not eight."""
    return int(str(loader.construct_scalar(node)))


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: `no` is a word (a language, too), 1e-4 is a number, 2026-01-01 is a word. No key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping, refused if a key stands there twice."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                message = f"key {key.value} stands there twice"
                raise yaml.constructor.ConstructorError(None, None, message, key.start_mark)
            seen.add(key.value)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
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
    """Read YAML text as plain values; `name` says in messages where it comes from.

    Raises:
        UserError: not YAML, or an interpolation `${...}`.
    """
    if "${" in text:
        raise UserError(f"{name}: ${{...}} is not supported; write the value itself")
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from error


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by their dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read this configuration: {error}") from error
    values = parse_yaml(text, str(path))
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: a configuration is a mapping of keys to values")
    return values
