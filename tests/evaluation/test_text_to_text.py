"""Queries against their translations, recalls by length."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nrccr.evaluation.metrics import LENGTHS, ranks, recalls_by_length, retrieval_metrics
from nrccr.report.papers import paper_figures
from nrccr.systems.settings import load_config

Command = Callable[..., Any]
RECALLS = ("R@1", "R@5", "R@10")


def test_bins_cover_all_queries_and_their_recalls_make_the_whole() -> None:
    random = np.random.default_rng(0)
    scores = random.random((200, 40))
    relevant, lengths = random.integers(0, 40, 200), random.integers(0, 45, 200)
    bins = recalls_by_length(ranks(scores, relevant), lengths)
    assert [entry["tokens"] for entry in bins] == [[0, 10], [11, 15], [16, 20], [21, 25], [26, 30], [31, None]]
    assert sum(entry["queries"] for entry in bins) == 200
    whole = retrieval_metrics(scores, relevant)
    for name in RECALLS:
        assert sum(entry["queries"] * entry[name] for entry in bins) / 200 == pytest.approx(whole[name])
    for entry in bins:  # the twin: metrics of those rows alone
        first, last = entry["tokens"]
        own = (lengths >= first) & (lengths <= (np.inf if last is None else last))
        assert entry["queries"] == own.sum()
        alone = retrieval_metrics(scores[own], relevant[own])
        assert {name: entry[name] for name in RECALLS} == {name: alone[name] for name in RECALLS}


def test_edges_of_bins_and_empty_ones() -> None:
    lengths = np.array([LENGTHS[0], LENGTHS[0] + 1, LENGTHS[-1] + 1])
    bins = recalls_by_length(np.array([1.0, 2.0, 11.0]), lengths)
    assert [(entry["tokens"], entry["queries"], entry["R@1"], entry["R@10"]) for entry in bins] == [
        ([0, 10], 1, 100.0, 100.0),
        ([11, 15], 1, 0.0, 100.0),
        ([31, None], 1, 0.0, 0.0),
    ]


def test_text_to_text_equals_the_embeddings_of_the_usual_test(run_test: Command, trained: Path) -> None:
    assert run_test(trained, "evaluation.save_scores=true").code == 0
    with np.load(trained / "test" / "scores.npz") as arrays:
        source, target = arrays["text_source"], arrays["text_target"]
    before = (trained / "test" / "metrics.json").read_bytes()
    done = run_test(trained, "--task", "text-to-text", "--by-length")
    assert done.code == 0 and done.err == "", done.err
    found = json.loads((trained / "test-text-to-text" / "metrics.json").read_text())
    assert (trained / "test" / "metrics.json").read_bytes() == before
    assert (found["task"], found["queries"], found["batch_size"]) == ("text-to-text", 16, 5)
    for name, (queries, items) in {"target_to_source": (target, source), "source_to_target": (source, target)}.items():
        order = np.argsort(-(queries @ items.T), axis=1, kind="stable")
        places = 1 + np.argmax(order == np.arange(16)[:, None], axis=1)  # brute force: one relevant each
        assert found[name]["mAP"] == pytest.approx(100 * np.mean(1 / places))
        assert found[name]["MeanR"] == pytest.approx(places.mean())
        assert found[name]["R@5"] == pytest.approx(100 * np.mean(places <= 5))
    assert sum(entry["queries"] for entry in found["by_length"]) == 16
    for words in ("query to its translation", "81.28", "by length"):  # NRCCR's published mAP beside ours
        assert words in done.out


def test_by_length_of_the_usual_test(run_test: Command, trained: Path, tiny_collection: Path) -> None:
    assert "by length" not in run_test(trained).out
    assert "by_length" not in json.loads((trained / "test" / "metrics.json").read_text())
    queries = tiny_collection / "vatex" / "TextData" / "vatextest_zh.caption.txt"
    lines = queries.read_text(encoding="utf-8").splitlines()
    longer = [f"{lines[0]}{'人' * 12}", *lines[1:]]
    queries.write_text("\n".join(longer) + "\n", encoding="utf-8")
    assert run_test(trained, "--by-length").code == 0
    found = json.loads((trained / "test" / "metrics.json").read_text())
    # Chinese characters are tokens of their own; the longest is 12 longer than its 2 to 6, special tokens not counted.
    length = len(longer[0].split()[1])
    assert [entry["queries"] for entry in found["by_length"]] == [15, 1]
    first, last = found["by_length"][1]["tokens"]
    assert first <= length <= last
    for name in RECALLS:
        mean = sum(entry["queries"] * entry[name] for entry in found["by_length"]) / 16
        assert mean == pytest.approx(found["text_to_visual"][name])


def test_unknown_task(run_test: Command, trained: Path) -> None:
    done = run_test(trained, "--task", "text-to-speech")
    assert done.code == 2 and done.err == "nrccr: --task text-to-speech: give text-to-visual or text-to-text\n"
    assert not (trained / "test").exists()


def test_published_figures_by_losses() -> None:
    vatex = Path(__file__).resolve().parents[2] / "configs" / "nrccr" / "vatex.yaml"
    basic = [f"loss.{term}=0" for term in ("similarity", "feature", "cycle", "adversary")]
    expected = {"SumR": ("364.7", "352.2"), "mAP": ("81.28", "61.84")}
    for overrides, at in (([], 0), (basic, 1)):
        config = load_config(vatex, overrides)
        assert paper_figures(config, "vatex")[("SumR", "")] == expected["SumR"][at]
        found = paper_figures(config, "vatex", "test-text-to-text")
        assert found == {("target_to_source", "mAP"): expected["mAP"][at]}
    assert paper_figures(load_config(vatex, ["loss.similarity=0"]), "vatex") == {}
    assert paper_figures(load_config(vatex, ["data.translator=baidu"]), "vatex") == {("SumR", ""): "375.2"}
    assert paper_figures(load_config(vatex), "msrvttcn")[("SumR", "")] == "307.3"
