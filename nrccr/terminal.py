"""What the terminal shows."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nrccr.errors import printable


class _Console(Console):
    """Shows control characters of names and captions as escapes."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


def say(what: Table | str) -> None:
    """Show a table or a line on standard output."""
    _Console(highlight=False, emoji=False, soft_wrap=isinstance(what, str)).print(what, markup=False, crop=False)


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
