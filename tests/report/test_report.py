"""`nrccr report`: the folder that it writes, for every system, and what it refuses."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nrccr.cli.report import PARTS

Command = Callable[..., Any]


@pytest.fixture
def report(nrccr_command: Command, tiny_collection: Path) -> Command:
    """A function of runs and options: `nrccr report` on the tiny collection."""
    return lambda *words: nrccr_command("report", *words, "--root", tiny_collection, "--device", "cpu")


def test_report_of_two_runs(trained: Path, report: Command, tmp_path: Path) -> None:
    other = shutil.copytree(trained, tmp_path / "other")
    done = report(trained, other, "--out", tmp_path / "made")
    assert (done.code, done.out) == (0, f"written: {tmp_path}/made/report.html\n")
    # A machine may have no font for the Chinese captions.
    assert done.err == "" or (done.err.startswith("nrccr: No installed font has") and done.err.count("\n") == 1)
    names = {path.name for path in (tmp_path / "made").iterdir()}
    assert {"report.html", "losses.svg", "losses.png", "losses.csv", "length-gain.svg", "results.csv"} <= names
    with (tmp_path / "made" / "length-gain.csv").open() as file:
        assert {float(row["gain"]) for row in csv.DictReader(file)} == {0.0}, "the same run twice"
    html = (tmp_path / "made" / "report.html").read_text()
    assert "Report: run, other" in html and "Nothing to show of these runs: translation noise." in html
    before = {name: (tmp_path / "made" / name).read_bytes() for name in names if name.startswith("length")}
    assert report(trained, other, "--out", tmp_path / "made", "--parts", "length").code == 0
    after = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    assert after.pop("report.html") and after == before


def test_parts_and_place(trained: Path, report: Command) -> None:
    done = report(trained, "--parts", "curves")
    assert done.code == 0, done.err
    names = {path.stem for path in (trained / "report").iterdir()}
    assert names == {"report", "losses", "validation", "learning-rate", "discriminator"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--parts", "curves,pies"], f"--parts pies: no such part; choose from {', '.join(PARTS)}"),
        (["--parts", "noise"], "--parts noise: these runs have nothing to show there"),
        (["--device", "tpu"], "--device tpu: unknown device"),
    ],
)
def test_mistakes(words: list[str], said: str, trained: Path, nrccr_command: Command, tiny_collection: Path) -> None:
    done = nrccr_command("report", trained, "--root", tiny_collection, *words)
    assert done.code == 2 and said in done.err and done.err.count("\n") == 1
    assert not (trained / "report").exists()


def test_what_is_there_stays(trained: Path, report: Command, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    done = report(trained, "--out", tmp_path / "mine")
    assert done.code == 2 and "exists and is no report (holds notes.txt)" in done.err
    (trained / "report").symlink_to(tmp_path / "mine")
    done = report(trained)
    assert (
        done.code == 2 and "link" in done.err and [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    )


def test_unfinished_and_damaged_runs(trained: Path, report: Command) -> None:
    record = json.loads((trained / "run.json").read_text())
    (trained / "run.json").write_text(json.dumps({key: value for key, value in record.items() if key != "finished"}))
    done = report(trained)
    assert done.code == 2 and "its training has not finished" in done.err
    (trained / "run.json").write_text(json.dumps(record))
    with (trained / "metrics.jsonl").open("a") as file:
        file.write("{half a li")
    done = report(trained)
    assert done.code == 2 and "metrics.jsonl:" in done.err and done.err.count("\n") == 1


def test_mlcmr(nrccr_command: Command, mlcmr_config: Path, both_languages: Path, tmp_path: Path) -> None:
    run, place = tmp_path / "m", ("--root", both_languages, "--device", "cpu")
    done = nrccr_command("train", mlcmr_config, *place, "--out", run, "train.epochs=1")
    assert done.code == 0, done.err
    done = nrccr_command("report", run, *place)
    assert done.code == 0, done.err
    with (run / "report" / "by-language.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["queries in"] for row in rows} == {"zh", "en", "mean"} and rows[-1]["over"] == "16"
    names = {path.name for path in (run / "report").iterdir()}
    assert {"length.svg", "length-2.svg", "text-to-text.csv"} <= names and "discriminator.svg" not in names


def test_c2kd(nrccr_command: Command, c2kd_config: Path, tiny_languages: Path, tmp_path: Path) -> None:
    run, place = tmp_path / "c", ("--root", tiny_languages, "--device", "cpu")
    done = nrccr_command("train", c2kd_config, *place, "--out", run, "--test", "train.epochs=1")
    assert done.code == 0, done.err
    done = nrccr_command("report", run, *place)
    assert done.code == 0, done.err
    written = json.loads((run / "test" / "metrics.json").read_text())
    with (run / "report" / "by-language.csv").open() as file:
        rows = {row["queries in"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"en", "de", "zh", "mean"}
    for language, own in written["languages"].items():
        assert float(rows[language]["R@1"]) == pytest.approx(own["text_to_visual"]["R@1"])
    assert float(rows["mean"]["rank variance"]) == pytest.approx(written["rank_variance"])
    assert int(rows["mean"]["over"]) == written["rank_variance_items"]


def test_images(image_run: Command, nrccr_command: Command, tiny_images: Path, tmp_path: Path) -> None:
    run = tmp_path / "i"
    assert image_run("train", "--out", run, "visual.kind=vectors").code == 0
    done = nrccr_command("report", run, "--root", tiny_images, "--device", "cpu", "--parts", "card")
    assert done.code == 0, done.err
    with (run / "report" / "facts.csv").open() as file:
        assert {row["fact"]: row["i"] for row in csv.DictReader(file)}["test items, count"] == "8"
