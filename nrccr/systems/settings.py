"""The whole configuration: the shared sections and those of every system in the table; files and overrides."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import Field, create_model

from nrccr.config.build import build
from nrccr.config.keys import Section, key
from nrccr.config.schema import Config, SystemSettings
from nrccr.config.yaml import Layer, parse_override, read_layers
from nrccr.errors import UserError
from nrccr.systems.table import SYSTEMS, part_of


def config_type() -> type[Config]:
    """The type of a whole configuration, with the sections of every system in the table."""
    return _composed(tuple(SYSTEMS.items()))


def load_config(path: Path, overrides: Sequence[str] = (), *, alone: bool = False) -> Config:
    """Read a YAML file, what it extends, and overrides, into a typed, checked configuration.

    Args:
        path: the YAML file. Its `extends:` names another, relative to it, whose values it replaces.
        overrides: `key=value` each, the key with dots.
        alone: it is a run folder's, which extends nothing.

    Raises:
        UserError: a missing or malformed file, an unknown key, a value of the wrong type or out of range.
    """
    return build_config(read_layers(path, alone=alone), overrides)


def build_config(layers: Sequence[Layer], overrides: Sequence[str] = ()) -> Config:
    """Merge layers of plain values, then overrides, into a checked configuration.

    Raises:
        UserError: as load_config; the message names where the key was set.
    """
    config = build(config_type(), [*layers, *map(parse_override, overrides)])
    named = {override.partition("=")[0].strip() for override in overrides}
    if config.data.languages and "data.target" in named and "data.languages" not in named:
        chosen = ",".join(config.data.languages)
        raise UserError(f"data.target: not used beside data.languages=[{chosen}]; choose with data.languages instead")
    return config


@lru_cache(maxsize=8)
def _composed(table: tuple[tuple[str, str], ...]) -> type[Config]:
    """The type for a table of systems; a test may add one."""
    systems = {name: cast(SystemSettings, part_of(name, "settings")) for name, _ in table}
    extra: dict[str, type[Section]] = {}
    for system in systems.values():
        extra |= system.SECTIONS
    choices: Any = Literal
    declared = Config.model_fields["model"]
    fields: dict[str, Any] = {name: (kind, Field(default_factory=kind)) for name, kind in extra.items()}
    fields["model"] = (choices[tuple(systems)], key(declared.default, declared.description or ""))
    composed = create_model("Config", __base__=Config, __module__=__name__, __doc__=Config.__doc__, **fields)
    composed.systems = systems
    return composed
