"""Translations of a collection of own data, whose source may be any language and whose captions hold escapes."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nrccr.data.captions import read_captions

ENGINE = "sed s/^/x:/"


@pytest.mark.parametrize(("source", "word"), [("en", "enc"), ("fr", "fr")])
def test_translated_own_data(source: str, word: str, tmp_path: Path, nrccr_command: Callable[..., Any]) -> None:
    rows = [("train0", source, "un chien\\n", "train")]
    rows += [(f"{split}0", language, language, split) for split in ("val", "test") for language in (source, "de")]
    with (tmp_path / "table.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("item", "language", "text", "split"), *rows])
    folder = tmp_path / "root" / "mine"
    assert nrccr_command("import", tmp_path / "table.csv", folder, "--source", source).code == 0
    done = nrccr_command(
        "translate", folder, "--to", "de", "--engine", ENGINE, "--back-engine", ENGINE, "--translator", "sed"
    )
    assert done.code == 0, done.err
    text = folder / "TextData"
    there = text / f"minetrain_sed_{word}2de.caption.txt"
    assert there.read_text(encoding="utf-8") == f"train0#{word}2de#0 x:un chien\\\\n\n"
    assert read_captions(there).texts == ["x:un chien\\n"]
    assert read_captions(text / f"minetrain_sed_{word}2de2{word}.caption.txt").texts == ["x:x:un chien\\n"]
    assert read_captions(text / f"minetest_sed_de2{word}.caption.txt").texts == ["x:de"]
    checked = nrccr_command("check", "nrccr/own", "--root", tmp_path / "root", "data.collection=mine", "data.target=de",
                            "data.translator=sed", f"data.source={source}")  # fmt: skip
    assert checked.code == 2 and "TextData" not in checked.out + checked.err
