"""What the terminal shows."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table


def say(what: Table | str) -> None:
    """Show a table or a line on standard output."""
    Console(highlight=False, emoji=False, soft_wrap=isinstance(what, str)).print(what, markup=False, crop=False)


@contextmanager
def without_hints() -> Iterator[None]:
    """Without the warnings of transformers, which are about what we do on purpose."""
    logger = logging.getLogger("transformers")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
