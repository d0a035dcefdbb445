"""MLCMR and C2KD on own data, and any Unicode as ids: from a table to a tested run, an index and what it finds."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest

from nrccr.data.bigfile import write_bigfile
from tests.conftest import CHINESE, ENGLISH, FEATURE_WIDTH, Command, TinyConfig

NAMES = {"train": "видео", "val": "cafe\u0301-", "test": "视频🐶"}
VIDEOS = {"train": 12, "val": 6, "test": 6}
KINDS = [("en", "human", ""), ("zh", "human", ""), ("zh", "translated", "m2m"), ("en", "translated", "m2m")]
ITEMS = [f"{NAMES[split]}{number}" for split, count in VIDEOS.items() for number in range(count)]


@pytest.fixture
def root(tmp_path: Path, nrccr_command: Command) -> Path:
    """Root with the collection `mine`: people's captions in English and Chinese, both translated, in every split."""
    choose, rows = random.Random(0), [["item", "language", "text", "split", "kind", "translator"]]
    for split, count in VIDEOS.items():
        for number in range(count):
            for language, kind, translator in KINDS:
                between, words = (" ", ENGLISH) if language == "en" else ("", CHINESE)
                text = between.join(choose.choices(words, k=4))
                rows.append([f"{NAMES[split]}{number}", language, text, split, kind, translator])
    with (tmp_path / "table.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    done = nrccr_command("import", tmp_path / "table.csv", tmp_path / "root" / "mine")
    assert done.code == 0, done.err
    values = np.random.default_rng(0)
    features = [(item, values.standard_normal((1 + at % 4, FEATURE_WIDTH))) for at, item in enumerate(ITEMS)]
    write_bigfile(tmp_path / "root" / "mine" / "FeatureData" / "clip", features)
    return tmp_path / "root"


def trained(nrccr_command: Command, config: Path, root: Path, *options: object) -> Path:
    """A run on that collection, checked first and tested."""
    run = root.parent / "run"
    keys = ["data.collection=mine", "data.translator=m2m", "train.epochs=1", *options]
    done = nrccr_command("check", config, "--root", root, *keys)
    assert done.code == 0 and "no problems found" in done.out, done.out + done.err
    done = nrccr_command("train", config, "--root", root, "--out", run, "--device", "cpu", *keys)
    assert done.code == 0, done.err
    done = nrccr_command("test", run, "--root", root, "--device", "cpu")
    assert done.code == 0, done.err
    return run


@pytest.mark.parametrize("scenario", ["parallel", "translate", "unparallel"])
def test_mlcmr(scenario: str, nrccr_command: Command, mlcmr_config: Path, root: Path) -> None:
    run = trained(nrccr_command, mlcmr_config, root, f"data.scenario={scenario}")
    metrics = json.loads((run / "test" / "metrics.json").read_text())
    assert metrics["collection"] == "mine" and metrics["items"] == 6
    ranks = sorted(path.relative_to(run / "test") for path in (run / "test").rglob("ranks.tsv"))
    assert len(ranks) == 2 and all("视频🐶5" in (run / "test" / path).read_text(encoding="utf-8") for path in ranks)


def test_c2kd(nrccr_command: Command, write_tiny: TinyConfig, root: Path) -> None:
    config = write_tiny(
        "c2kd/multi30k-small-translate-train.yaml",
        data={"max_frames": 5},
        visual={"kind": "video", "width": FEATURE_WIDTH},
        train={"batch_size": 4, "epochs": 1},
    )
    run = trained(nrccr_command, config, root)
    metrics = json.loads((run / "test" / "metrics.json").read_text())
    assert metrics["collection"] == "mine" and metrics["items"] == 6 and set(metrics["languages"]) == {"en", "zh"}
    teacher = run.rename(run.with_name("teacher"))
    distilling = ["c2kd.stage=distill", f"c2kd.teachers=[{teacher}]"]
    run = trained(nrccr_command, config, root, *distilling)
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(line["distill_zh_loss"] > 0 for line in logged if line["kind"] == "train")


def test_ids_of_any_unicode_are_found(nrccr_command: Command, tiny_config: Path, root: Path, tmp_path: Path) -> None:
    pytest.importorskip("faiss", reason="needs the extra search")
    run = trained(nrccr_command, tiny_config, root, "reading=corrected", "data.target=zh")
    features = root / "mine" / "FeatureData" / "clip"
    done = nrccr_command("index", run, "--features", features, "--out", tmp_path / "index", "--device", "cpu")
    assert done.code == 0 and f"{len(ITEMS)} items" in done.out, done.err
    done = nrccr_command("search", tmp_path / "index", "人唱红球", "--top", "100", "--json", "--device", "cpu")
    assert done.code == 0, done.err
    assert {result["item"] for result in json.loads(done.out)[0]["results"]} == set(ITEMS)
    done = nrccr_command("moments", tmp_path / "index", ITEMS[-1], "人唱红球", "--device", "cpu")
    assert done.code == 0, done.err
