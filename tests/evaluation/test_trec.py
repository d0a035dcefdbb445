"""TREC files: ir-measures finds in them the metrics that we report."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import torch

from nrccr.data.queries import Split, among_texts
from nrccr.errors import UserError
from nrccr.evaluation import trec
from nrccr.evaluation.blocks import DenseScores, Transposed
from nrccr.evaluation.evaluate import evaluate
from nrccr.evaluation.ranked import Scored
from nrccr.evaluation.rule import Rule
from nrccr.evaluation.trec import FILES, strictly_falling, trec_files, write_trec

ir_measures = pytest.importorskip("ir_measures", reason="ir-measures, of the extra dev, is not installed")
CPU = torch.device("cpu")
MakeSplit = Callable[..., Split]
Command = Callable[..., Any]
# Ours by ir-measures' names.
NAMES = {
    "R@1": "Success@1", "R@5": "Success@5", "R@10": "Success@10", "mAP": "AP", "MRR": "RR", "nDCG@10": "nDCG@10",
}  # fmt: skip


def read(folder: Path, run: str, qrels: str) -> tuple[dict[str, float], list[Any], list[Any]]:
    """What ir-measures finds in a folder's files, in percent, and the lines of both."""
    lines = list(ir_measures.read_trec_run(str(folder / run)))
    judged = list(ir_measures.read_trec_qrels(str(folder / qrels)))
    measures = {name: ir_measures.parse_measure(theirs) for name, theirs in NAMES.items()}
    found = ir_measures.calc_aggregate(measures.values(), judged, lines)
    return {name: 100 * found[measure] for name, measure in measures.items()}, lines, judged


def best_ranks(path: Path, qrels: Path) -> list[int]:
    """The best rank of each query's relevant ones, as the columns say."""
    relevant = {(query, item) for query, _, item, _ in map(str.split, qrels.read_text("utf-8").splitlines())}
    best: dict[str, int] = {}
    for query, q0, item, rank, _, tag in map(str.split, path.read_text("utf-8").splitlines()):
        assert (q0, tag) == ("Q0", "nrccr")
        if (query, item) in relevant:
            best.setdefault(query, int(rank))
    return list(best.values())


def assert_equal_metrics(metrics: dict[str, Any], folder: Path) -> None:
    files = {"text_to_visual": FILES[:2], "visual_to_text": FILES[2:]}
    for direction, (run, qrels) in files.items():
        found, _, _ = read(folder, run, qrels)
        own = metrics[direction]
        assert found == pytest.approx({name: own[name] for name in NAMES}, rel=1e-9), direction
        ranks = best_ranks(folder / run, folder / qrels)
        assert (np.median(ranks), np.mean(ranks)) == pytest.approx((own["MedR"], own["MeanR"]))


@pytest.mark.parametrize("levels", [1, 2, 5, 1000])
def test_all_metrics_with_ties(levels: int, tmp_path: Path) -> None:
    """Scores of few levels: trec_eval breaks ties by id, ir-measures' providers each in their own way."""
    choose = np.random.default_rng(levels)
    lowest = 1010 if levels == 5 else -(levels // 2)  # 0 among them; around 1,010 eight digits are too few
    scores = choose.integers(0, levels, (60, 24)).astype(np.float32) + lowest
    scores[choose.random(scores.shape) < 0.05] = -np.inf
    scores[choose.random(scores.shape) < 0.05] = np.inf
    item_of = choose.permutation(np.arange(60) % 20) + 4  # the first four items have no query
    dense = DenseScores(scores)
    scored = Scored.of((dense, Transposed(dense)), item_of)
    items = [f"v{choose.integers(1000)}-{item}" for item in range(24)]
    write_trec(tmp_path, scored, [f"{items[item]}#en#{query}" for query, item in enumerate(item_of)], items, 100.0)
    assert_equal_metrics(scored.ranked().metrics(), tmp_path)
    assert len((tmp_path / "run.trec").read_text().splitlines()) == 60 * 24  # a small gallery is whole
    assert len((tmp_path / "run_visual.trec").read_text().splitlines()) == 20 * 60
    for name in ("run.trec", "run_visual.trec"):
        rows: dict[str, list[np.float32]] = {}
        for line in (tmp_path / name).read_text().splitlines():
            query, _, _, _, score, _ = line.split()
            rows.setdefault(query, []).append(np.float32(score))  # as a tool reads it that has no more digits
        assert all(np.isfinite(row).all() and (np.diff(row) < 0).all() for row in rows.values())


def test_equal_scores_fall_in_the_smallest_steps() -> None:
    largest = np.float32(1e38)
    rows = np.array([[3, 3, 3, 1], [0, 0, -0.0, 0], [largest, largest, largest, -largest], [2, 1, 0, -1]], np.float32)
    falling = strictly_falling(rows)
    assert (np.diff(falling.astype(np.float64), axis=1) < 0).all() and np.isfinite(falling).all()
    assert falling[3].tolist() == rows[3].tolist() and falling[0, 3] == 1
    assert falling[0, 1] == np.nextafter(np.float32(3), np.float32(0))
    read_again = np.array([f"{score:.9g}" for score in falling.ravel()]).astype(np.float32)
    assert np.array_equal(read_again, falling.ravel())


def test_a_large_gallery_is_cut_and_so_are_its_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relevant items beyond the cut are in the qrels but not in the run: AP and RR lose them, nDCG@10 does not."""
    scores = DenseScores(-np.arange(2000.0)[None].repeat(2, axis=0))
    scored = Scored.of((scores, Transposed(scores)), np.array([4, 1500]))
    write_trec(tmp_path, scored, ["a", "b"], [f"i{item}" for item in range(2000)], 100.0)
    found, lines, judged = read(tmp_path, *FILES[:2])
    assert len(lines) == 2 * 1000 and len(judged) == 2
    own = scored.ranked().metrics()["text_to_visual"]
    assert own["MRR"] == pytest.approx(100 * (1 / 5 + 1 / 1501) / 2)
    assert found["MRR"] == found["mAP"] == pytest.approx(100 * (1 / 5) / 2)
    assert found["nDCG@10"] == pytest.approx(own["nDCG@10"]) == pytest.approx(100 / math.log2(6) / 2)
    assert found["R@10"] == own["R@10"] == 50


def test_ids_with_blanks_are_escaped_and_come_back(tmp_path: Path) -> None:
    items = ["a b", "100%", "50%20off", "c\td", "全角\u3000空白", "caf\u00e9", "caf\u00e9 %", "line\nend", "plain#1"]
    scores = DenseScores(np.eye(9, dtype=np.float32))
    scored = Scored.of((scores, Transposed(scores)), np.arange(9))
    write_trec(tmp_path, scored, [f"{item}#zh#0" for item in items], items, 100.0)
    text = (tmp_path / "qrels.trec").read_text("utf-8")
    assert [unquote(line.split()[2]) for line in text.splitlines()] == items
    assert "plain#1#zh#0 0 plain#1 1" in text and "caf\u00e9#zh#0 0 caf\u00e9 1" in text  # as they are
    assert "0 caf\u00e9%20%25 1" in text, "no more than is odd"
    assert all(len(line.split(" ")) == 6 for line in (tmp_path / "run.trec").read_text("utf-8").splitlines())
    assert_equal_metrics(scored.ranked().metrics(), tmp_path)


def test_an_id_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    scores = DenseScores(np.eye(3, dtype=np.float32))
    scored = Scored.of((scores, Transposed(scores)), np.arange(3))
    with pytest.raises(UserError, match="--trec: query b is there twice.*leave --trec out"):
        write_trec(tmp_path / "trec", scored, ["a", "b", "b"], ["x", "y", "z"], 100.0)
    assert not (tmp_path / "trec").exists()


def test_a_test_in_several_languages_and_among_texts(toy: Any, toy_split: MakeSplit, tmp_path: Path) -> None:
    rule = Rule(4, CPU, trec=tmp_path / "trec")
    several = toy_split({"en": 20, "de": 25}, 9, by_language=True)
    made = evaluate(toy, several, rule, tmp_path / "test")
    for language in ("en", "de"):
        assert_equal_metrics(made["languages"][language], tmp_path / "trec" / language)
    split = toy_split({"zh": 30}, 9, translated=True)
    found = evaluate(toy, among_texts(split), replace(rule, trec=tmp_path / "texts"), tmp_path / "among")
    named = {"text_to_visual": found["target_to_source"], "visual_to_text": found["source_to_target"]}
    assert_equal_metrics(named, tmp_path / "texts")


def test_the_command(trained: Path, run_test: Command, tmp_path: Path) -> None:
    done = run_test(trained, "--trec", tmp_path / "trec")
    assert done.code == 0, done.err
    assert f"{tmp_path}/trec" in done.out.replace("\n", "") and "nDCG@10 text to video" in done.out
    assert sorted(path.name for path in (tmp_path / "trec").iterdir()) == sorted(FILES)
    assert_equal_metrics(json.loads((trained / "test" / "metrics.json").read_text()), tmp_path / "trec")
    (tmp_path / "file").touch()
    done = run_test(trained, "--trec", tmp_path / "file", "--out", tmp_path / "other")
    assert done.code == 2 and "give another folder with --trec" in done.err and not (tmp_path / "other").exists()


def test_no_file_is_written_through_a_link(
    trained: Path, run_test: Command, tmp_path: Path, toy_split: MakeSplit
) -> None:
    several = toy_split({"en": 20, "de": 25}, 9, by_language=True)
    assert trec_files(several) == [Path(language, name) for language in ("en", "de") for name in FILES]
    assert trec_files(toy_split({"zh": 30}, 9)) == [Path(name) for name in FILES]
    (tmp_path / "mine").write_text("mine")
    for name in FILES:
        folder = tmp_path / f"for_{name}"
        folder.mkdir()
        (folder / name).symlink_to(tmp_path / "mine")
        done = run_test(trained, "--trec", folder, "--out", tmp_path / "other")
        assert done.code == 2 and f"{folder / name}: a link" in done.err, done.err
        assert (folder / name).is_symlink() and len(list(folder.iterdir())) == 1
    assert (tmp_path / "mine").read_text() == "mine" and not (tmp_path / "other").exists()


def test_earlier_files_are_replaced_or_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails leaves no run of one test beside the qrels of another."""
    scores = DenseScores(np.eye(3, dtype=np.float32))
    scored = Scored.of((scores, Transposed(scores)), np.arange(3))
    arguments = (scored, ["a", "b", "c"], ["x", "y", "z"], 100.0)
    write_trec(tmp_path, *arguments)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trec, "_write_qrels", full)
    with pytest.raises(UserError, match="disk|space"):
        write_trec(tmp_path, *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["run.trec"]
