"""The command line end to end on the tiny collection."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
DIRECTION = {"R@1", "R@5", "R@10", "MedR", "MeanR", "mAP", "MRR", "nDCG@10"}
Command = Callable[..., Any]


def text_of(root: Path, name: str) -> Path:
    return root / "vatex" / "TextData" / f"{name}.caption.txt"


def test_driver_trains_and_tests(tiny_config: Path, tiny_collection: Path, tmp_path: Path, run_test: Command) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"CONFIG": str(tiny_config), "OUT": "run", "PATH": path, "VIRTUAL_ENV": sys.prefix}
    done = subprocess.run(
        [str(CHECKOUT / "do_all_vatex.sh"), str(tiny_collection), "cpu", "train.epochs=2"],
        cwd=tmp_path,
        env={**os.environ, **environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    for words in ("24 captions, 12 items", "best validation", "text to video"):
        assert words in done.stdout
    metrics = json.loads((tmp_path / "run" / "test" / "metrics.json").read_text())
    assert run_test(tmp_path / "run", "--out", tmp_path / "again").code == 0
    again = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert again | {"checkpoint": metrics["checkpoint"]} == metrics


def test_metrics_file(run_test: Command, trained: Path) -> None:
    done = run_test(trained)
    assert done.code == 0 and done.err == "", done.err
    metrics = json.loads((trained / "test" / "metrics.json").read_text())
    assert set(metrics) == {
        "collection", "split", "checkpoint", "queries", "items", "target_weight", "batch_size", "normalisation",
        "text_to_visual", "visual_to_text", "SumR", "mean_recall", "sweep", "switches",
    }  # fmt: skip
    expected = {"collection": "vatex", "split": "test", "queries": 16, "items": 8, "target_weight": 0.8}
    assert expected.items() <= metrics.items() and metrics["batch_size"] == 5
    assert metrics["checkpoint"] == str(trained / "model.safetensors")
    assert [entry["source_weight"] for entry in metrics["sweep"]] == [1.0, 0.8, 0.5, 0.2, 0.0]
    for entry in (metrics, *metrics["sweep"]):
        assert set(entry["text_to_visual"]) == set(entry["visual_to_text"]) == DIRECTION
        recalls = [entry[d][f"R@{k}"] for d in ("text_to_visual", "visual_to_text") for k in (1, 5, 10)]
        assert entry["SumR"] == pytest.approx(sum(recalls))
    headline = {key: metrics[key] for key in ("text_to_visual", "visual_to_text", "SumR", "mean_recall")}
    assert metrics["mean_recall"] == pytest.approx(metrics["SumR"] / 6)
    assert metrics["sweep"][3] == {"source_weight": 0.2} | headline
    assert metrics["sweep"][0] != {"source_weight": 1.0} | headline
    assert metrics["normalisation"] == {"method": "none", "scores": "minmax"}
    for name in ("text to video", "video to text"):
        (row,) = [line.split("│")[2:-1] for line in done.out.splitlines() if line.startswith(f"│ {name} ")]
        direction = headline["text_to_visual" if name == "text to video" else "visual_to_text"]
        wanted = [direction[key] for key in ("R@1", "R@5", "R@10", "MedR", "MeanR", "mAP")] + [headline["SumR"]]
        assert [float(cell) for cell in row] == pytest.approx(wanted, abs=0.005)


def test_scores_ranks_and_metrics_agree(run_test: Command, trained: Path) -> None:
    assert run_test(trained, "evaluation.save_scores=true", "evaluation.target_weight=0.3").code == 0
    with np.load(trained / "test" / "scores.npz") as arrays:
        saved = dict(arrays)
    assert set(saved) == {"scores", "query_ids", "item_ids", "text_source", "text_target", "visual"}
    assert saved["scores"].shape == (16, 8) and saved["scores"].dtype == np.float32
    minmax = []
    for name in ("text_target", "text_source"):
        assert np.allclose(np.linalg.norm(saved[name], axis=1), 1, atol=1e-5)
        cosines = saved[name] @ saved["visual"].T
        minmax.append((cosines - cosines.min()) / (cosines.max() - cosines.min()))
    np.testing.assert_allclose(saved["scores"], 0.3 * minmax[0] + 0.7 * minmax[1], atol=1e-5)
    lines = (trained / "test" / "ranks.tsv").read_text(encoding="utf-8").splitlines()
    assert lines[0].split("\t") == ["query", "rank", "top"] and len(lines) == 17
    found = []
    for line, row, query in zip(lines[1:], saved["scores"], saved["query_ids"], strict=True):
        name, rank, top = line.split("\t")
        order = [saved["item_ids"][column] for column in np.argsort(-row, kind="stable")]
        assert name == query and top.split(" ") == order[:10]
        found.append(order.index(name.split("#")[0]) + 1)
        assert int(rank) == found[-1]
    metrics = json.loads((trained / "test" / "metrics.json").read_text())
    assert metrics["text_to_visual"]["R@1"] == pytest.approx(100 * np.mean(np.array(found) <= 1))
    assert metrics["text_to_visual"]["MeanR"] == pytest.approx(np.mean(found))
    assert metrics["target_weight"] == 0.3


def test_validation_split_equals_the_validation_in_training(run_test: Command, trained: Path, tmp_path: Path) -> None:
    assert run_test(trained, "--split", "val", "--out", tmp_path / "elsewhere").code == 0
    metrics = json.loads((tmp_path / "elsewhere" / "metrics.json").read_text())
    assert metrics["split"] == "val" and not (trained / "val").exists()
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    validations = [line for line in lines if line["kind"] == "validation"]
    best = validations[validations[-1]["best_epoch"] - 1]
    for name in ("text_to_visual", "visual_to_text", "SumR"):
        assert metrics[name] == pytest.approx(best[name])


def test_a_run_folder_stands_on_its_own(start: Command, run_test: Command, tiny_bert: Path, tmp_path: Path) -> None:
    own_bert = shutil.copytree(tiny_bert, tmp_path / "own_bert")
    assert start(f"text.model={own_bert}", "train.epochs=1").code == 0
    assert run_test(tmp_path / "started", "--out", tmp_path / "before").code == 0
    moved = Path(shutil.move(tmp_path / "started", tmp_path / "moved"))
    shutil.rmtree(own_bert)
    done = run_test(moved)
    assert done.code == 0, done.err
    before, after = (
        json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path / "before", moved / "test")
    )
    assert after | {"checkpoint": before["checkpoint"]} == before


def test_more_visual_layers_through_the_run_folder(start: Command, run_test: Command, tmp_path: Path) -> None:
    assert start("visual.layers=2", "train.epochs=1", "--test").code == 0
    run = tmp_path / "started"
    assert (run / "test" / "metrics.json").is_file()
    done = run_test(run, "visual.layers=1")
    assert done.code == 2 and f"{run / 'model.safetensors'}: does not fit" in done.err


def test_captions_longer_than_the_backbone_are_cut_and_counted(
    start: Command, run_test: Command, tiny_collection: Path, tmp_path: Path
) -> None:
    for name in ("vatextrain", "vatextest_google_zh2enc"):
        path = text_of(tiny_collection, name)
        first, rest = path.read_text(encoding="utf-8").split("\n", 1)
        path.write_text(first + " dog" * 100 + "\n" + rest, encoding="utf-8")
    done = start("train.epochs=1")
    assert done.code == 0 and "1 cut" in done.out, done.err
    assert run_test(tmp_path / "started").code == 0


def test_check(nrccr_command: Command, tiny_config: Path, tiny_collection: Path) -> None:
    done = nrccr_command("check", tiny_config, "--root", tiny_collection)
    assert done.code == 0 and "no problems found" in done.out and "12" in done.out and done.err == ""
    text_of(tiny_collection, "vatexval_zh").unlink()
    done = nrccr_command("check", tiny_config, "--root", tiny_collection)
    assert done.code == 2 and len(done.err.splitlines()) == 1 and "1 problem found, listed above; fix it" in done.err
    assert "vatexval_zh.caption.txt" in done.out


def test_help(nrccr_command: Command) -> None:
    for arguments in (["--help"], []):
        done = nrccr_command(*arguments)
        assert done.code == 0 and done.err == ""
        assert all(command in done.out for command in ("train", "test", "check"))
    done = nrccr_command("train", "--help")
    assert all(option in done.out for option in ("--root", "--out", "--device", "--resume", "--overwrite"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("check --nope", "No such option: --nope; see `nrccr check --help`"),
        ("config nosuch", "No such command 'nosuch'; see `nrccr config --help`"),
        ("nosuch", "No such command 'nosuch'; see `nrccr --help`"),
    ],
)
def test_a_usage_error_names_the_help_of_its_command(nrccr_command: Command, words: str, said: str) -> None:
    done = nrccr_command(*words.split())
    assert (done.code, done.out, done.err) == (2, "", f"nrccr: {said}\n")


def test_the_module_prints_one_line_and_exits_with_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nrccr", "train", "nowhere.yaml", "--root", "."],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_ctrl_c_outside_training_is_said_and_has_its_exit_code(
    nrccr_command: Command, tiny_config: Path, tiny_collection: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nrccr.systems.base.system_of", interrupted)
    done = nrccr_command("check", tiny_config, "--root", tiny_collection)
    assert (done.code, done.err) == (130, "nrccr: stopped\n")
