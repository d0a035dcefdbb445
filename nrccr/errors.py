"""The exceptions that the command line turns into one line."""

from __future__ import annotations


class UserError(Exception):
    """Bad input: one line that names the file, line or id, what is wrong, and what to do.

    The command line prints it without a traceback and exits with code 2.
    """

    def __init__(self, message: str) -> None:
        # torch's loader raises a worker's error anew, with the worker's whole traceback for a message.
        super().__init__(message.rpartition(f"{__name__}.UserError: ")[2].strip())


class Interrupted(Exception):  # noqa: N818 - no error
    """The user stopped a run; the state to resume from is saved."""


def first_line(error: BaseException) -> str:
    """The first line of a library's message, for one of ours."""
    return (str(error).strip() or type(error).__name__).split("\n")[0][:200]
