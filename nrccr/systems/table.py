"""The table of systems: a new one is a folder like these and one line here.

A folder holds `settings.py`, its configuration keys, and `system.py`, the five functions of
`nrccr.systems.base.System`. Both are imported on demand: no system loads another.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from nrccr.errors import UserError

SYSTEMS = {
    "nrccr": "nrccr.systems.nrccr",
    "mlcmr": "nrccr.systems.mlcmr",
    "c2kd": "nrccr.systems.c2kd",
    "quartet": "nrccr.systems.quartet",
    "baseline": "nrccr.systems.baseline",
}


def part_of(name: str, part: str) -> ModuleType:
    """A module of a system's folder.

    Args:
        name: the system, as `model` names it.
        part: `settings` or `system`; `convert` or `fit` where it has one.

    Raises:
        UserError: no such system.
    """
    if name not in SYSTEMS:
        raise UserError(f"model={name}: no such system; choose one of {', '.join(SYSTEMS)}")
    return import_module(f"{SYSTEMS[name]}.{part}")


def has_part(name: str, part: str) -> bool:
    """Whether a system's folder holds a module, such as `convert` for published data."""
    return find_spec(f"{SYSTEMS[name]}.{part}") is not None
