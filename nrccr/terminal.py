"""What the terminal shows."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nrccr.errors import printable


class _Console(Console):
    """Shows control characters of names and captions as escapes, and what rich takes for its markup as it is."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


def say(what: Table | str) -> None:
    """Show a table or a line on standard output."""
    console = _Console(highlight=False, emoji=False, markup=False, soft_wrap=isinstance(what, str))
    console.print(what, crop=False)


@contextmanager
def without_hints() -> Iterator[None]:
    """Without transformers' warnings, which are about what we do on purpose; its progress bars on a terminal only."""
    from transformers.utils import logging as hints

    logger = logging.getLogger("transformers")
    before, bars = logger.level, hints.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    if not sys.stderr.isatty():
        hints.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(before)
        if bars:
            hints.enable_progress_bar()
