"""The file of trust: written in order, read back, and refused in one line where it is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from nrccr.errors import UserError
from nrccr.systems.quartet.trusted import HEADER, Trusted, read_trusted, write_trusted


def test_what_is_written_is_read(tmp_path: Path) -> None:
    rows = [
        Trusted(0.75, "a#b#enc#0", "de", "ein  Hund\tläuft\n"),
        Trusted(0.25, "v#enc#1", "zh", "狗"),
        Trusted(0.75, "v#enc#2", "de", ""),
    ]
    write_trusted(tmp_path / "trust.tsv", iter(rows))
    found = read_trusted(tmp_path / "trust.tsv")
    assert found == [rows[1], rows[0]._replace(translation="ein Hund läuft"), rows[2]]
    assert [row.key for row in found] == [("v", "1"), ("a#b", "0"), ("v", "2")]
    write_trusted(tmp_path / "trust.tsv", [])
    assert read_trusted(tmp_path / "trust.tsv") == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "trust.tsv:1: the header"),
        (b"trust\n", "trust.tsv:1: the header"),
        (b"0.5\tv#enc#0\tde\t\xff\n", "trust.tsv: cannot be read"),
        (b"0.5\tv#enc#0\tde\tx\n0.5\tv#enc#0\tde\n", "trust.tsv:3: not a trust"),
        (b"0.5\tv#enc#0\tde\tx\ty\n", "trust.tsv:2: not a trust"),
        (b"0.5\tv\tde\tx\n", "trust.tsv:2: not a trust"),
        (b"nan\tv#enc#0\tde\tx\n", "trust.tsv:2: not a trust"),
        (b"1.5\tv#enc#0\tde\tx\n", "trust.tsv:2: not a trust"),
        (b"\n", "trust.tsv:2: not a trust"),
        (None, "trust.tsv: cannot be read"),
    ],
)
def test_damage_is_one_line(tmp_path: Path, text: bytes | None, says: str) -> None:
    path = tmp_path / "trust.tsv"
    if text is not None:
        path.write_bytes(text if says.endswith("header") else HEADER.encode() + b"\n" + text)
    with pytest.raises(UserError) as refused:
        read_trusted(path)
    assert says in str(refused.value) and "\n" not in str(refused.value) and "delete it" in str(refused.value)
