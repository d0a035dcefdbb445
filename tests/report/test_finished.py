"""Finished runs as reports read them: refusals in one line, labels, and scores that are those of a test."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nrccr.errors import UserError
from nrccr.report.finished import LONGEST_LABEL, is_number, read, read_log

Command = Callable[..., Any]


def test_scores_are_those_of_a_test(trained: Path, tiny_collection: Path, run_test: Command) -> None:
    (untested,) = read([trained], tiny_collection, "cpu")
    computed = untested.headline.outcome
    done = run_test(trained, "evaluation.save_scores=true")
    assert done.code == 0, done.err
    (run,) = read([trained], tiny_collection, "cpu")
    assert untested.tested is None and run.tested is not None
    written = run.headline.outcome
    assert written.folder == trained / "test" and written is run.headline.outcome
    with np.load(trained / "test" / "scores.npz") as arrays:
        np.testing.assert_allclose(run.headline.scores(), arrays["scores"], atol=1e-6)
        assert run.headline.item_ids == arrays["item_ids"].tolist()
        for name in ("source", "target", "visual"):
            known = "visual" if name == "visual" else f"text_{name}"
            np.testing.assert_allclose(getattr(run.headline.encoded.embeddings, name), arrays[known], atol=1e-6)
    for found in (written, computed):
        assert found.query_ids == run.headline.queries.ids and found.item_ids == run.headline.item_ids
        np.testing.assert_array_equal(found.ranks, run.headline.ranks())
        np.testing.assert_array_equal(found.item_of, run.headline.queries.item_of)
    np.testing.assert_array_equal(written.item_ranks, computed.item_ranks)
    np.testing.assert_allclose(written.precisions, computed.precisions)
    sweep = {entry["source_weight"]: entry["text_to_visual"]["MeanR"] for entry in run.tested["sweep"]}
    assert np.mean(run.headline.ranks(0.0)) == sweep[1.0] and np.mean(run.headline.ranks(1.0)) == sweep[0.0]


def test_queries_keep_what_people_wrote(trained: Path, tiny_collection: Path) -> None:
    (run,) = read([trained], tiny_collection, "cpu")
    text = tiny_collection / "vatex" / "TextData"
    for name, texts in (
        ("vatextest_zh", run.headline.queries.texts),
        ("vatextest_google_zh2enc", run.headline.queries.translated),
    ):
        lines = (text / f"{name}.caption.txt").read_text(encoding="utf-8").splitlines()
        assert list(texts) == [line.partition(" ")[2] for line in lines]


@pytest.mark.parametrize("override", ["evaluation.target_weight=0.3", "switches.score=raw"])
def test_a_test_of_other_scores_is_not_taken(
    override: str, trained: Path, tiny_collection: Path, run_test: Command
) -> None:
    assert run_test(trained, override).code == 0
    (run,) = read([trained], tiny_collection, "cpu")
    np.testing.assert_array_equal(run.headline.outcome.ranks, run.headline.ranks())


def test_a_test_of_older_weights_is_not_taken(trained: Path, tiny_collection: Path, run_test: Command) -> None:
    assert run_test(trained).code == 0
    ranks = (trained / "test" / "ranks.tsv").read_text().splitlines()
    changed = [ranks[0], *("\t".join([row.split("\t")[0], "8", row.split("\t")[2]]) for row in ranks[1:])]
    (trained / "test" / "ranks.tsv").write_text("\n".join(changed) + "\n")
    (run,) = read([trained], tiny_collection, "cpu")
    assert set(run.headline.outcome.ranks) == {8.0}
    shutil.copyfile(trained / "model.safetensors", trained / "again")
    (trained / "again").replace(trained / "model.safetensors")  # written later than the test
    (run,) = read([trained], tiny_collection, "cpu")
    assert set(run.headline.outcome.ranks) != {8.0}


def test_refusals(trained: Path, tiny_collection: Path, tmp_path: Path) -> None:
    def refused(folder: Path, *others: Path) -> str:
        with pytest.raises(UserError) as caught:
            read([folder, *others], tiny_collection, "cpu")
        return str(caught.value)

    assert "no such run folder" in refused(tmp_path / "none")
    assert "no run folder of a training" in refused(tiny_collection)
    assert "named twice" in refused(trained, trained / ".")
    record = json.loads((trained / "run.json").read_text())
    (trained / "run.json").write_text(json.dumps({**record, "finished": None}))
    assert "has not finished; finish it with --resume" in refused(trained)
    (trained / "run.json").write_text("[]")
    assert "run.json: holds no JSON object" in refused(trained)
    (trained / "run.json").write_text(json.dumps(record))
    (trained / "model.safetensors").unlink()
    assert "model.safetensors: missing" in refused(trained)


def test_labels(trained: Path, tiny_collection: Path, tmp_path: Path) -> None:
    names = ["a/run", "b/run", "_hidden", "x" * 100, "x" * 99 + "y", "bell\x07"]
    folders = [Path(shutil.copytree(trained, tmp_path / "all" / name)) for name in names]
    labels = [run.label for run in read(folders, tiny_collection, "cpu")]
    assert labels[:3] == ["a/run", "b/run", "run _hidden"] and labels[5] == "bell\\x07"
    assert len(set(labels)) == 6 and all(len(label) <= LONGEST_LABEL + 4 for label in labels)


@pytest.mark.parametrize(
    "line",
    [
        *("{", "[]", "9" * 400, '{"kind": "train"}', '{"kind": 1, "step": 1}'),
        *('{"kind": "train", "step": true}', f'{{"kind": "train", "step": {2**53}}}'),
    ],
)
def test_damaged_logs_name_their_line(line: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "step": 1}\n' + line + "\n")
    with pytest.raises(UserError, match=r"metrics.jsonl:2: not a line of a training's log"):
        read_log(tmp_path / "metrics.jsonl")


def test_numbers_of_a_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_text('{"kind": "train", "step": 1, "a": NaN, "b": 1e999, "c": 2, "d": true}\n')
    (line,) = read_log(tmp_path / "log")
    assert [name for name in "abcd" if is_number(line[name])] == ["c"]
