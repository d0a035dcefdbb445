"""What C2KD reads beside captions: the list of words, the teachers, their English; `nrccr check` looks at all of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[3]
Command = Callable[..., Any]


@pytest.fixture
def look(nrccr_command: Command, c2kd_config: Path, tiny_languages: Path) -> Callable[..., list[str]]:
    """A function of options: the problems that `nrccr check` finds in the tiny collection."""

    def run(*options: str) -> list[str]:
        done = nrccr_command("check", c2kd_config, "--root", tiny_languages, *options)
        problems = [line.removeprefix("problem: ") for line in done.out.splitlines() if line.startswith("problem: ")]
        assert done.code == (2 if problems else 0) and len(done.err.splitlines()) == bool(problems), done.err
        assert problems or "no problems found" in done.out
        return problems

    return run


@pytest.fixture
def text(tiny_languages: Path) -> Path:
    return tiny_languages / "multi_msrvtt" / "TextData"


def test_words_that_count(nrccr_command: Command, c2kd_config: Path, tiny_languages: Path, tmp_path: Path) -> None:
    """Captions without a listed word are counted as empty, whole words in their own case."""
    words = tmp_path / "words.txt"
    english = (tiny_languages / "multi_msrvtt" / "TextData" / "multi_msrvtttrain_en_words.caption.txt").read_text()
    captions = [set(line.split()[1:]) for line in english.splitlines()]
    for known in ({"dog"}, {"dog", "man"}, set().union(*captions), {"Dog", "do"}):
        words.write_text("\n".join(sorted(known)) + "\n")
        run = ("--root", tiny_languages, "--out", tmp_path / "run", "--device", "cpu", "--overwrite")
        done = nrccr_command("train", c2kd_config, *run, f"c2kd.words={words}")
        assert done.code == 0, done.err
        assert f"0 cut, {sum(not known & own for own in captions)} empty" in done.out


def test_without_english(look: Callable[..., list[str]], text: Path) -> None:
    wanted = "data.languages: training needs English captions; add en"
    assert look("data.languages=[de,zh]") == [wanted]
    assert look("data.languages=[de,zh]", "c2kd.stage=zero_shot") == []  # which trains on English alone
    (text / "multi_msrvtttrain_en.caption.txt").unlink()
    assert look() == [f"{text}: training needs English captions; add multi_msrvtttrain_en.caption.txt"]
    (missing,) = look("c2kd.stage=zero_shot")
    assert missing.startswith(f"{text}: no file multi_msrvtttrain_en.caption.txt")


def test_languages_that_zero_shot_does_not_train_on(look: Callable[..., list[str]], text: Path) -> None:
    path = text / "multi_msrvtttrain_de.caption.txt"
    path.write_text("broken\n")
    assert len(look()) == 1 and look("c2kd.stage=zero_shot") == []
    path.write_text("train0#de#7 ein Hund\n")
    assert look() == [f"{path}: no caption has the item and number of one in multi_msrvtttrain_en.caption.txt; "
                      "compare ids"]  # fmt: skip


def test_everything_beside_the_captions_at_once(look: Callable[..., list[str]], text: Path, tmp_path: Path) -> None:
    english, words = text / "multi_msrvtttrain_en_words.caption.txt", tmp_path / "words.txt"
    english.write_text(english.read_text() + "broken\n")
    nowhere, there = tmp_path / "nowhere", tmp_path
    options = ["c2kd.stage=distill", f"c2kd.teachers=[{nowhere},{there}]", f"c2kd.words={words}"]
    bad, unread, absent = look(*options)
    assert bad.startswith(f"{english}:24: 'broken' is not an id")
    assert unread.startswith(f"{words}: cannot be read as a list of words")
    assert absent == f"c2kd.teachers: {nowhere}: no such run folder or checkpoint; train it first or name another"
    words.write_text("\n")
    assert look(*options)[1] == f"{words}: holds no words; write one a line, or leave c2kd.words out"
