"""From layers of plain values to a checked configuration; every error is one line that names where the key was set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from nrccr.config.keys import declared, sections
from nrccr.config.limits import check_readers, check_together
from nrccr.config.render import spelled
from nrccr.config.schema import Config
from nrccr.config.yaml import Layer, holds_interpolation, merged
from nrccr.errors import UserError

C = TypeVar("C", bound=Config)
RANGES = {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number"}
TYPES = {
    "string": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "dict": "a mapping, such as {name: value}",
}


def build(kind: type[C], layers: Sequence[Layer]) -> C:
    """Merge layers into a configuration.

    Args:
        kind: its type.
        layers: later ones replace earlier ones, key by key.

    Raises:
        UserError: an unknown key, a value of the wrong type or out of range, a key that the system does not read, or
            values that do not go together.
    """

    def refuse(message: str, *keys: str) -> NoReturn:
        raise UserError(f"{_place(layers, keys)}: {message}")

    for layer in layers:
        for key, value in layer.values.items():
            inner = value if isinstance(value, dict) else {}
            bad = next((f"{key}.{part}" for part, found in inner.items() if holds_interpolation([part, found])), key)
            if holds_interpolation([key, value]):
                raise UserError(f"{layer.place(bad)}: ${{...}} is not supported in {bad}; write the value itself")
        for section in sections(kind):
            if section in layer.values and not isinstance(layer.values[section], dict):
                raise UserError(f"{layer.place(section)}: {section} is a section; write {section}.KEY=VALUE")
    try:
        config = kind.model_validate(merged(layers))
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        loc = tuple(part for part in found["loc"] if part != "[key]")
        depth = next((at for at, part in enumerate(loc) if isinstance(part, int)), len(loc))
        key = ".".join(str(part) for part in loc[:depth])
        message = _explain(kind, key, found["type"], found["input"], inside=depth < len(loc))
        raise UserError(f"{_place(layers, [key])}: {message}") from None
    check_readers(config, refuse)
    check_together(config, refuse)
    system = kind.systems.get(config.model)
    if system is not None:
        system.check(config, refuse)
    return config


def _place(layers: Sequence[Layer], keys: Sequence[str]) -> str:
    """Where the last of these keys was set; the last layer if none was."""
    for layer in reversed(layers):
        for key in keys:
            if layer.sets(key):
                return layer.place(key)
    return layers[-1].name if layers else "configuration"


def _explain(kind: type[BaseModel], key: str, problem: str, value: Any, *, inside: bool) -> str:
    """What is wrong with a key's value, and what to do; with `inside`, of an entry of its list."""
    known = declared(kind).get(key)
    if known is None:
        section = sections(kind).get(key.partition(".")[0])
        names = (section if section is not None and "." in key else kind).model_fields
        return f"unknown key {key}; known here: {', '.join(names)}"
    if problem in ("string_too_short", "too_short"):  # the latter of a file's name
        return f"{key} {'holds an empty name' if inside else 'is empty'}; give {known.words}"
    if problem in RANGES:
        words = "finite" if problem == "finite_number" else known.words
        return f"{key}={spelled(value)} is out of range; it must be {words}"
    if problem == "literal_error":
        return f"{key}={spelled(value)} is unknown; choose one of {', '.join(known.choices)}"
    if problem == "list_type":
        return f"{key}: needs a list, such as [en,de]; write {key}=[VALUE]"
    wanted = TYPES.get(problem.removesuffix("_type"), "another value")
    entry = "each of its entries" if inside else "it"
    quotes = (
        f", put it in quotes ('{key}=\"{value}\"' in a shell)"
        if problem == "string_type" and isinstance(value, (int, float))
        else ""
    )
    return f"{key}: {spelled(value)} has the wrong type; {entry} must be {wanted}{quotes}"
