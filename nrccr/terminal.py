"""What the terminal shows."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table


def say(what: Table | str) -> None:
    """Show a table or a line on standard output."""
    Console(highlight=False, emoji=False, soft_wrap=isinstance(what, str)).print(what, markup=False, crop=False)
