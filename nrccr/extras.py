"""Libraries of the package's extras, imported where they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from nrccr.errors import UserError


def need(module: str, extra: str) -> Any:
    """A module of an extra.

    Raises:
        UserError: it is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != module.partition(".")[0]:
            raise
        raise UserError(
            f"{module} is not installed; install it with `pip install 'nrccr[{extra}]'`, or in a checkout with "
            f"`scripts/setup.sh {extra}`"
        ) from None
