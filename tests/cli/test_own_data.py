"""The whole way of own data: a table, a collection, a trained and tested run, an equal table."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nrccr.data.bigfile import write_bigfile

Command = Callable[..., Any]
HEADER = ["item", "language", "text", "split", "kind", "translator"]
ENGLISH = ["a", "man", "woman", "dog", "runs", "sings", "red", "ball", "in", "water"]
CHINESE = list("人女狗跑唱红球水的在")
ODD = [",", '"', "\n", "\r\n", "🐶", "👩‍👩‍👧", " ", "\\n", "\t", "'", ";"]
VIDEOS = {"train": 40, "val": 20, "test": 20}  # 40 x 3 + 20 x 2 + 20 x 2 = 200 rows


def odd_text(choose: random.Random, words: list[str]) -> str:
    """Words with commas, quotes, emoji and line breaks between them, and perhaps around them."""
    parts = [part for word in choose.choices(words, k=4) for part in (word, choose.choice(ODD))]
    return "".join(choose.choice([parts, parts[:-1], [choose.choice(ODD), *parts]]))


def make_rows() -> list[list[str]]:
    """200 rows: English captions with translations and the way back; Chinese queries with translations."""
    choose, rows = random.Random(0), []
    for split, count in VIDEOS.items():
        kinds = [("en", "human", ""), ("zh", "translated", "m2m"), ("en", "translated", "m2m")]
        for video in range(count):
            for language, kind, translator in kinds if split == "train" else [("zh", "human", ""), kinds[2]]:
                text = odd_text(choose, ENGLISH if language == "en" else CHINESE)
                rows.append([f"{split}{video}", language, text, split, kind, translator])
    choose.shuffle(rows)
    return rows


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A CSV of 200 rows."""
    path = tmp_path / "table.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([HEADER, *make_rows()])
    return path


def test_from_a_table_to_a_trained_run_and_back_to_an_equal_table(
    nrccr_command: Command, table: Path, tiny_config: Path, tmp_path: Path
) -> None:
    root, run = tmp_path / "root", tmp_path / "run"
    done = nrccr_command("import", table, root / "mine")
    assert done.code == 0, done.err
    assert "train: 40 captions in en to zh to en, translated by m2m" in done.out and "80 items" in done.out

    keys = ["data.collection=mine", "data.target=zh", "data.translator=m2m", "reading=corrected"]
    done = nrccr_command("check", tiny_config, "--root", root, *keys)
    assert done.code == 2 and "mine/FeatureData/NAME: no such feature folder" in done.out
    values = np.random.default_rng(0)
    videos = [f"{split}{video}" for split, count in VIDEOS.items() for video in range(count)]
    write_bigfile(
        root / "mine" / "FeatureData" / "clip", [(video, values.standard_normal((3, 16))) for video in videos]
    )
    done = nrccr_command("check", tiny_config, "--root", root, *keys)
    assert done.code == 0 and "no problems found" in done.out, done.out
    done = nrccr_command("check", tiny_config, "--root", root, "data.collection=mine", "data.target=de")
    assert done.code == 2 and done.out.count("make it with `nrccr translate`") == 4  # both ways, two kinds of queries
    assert "minetest_de.caption.txt (mine, test, target captions); add such rows of kind human" in done.out

    done = nrccr_command("train", tiny_config, "--root", root, "--out", run, "--device", "cpu", *keys)
    assert done.code == 0, done.err
    done = nrccr_command("test", run, "--root", root, "--device", "cpu")
    assert done.code == 0, done.err
    metrics = json.loads((run / "test" / "metrics.json").read_text())
    assert (metrics["collection"], metrics["queries"], metrics["items"]) == ("mine", 20, 20)
    done = nrccr_command("rank", run, "--root", root, "--device", "cpu", "人\n跑")
    assert done.code == 0 and "test" in done.out, done.err
    # By its folder, from anywhere.
    done = nrccr_command(
        "test", run, "--root", tmp_path, "--out", tmp_path / "o", "--device", "cpu", f"data.collection={root / 'mine'}"
    )
    assert done.code == 0, done.err
    assert (tmp_path / "o" / "ranks.tsv").read_text() == (run / "test" / "ranks.tsv").read_text()

    done = nrccr_command("export", root / "mine", tmp_path / "back.csv")
    assert done.code == 0, done.err
    rows = make_rows()
    with (tmp_path / "back.csv").open(newline="", encoding="utf-8") as file:
        back = list(csv.reader(file))
    assert back[0] == HEADER and len(rows) == 200 and sorted(back[1:]) == sorted(rows)


def test_another_source_language_is_trained_uncleaned(
    nrccr_command: Command, table: Path, tiny_config: Path, tmp_path: Path
) -> None:
    rows = [[*row[:1], "de" if row[1] == "en" else row[1], *row[2:]] for row in make_rows()]
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([HEADER, *rows])
    root = tmp_path / "root"
    assert nrccr_command("import", table, root / "mine", "--source", "de").code == 0
    keys = ["data.collection=mine", "data.translator=m2m", "reading=corrected"]
    done = nrccr_command("check", tiny_config, "--root", root, *keys)
    assert done.code == 2 and "the training captions are in de, not en; " in done.err
    done = nrccr_command("check", tiny_config, "--root", root, *keys, "data.source=de", "data.target=de")
    assert done.code == 2 and "data.target=de is data.source, too" in done.err
    videos = [f"{split}{video}" for split, count in VIDEOS.items() for video in range(count)]
    write_bigfile(root / "mine" / "FeatureData" / "clip", [(video, np.ones((2, 16))) for video in videos])
    keys = [*keys, "data.source=de", "train.epochs=1"]
    done = nrccr_command("train", tiny_config, "--root", root, "--out", tmp_path / "run", "--device", "cpu", *keys)
    assert done.code == 0, done.err


def test_options_of_import(nrccr_command: Command, table: Path, tmp_path: Path) -> None:
    done = nrccr_command("import", table, tmp_path / "mine", "--splits", "80,10")
    assert done.code == 2 and "three numbers of percent" in done.err
    done = nrccr_command("import", table, tmp_path / "mine", "--translator", "a/b")
    assert done.code == 2 and "--translator: translator 'a/b'" in done.err
    done = nrccr_command("export", tmp_path, tmp_path / "t.csv")
    assert done.code == 2 and "no collection.yaml in it" in done.err
    assert nrccr_command("import", table, tmp_path / "mine", "--name", "other").code == 0
    assert (tmp_path / "mine" / "TextData" / "othertrain.caption.txt").is_file()
    assert nrccr_command("export", tmp_path / "mine", table).code == 2  # exists
