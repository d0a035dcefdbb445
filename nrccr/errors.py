"""The one exception for mistakes a user can mend."""

from __future__ import annotations


class UserError(Exception):
    """Bad input: one line that names the file, line or id, what is wrong, and what to do.

    The command line prints it without a traceback and exits with code 2.
    """
