"""The numbers behind the lists of translations that Quartet trusts least."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from nrccr.errors import UserError
from nrccr.report import distrust, trusted
from nrccr.report.finished import ReportRun, read
from nrccr.systems.quartet.trusted import Trusted, write_trusted

Command = Callable[..., Any]


@pytest.fixture
def run(noisy: list[ReportRun], quartet_config: Path, nrccr_command: Command, tmp_path: Path) -> ReportRun:
    """Quartet in German on the generated collection of the other two runs."""
    values = {
        "extends": str(quartet_config),
        "data": {"collection": "generated", "target": "de", "translator": "noise40"},
        "text": {"model": str(noisy[0].root / "generated" / "backbone")},
        "train": {"epochs": 1},
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(values))
    words = ("--root", noisy[0].root, "--out", tmp_path / "quartet", "--device", "cpu")
    done = nrccr_command("train", tmp_path / "small.yaml", *words)
    assert done.code == 0, done.err
    (found,) = read([tmp_path / "quartet"], noisy[0].root, "cpu")
    return found


def test_numbers_by_hand(run: ReportRun) -> None:
    """Trust that is less the more words are lost finds every wrong translation; the reverse finds none."""
    first = trusted._checked(run)
    lost = trusted.lost_of(first.known)
    assert len(lost) == 20 and len(set(lost.tolist())) > 2
    path, worst = run.folder / "trust.tsv", max(range(len(lost)), key=lambda at: lost[at])
    for sign in (-1, 1):
        rows = zip(first.rows, lost.tolist(), strict=True)
        write_trusted(path, [row._replace(trust=0.5 + sign * gone / 3) for row, gone in rows])
        numbers, shown = trusted.parts([run])
        assert numbers.name == "trust-numbers" and shown.name == "trust"
        (row,) = numbers.rows
        assert (row["run"], row["language"], row["translations"]) == ("quartet", "de", 20)
        assert row["chance to trust the wrong one less"] == (1 if sign < 0 else 0)
        assert row["words lost by the least trusted 5%, %"] == pytest.approx(100 * (max if sign < 0 else min)(lost))
        assert row["words lost by all, %"] == pytest.approx(100 * lost.mean())
        assert row["wrong %"] == pytest.approx(100 * (lost > np.median(lost)).mean())
        assert len(shown.rows) == trusted.TOP
        assert shown.languages == {"source": "en", "translation": "de", "clean sentence": "de"}
        if sign < 0:
            top = shown.rows[0]
            assert top["caption"] == first.rows[worst].caption and top["source"] == first.sources[first.rows[worst].key]
            assert top["words lost %"] == pytest.approx(100 * lost[worst])


def test_other_runs_have_none_and_lists_follow_the_others(run: ReportRun, noisy: list[ReportRun]) -> None:
    assert trusted.parts(noisy) == []
    assert [part.name for part in distrust.parts([run])] == [
        "distrust", "distrust-numbers", "distrusted", "trust-numbers", "trust"
    ]  # fmt: skip
    (run.folder / "trust.tsv").write_text("trust\n")
    with pytest.raises(UserError, match=r"trust\.tsv:1: the header"):
        trusted.parts([run])


def test_nothing_is_claimed_where_the_right_translation_is_not_known(run: ReportRun) -> None:
    """One translation of another video: the list alone, without the clean sentences of the others."""
    path = run.folder / "trust.tsv"
    write_trusted(path, [Trusted(0.1, "elsewhere#enc#0", "de", "ein Wort"), *trusted._checked(run).rows])
    (shown,) = trusted.parts([run, replace(run, label="other")])[:1]
    assert shown.name == "trust" and shown.rows[0]["source"] is None
    assert shown.rows[0]["translation"] == "ein Wort" and "clean sentence" not in shown.rows[1]
    assert [part.name for part in trusted.parts([run, replace(run, label="other")])] == ["trust", "trust-2"]
