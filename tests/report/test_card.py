"""Tables of a report against what tests wrote, and facts against the log."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nrccr.report.card import configuration, facts, languages, parts, results, text_to_text, training_seconds
from nrccr.report.finished import read
from nrccr.safeload.unpickle import load_weights
from tests.report.runs import finished_run, outcome

Command = Callable[..., Any]
NAMES = ("R@1", "R@5", "R@10", "MedR", "mAP")
LOG = [
    {"kind": "train", "step": 10, "data_seconds": 0.1, "step_seconds": 0.4},
    {"kind": "validation", "step": 12, "epoch": 1, "seconds": 3.0},
    {"kind": "train", "step": 14, "data_seconds": 0.5, "step_seconds": 0.5},
    {"kind": "train", "step": 20, "data_seconds": "x", "step_seconds": 2.0},
]


def test_results_are_the_tests(trained: Path, tiny_collection: Path, run_test: Command) -> None:
    assert run_test(trained).code == 0 and run_test(trained, "--task", "text-to-text").code == 0
    written = json.loads((trained / "test" / "metrics.json").read_text())
    texts = json.loads((trained / "test-text-to-text" / "metrics.json").read_text())
    runs = read([trained], tiny_collection, "cpu")
    rows = {row["direction"]: row for row in results(runs).rows}
    for name, direction in (("text to visual", "text_to_visual"), ("visual to text", "visual_to_text")):
        np.testing.assert_allclose([rows[name][key] for key in NAMES], [written[direction][key] for key in NAMES])
        assert rows[name]["SumR"] == pytest.approx(written["SumR"])
        assert rows[name]["SumR low"] <= rows[name]["SumR"] <= rows[name]["SumR high"]
    among = {row["direction"]: row for row in text_to_text(runs).rows}
    for name, direction in (
        ("query to its translation", "target_to_source"),
        ("translation to its query", "source_to_target"),
    ):
        np.testing.assert_allclose([among[name][key] for key in NAMES], [texts[direction][key] for key in NAMES])
    assert languages(runs).rows == [], "one query language"


def test_facts(trained: Path, tiny_collection: Path) -> None:
    runs = read([trained], tiny_collection, "cpu")
    found = {row["fact"]: row["run"] for row in facts(runs).rows}
    assert found["train captions, count"] == 24 and found["test items, count"] == 8
    assert found["seed"] == 0 and found["version of nrccr"] == version("nrccr")
    assert found["peak memory, MB"] == runs[0].record["finished"]["peak_memory_mb"]["process"] > 50
    assert found["peak memory of the device, MB"] is None
    weights = load_weights(trained / "model.safetensors")
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    learned = [values for name, values in weights.items() if not name.endswith(statistics)]
    assert found["parameters"] == sum(values.numel() for values in learned)
    assert {part.name for part in parts(runs)} == {"results", "text-to-text", "configuration", "facts"}


def test_seconds_by_hand() -> None:
    assert training_seconds(finished_run("a", log=LOG)) == pytest.approx(10 * 0.5 + 3.0 + 4 * 1.0 + 6 * 2.0)
    assert training_seconds(finished_run("a")) is None


def test_configuration_shows_what_differs() -> None:
    runs = [
        finished_run("base", "text.model=/somewhere/bert", "loss.cycle=0"),
        finished_run("b", "reading=corrected", "seed=3"),
    ]
    rows = {row["key"]: row for row in configuration(runs).rows}
    assert rows["text.model"]["run base"] == "bert" and rows["text.model"]["b"] == rows["text.model"]["base"]
    assert list(rows["loss.cycle"].values()) == ["loss.cycle", "0.5", "0.0", "0.5"]
    assert rows["reading"]["b"] == "corrected" and rows["seed"]["b"] == "3"
    assert rows["switches.pooling"] == {"key": "switches.pooling", "base": "by the reading", "run base": "padded",
                                        "b": "masked"}  # fmt: skip
    assert "joint.width" not in rows


def test_rank_variance_over_languages_tested_apart() -> None:
    english = outcome([1, 3, 5, 2], [0, 0, 1, 1], "en")
    chinese = outcome([1, 1, 1, 8], [0, 0, 1, 1], "zh")
    run = finished_run("m", searched=[(english, [5] * 4), (chinese, [5] * 4)])
    run.searched[0].language = "en"
    rows = languages([run]).rows
    assert [row["queries in"] for row in rows] == ["en", "zh", "mean"]
    variance = np.mean([np.var(pair) for pair in ((1, 1), (3, 1), (5, 1), (2, 8))])
    assert rows[2]["rank variance"] == pytest.approx(variance) and rows[2]["over"] == 4
    assert rows[2]["R@1"] == pytest.approx((25 + 75) / 2) and rows[0]["rank variance"] is None


@pytest.mark.parametrize("record", [{}, {"data": 5, "versions": [], "commit": {"a": 1}, "device": None}])
def test_records_of_strangers(record: dict[str, Any]) -> None:
    run = finished_run("a", record={"finished": {"peak_memory_mb": "much"}, **record})
    run.__dict__["retriever"] = SimpleNamespace(network=SimpleNamespace(parameters=lambda: iter(())))
    run.__dict__["searched"] = (finished_run("b", searched=[(outcome([1], [0]), [3])]).searched[0],)
    found = {row["fact"]: row["a"] for row in facts([run]).rows}
    assert found["peak memory, MB"] is None and found["steps"] is None
