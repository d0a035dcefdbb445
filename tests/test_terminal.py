"""What is printed is text: no file, id or caption can steer a terminal."""

from __future__ import annotations

import pytest
from rich.table import Table

from nrccr.errors import UserError, printable
from nrccr.terminal import say

HOSTILE = "a\x1b[2Jb\x07\x9b31m\u202ec\udcca\u2028\r\x00d"


def test_escapes_are_shown() -> None:
    assert printable("狗 é \u200d\t\n") == "狗 é \u200d\t\n"
    shown = printable(HOSTILE)
    assert shown == r"a\x1b[2Jb\x07\x9b31m\u202ec\udcca\u2028\r\x00d" and shown.encode().decode().isprintable()
    assert str(UserError(f"{HOSTILE}: wrong; fix it")) == f"{shown}: wrong; fix it"


def test_a_worker_s_error_stays_its_last_line() -> None:
    assert str(UserError("Traceback\n  nrccr.errors.UserError: f: bad")) == "f: bad"


@pytest.mark.parametrize("name", ["x" * 10**6, "狗" * 10**5, "a b " * 10**5])
def test_long_names_are_shortened(name: str) -> None:
    said = str(UserError(f"caption {name} is no caption; remove it"))
    assert len(said) <= 2100 and said.startswith("caption ") and said.endswith("is no caption; remove it")
    path = "/".join(["folder"] * 40)
    assert str(UserError(f"{path}: missing")) == f"{path}: missing"


def test_what_rich_takes_for_markup_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("item", title="[red]query[/b]")
    table.add_row("[bold]a[/]")
    for what in ("[/b]", table):
        say(what)
    out = capsys.readouterr().out
    assert "[/b]" in out and "[red]query[/b]" in out and "[bold]a[/]" in out


def test_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(HOSTILE)
    table.add_row(HOSTILE)
    for what in (HOSTILE, table):
        say(what)
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\x07" not in out and "\udcca" not in out and r"\x1b" in out
