"""The command line. Heavy imports stay inside the commands, so that `nrccr --help` answers at once."""

from __future__ import annotations

import io
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from nrccr import __version__
from nrccr.cli.bank import bank
from nrccr.cli.baseline import baseline
from nrccr.cli.card import card
from nrccr.cli.check import check
from nrccr.cli.compare import compare
from nrccr.cli.config import config_app
from nrccr.cli.convert import convert
from nrccr.cli.export import export
from nrccr.cli.extract import extract
from nrccr.cli.generate import generate
from nrccr.cli.import_table import import_table
from nrccr.cli.index import index
from nrccr.cli.launch import STOPPED, end_of_several, exit_code, leave, says_why
from nrccr.cli.moments import moments
from nrccr.cli.noise import noise
from nrccr.cli.qbnorm import qbnorm
from nrccr.cli.rank import rank
from nrccr.cli.report import report
from nrccr.cli.search import search
from nrccr.cli.serve import serve
from nrccr.cli.table import table
from nrccr.cli.test import test
from nrccr.cli.train import train
from nrccr.cli.translate import translate
from nrccr.errors import FULL, Interrupted, UserError, death_of_worker, first_line, not_written, printable

app = typer.Typer(
    help="Find a video with a query in a language that has no human-labelled training data. "
    "With --debug, anywhere, an error shows its traceback.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(show: bool) -> None:
    if show:
        typer.echo(f"nrccr {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of `nrccr` itself, given before the command."""


for verb in (
    generate,
    check,
    train,
    test,
    baseline,
    bank,
    rank,
    compare,
    table,
    report,
    card,
    noise,
    qbnorm,
    convert,
    extract,
    translate,
    export,
    index,
    search,
    moments,
    serve,
):
    app.command()(verb)
app.command("import")(import_table)
app.add_typer(config_app, name="config")


def main() -> None:
    """Run the command line: a user's error is one line and exit code 2; `--debug` shows its traceback before."""
    arguments = [_at_home(argument) for argument in sys.argv[1:] if argument != "--debug"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a locale may know no Chinese
            stream.reconfigure(errors="backslashreplace")
    try:
        # Typer turns Ctrl-C into this code, and returns it.
        if app(arguments or ["--help"], standalone_mode=False) == STOPPED:
            raise KeyboardInterrupt
    except BaseException as error:
        if len(arguments) < len(sys.argv) - 1:
            traceback.print_exc()
        message, code = _explain(error)
        if says_why(error):
            typer.echo(f"nrccr: {' '.join(printable(message).split())}", err=True)
        leave(error)
        code = exit_code(error, code)
        end_of_several(code)
        raise SystemExit(code) from None
    end_of_several(0)


def _at_home(argument: str) -> str:
    """`--option=~/...` with the user's home, which a shell only puts in where a word begins."""
    option, equals, value = argument.partition("=")
    home = option.startswith("--") and value.startswith("~/")
    return f"{option}{equals}{os.path.expanduser(value)}" if home else argument


def _verb(error: Any) -> str:
    """The command that a usage error is about, with a space after it; nothing if there is none."""
    context, names = getattr(error, "ctx", None), ""
    while context is not None and context.parent is not None:  # the outermost is `nrccr` itself, however it was started
        context, names = context.parent, f"{context.info_name} {names}"
    return names


def _explain(error: BaseException) -> tuple[str, int]:
    """One line and an exit code for an error that a user can fix; others are raised again."""
    if isinstance(error, UserError):
        return str(error), 2
    if isinstance(error, Interrupted):
        return str(error), STOPPED
    if isinstance(error, KeyboardInterrupt):
        return "stopped", STOPPED
    if hasattr(error, "format_message"):  # a usage error
        return f"{error.format_message().removesuffix('.')}; see `nrccr {_verb(error)}--help`", 2
    if (death := death_of_worker(error)) is not None:
        return f"a process that reads data died ({first_line(death)}); if memory is short lower data.workers", 2
    if isinstance(error, OSError):
        if error.errno in FULL:
            return str(not_written(Path(os.fsdecode(error.filename or "a file")), error)), 2
        return f"{error.filename or 'a file'}: {error.strerror or error}", 2
    if type(error).__name__ == "OutOfMemoryError":
        return "the device is out of memory; lower train.batch_size or evaluation.batch_size", 2
    raise error
