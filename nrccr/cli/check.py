"""`nrccr check`: a collection, before hours of training."""

from __future__ import annotations

from nrccr.cli.options import ConfigFile, Overrides, Root
from nrccr.errors import UserError


def check(config: ConfigFile, root: Root, overrides: Overrides = None) -> None:
    """Validate a collection on disk before hours of training; exits with code 2 if something is wrong."""
    from nrccr.report.screen import counts_table
    from nrccr.systems.base import system_of
    from nrccr.systems.settings import load_config
    from nrccr.terminal import say

    loaded = load_config(config, overrides or [])
    found = system_of(loaded.model).check(loaded, root)
    say(counts_table(found.report, title=f"{found.name} in {found.folder}"))
    for note in found.report.notes:
        say(f"note: {note}")
    for problem in found.report.problems:
        say(f"problem: {problem}")
    if len(found.report.problems) == 1:
        raise UserError(f"{found.folder}: 1 problem found, listed above; fix it first")
    if found.report.problems:
        raise UserError(f"{found.folder}: {len(found.report.problems)} problems found, listed above; fix them first")
    say("no problems found")
