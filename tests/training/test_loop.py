"""Training: deterministic, resumed bit by bit, stopped by signals and NaN, and careful with run folders."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from nrccr.safeload.unpickle import load_checkpoint
from nrccr.training.loop import Trainer
from nrccr.training.runfolder import RunFolder

Train = Callable[..., Any]
Results = Callable[[Path], tuple[bytes, list[dict[str, Any]]]]
STEPS = 3  # in an epoch: 24 pairs in batches of 8
Record = Callable[..., dict[tuple[int, int], Path]]


@pytest.fixture
def whole(trained: Path) -> Path:
    """A run of three epochs that nothing disturbed."""
    return trained


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch, train: Train) -> Record:
    """A function like `train`, which also copies the run folder right after each state that the run saves.

    It saves one after every step; returns (finished epochs, step) -> copy.
    """

    def run(out: Path, *options: str) -> dict[tuple[int, int], Path]:
        kept: dict[tuple[int, int], Path] = {}
        save = RunFolder.save_state

        def save_and_copy(self: RunFolder, state: dict[str, Any]) -> None:
            save(self, state)
            key = (state["position"]["epoch"], state["position"]["step"])
            kept[key] = Path(shutil.copytree(self.path, f"{out}-{key[0]}-{key[1]}"))

        with monkeypatch.context() as patched:
            patched.setattr(RunFolder, "save_state", save_and_copy)
            done = train(out, "train.save_minutes=1e-9", *options)
        assert done.code == 0, done.err
        return kept

    return run


def test_files_of_a_run(whole: Path, tiny_bert: Path) -> None:
    names = {path.name for path in whole.iterdir()}
    assert names == {"config.yaml", "run.json", "model.safetensors", "last", "metrics.jsonl", "tensorboard", "backbone"}
    assert [path.name for path in (whole / "last").iterdir()] == ["state.pt"]
    config = yaml.safe_load((whole / "config.yaml").read_text())
    assert config["text"]["model"] == str(tiny_bert) and config["joint"]["width"] == 24
    run = json.loads((whole / "run.json").read_text())
    assert {"command", "versions", "commit", "seed", "device"} <= run.keys()
    assert run["seed"] == 0 and run["command"][1] == "train" and run["data"]["train"]["captions"] == 24


def test_log_lines(whole: Path) -> None:
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    trained = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in trained] == [2, 4, 6, 8]
    losses = ["source_loss", "target_loss", "similarity_loss", "feature_loss", "cycle_loss", "adversary_loss"]
    for line in trained:
        assert line["total"] == pytest.approx(sum(line[name] for name in losses), rel=1e-5)
        assert 0 <= line["discriminator_source_accuracy"] <= 1 and 0 <= line["discriminator_target_accuracy"] <= 1
        assert {"gradient_norm", "learning_rate", "epoch", "data_seconds", "step_seconds"} <= line.keys()
    validated = [line for line in lines if line["kind"] == "validation"]
    assert [(line["epoch"], line["step"]) for line in validated] == [(1, 3), (2, 6), (3, 9)]
    for line in validated:
        assert line["score"] == pytest.approx(sum(line["text_to_visual"][f"R@{k}"] for k in (1, 5, 10)))
    best = max(validated, key=lambda line: line["score"])  # the first of equal ones
    assert validated[-1]["best_epoch"] == best["epoch"]


def test_a_seed_repeats_and_another_seed_does_not(train: Train, results: Results, whole: Path, tmp_path: Path) -> None:
    assert train(tmp_path / "again").code == 0
    assert results(tmp_path / "again") == results(whole)
    assert train(tmp_path / "other", "seed=1").code == 0
    assert results(tmp_path / "other")[0] != results(whole)[0]


def test_resume_from_any_state_is_bit_exact(train: Train, results: Results, whole: Path, record: Record) -> None:
    copies = record(whole.parent / "saving")
    assert len(copies) == 3 * STEPS + 3, "after every step and every validation"
    for key in ((0, 1), (1, 3), (1, 5), (3, 9)):
        folder = copies[key]
        with (folder / "metrics.jsonl").open("a") as file:  # written after the state, before the kill
            file.write('{"kind": "train", "step": 99}\n{"kind"')
        done = train(folder, "--resume")
        assert done.code == 0, done.err
        assert f"step {key[1]}" in done.out
        assert results(folder) == results(whole), key


def test_resume_restores_schedule_optimisers_and_weights(train: Train, whole: Path, record: Record) -> None:
    """The last state, not only the best epoch's weights, is that of the uninterrupted run."""
    folder = record(whole.parent / "saving")[(1, 5)]
    assert train(folder, "--resume").code == 0
    resumed, expected = (load_checkpoint(RunFolder(path).state) for path in (folder, whole))
    assert resumed["schedule"] == expected["schedule"] and resumed["position"] == expected["position"]
    assert list(expected["players"]) == ["discriminator"]
    for state in (resumed, expected):  # beside the network and its optimiser
        state |= {"discriminator": state["players"]["discriminator"]["module"]}
        state |= {"discriminator_optimizer": state["players"]["discriminator"]["optimizer"]}
    for part in ("network", "discriminator", "random"):
        assert all(torch.equal(resumed[part][name], value) for name, value in expected[part].items()), part
    for part in ("optimizer", "discriminator_optimizer"):
        assert resumed[part]["param_groups"] == expected[part]["param_groups"]
        for index, values in expected[part]["state"].items():
            assert all(torch.equal(resumed[part]["state"][index][name], value) for name, value in values.items()), part


def in_the_old_form(state: dict[str, Any]) -> dict[str, Any]:
    """A state as it was written before players had names."""
    (player,) = state.pop("players").values()
    return state | {"discriminator": player["module"], "adversary_optimizer": player["optimizer"], "learned": None}


def test_a_state_of_before_players_had_names_is_resumed(
    train: Train, results: Results, whole: Path, record: Record
) -> None:
    folder = record(whole.parent / "saving")[(1, 5)]
    path = RunFolder(folder).state
    torch.save(in_the_old_form(load_checkpoint(path)), path)
    done = train(folder, "--resume")
    assert done.code == 0, done.err
    assert results(folder) == results(whole)


def test_a_state_of_before_with_learned_mixing_says_what_to_do(train: Train, whole: Path) -> None:
    path = RunFolder(whole).state
    old = in_the_old_form(load_checkpoint(path)) | {"discriminator": None, "learned": {"mixing": torch.ones(2)}}
    torch.save(old, path)
    done = train(whole, "--resume", "train.epochs=4")
    assert done.code == 2 and len(done.err.splitlines()) == 1
    assert f"{path}: an earlier version wrote it" in done.err and "learned mixing" in done.err and "--out" in done.err


def test_a_run_killed_before_its_first_state_starts_anew(train: Train, results: Results, whole: Path) -> None:
    expected = results(whole)
    shutil.rmtree(whole / "last")
    (whole / "model.safetensors").unlink()
    done = train(whole, "--resume")
    assert done.code == 0, done.err
    assert results(whole) == expected


def test_workers_change_nothing(train: Train, results: Results, whole: Path, tmp_path: Path) -> None:
    done = train(tmp_path / "workers", "data.workers=2")
    assert done.code == 0, done.err
    assert results(tmp_path / "workers") == results(whole)


def test_corrected_basic_and_paper_runs_train_and_resume(
    train: Train, results: Results, record: Record, tmp_path: Path
) -> None:
    basic = ("loss.similarity=0", "loss.feature=0", "loss.cycle=0", "loss.adversary=0")
    for number, options in enumerate([("reading=corrected",), ("reading=paper", "visual.layers=2"), basic]):
        folder = tmp_path / f"run{number}"
        middle = record(folder, *options, "train.epochs=2")[(1, 5)]
        assert train(middle, *options, "--resume", "train.epochs=2").code == 0
        assert results(middle) == results(folder), options


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_says_how_to_go_on(
    train: Train, results: Results, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    step, taken = Trainer.step, []

    def step_then_signal(self: Trainer, batch: Any) -> Any:
        taken.append(1)
        if len(taken) == 5:
            os.kill(os.getpid(), number)
        return step(self, batch)

    folder = tmp_path / "stopped"
    monkeypatch.setattr(Trainer, "step", step_then_signal)
    before = signal.getsignal(number)
    done = train(folder)
    assert signal.getsignal(number) is before
    assert len(taken) == 5, "it stops after the step it was in"
    assert done.code == 130 and len(done.err.splitlines()) == 1 and "--resume" in done.err
    monkeypatch.setattr(Trainer, "step", step)
    assert train(folder, "--resume").code == 0
    assert results(folder) == results(whole)


@pytest.mark.parametrize("log_every", [1, 2, 10])
def test_nan_stops_with_one_line_and_leaves_the_last_good_state(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_every: int
) -> None:
    step, taken = Trainer.step, []

    def step_then_poke(self: Trainer, batch: Any) -> Any:
        taken.append(1)
        if len(taken) == STEPS + 2:  # in the second epoch
            with torch.no_grad():
                self.network.map_text.linear.weight[0, 0] = torch.nan
        return step(self, batch)

    monkeypatch.setattr(Trainer, "step", step_then_poke)
    done = train(tmp_path / "poked", f"train.log_every={log_every}")
    assert done.code == 2 and len(done.err.splitlines()) == 1
    assert "source_loss" in done.err and "NaN" in done.err and "train.learning_rate" in done.err
    assert len(taken) <= 2 * STEPS, "noticed at the next log line, or at the end of the epoch"
    state = load_checkpoint(tmp_path / "poked" / "last" / "state.pt")
    assert state["position"]["step"] == STEPS
    assert all(value.isfinite().all() for value in state["network"].values() if value.is_floating_point())


def test_a_run_folder_is_not_overwritten_by_accident(train: Train, results: Results, whole: Path) -> None:
    expected = results(whole)
    done = train(whole)
    assert done.code == 2 and len(done.err.splitlines()) == 1
    assert str(whole) in done.err and "--resume" in done.err and "--overwrite" in done.err
    assert results(whole) == expected
    assert train(whole, "--overwrite", "seed=3", "train.epochs=1").code == 0
    assert results(whole) != expected and "seed: 3" in (whole / "config.yaml").read_text()


def test_a_folder_that_is_no_run_is_never_deleted(train: Train, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    for options in ((), ("--overwrite",), ("--resume",)):
        done = train(tmp_path / "thesis", *options)
        assert done.code == 2 and len(done.err.splitlines()) == 1 and str(tmp_path / "thesis") in done.err
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter1.txt"]


def test_overwrite_keeps_the_old_run_until_the_new_one_can_start(train: Train, whole: Path, results: Results) -> None:
    expected = results(whole)
    assert train(whole, "--overwrite", "data.feature=nowhere").code == 2
    assert results(whole) == expected


def test_resume_asks_for_the_same_configuration(train: Train, whole: Path, tmp_path: Path) -> None:
    done = train(whole, "--resume", "joint.width=32")
    assert done.code == 2 and len(done.err.splitlines()) == 1
    assert "joint.width=24" in done.err and "32" in done.err
    assert train(whole, "--resume", "--overwrite").code == 2
    done = train(tmp_path / "nowhere", "--resume")
    assert done.code == 2 and "no run to resume" in done.err and not (tmp_path / "nowhere").exists()


def test_resume_with_more_epochs_goes_on(train: Train, results: Results, whole: Path, tmp_path: Path) -> None:
    assert train(tmp_path / "short", "train.epochs=2").code == 0
    assert train(tmp_path / "short", "--resume").code == 0
    assert results(tmp_path / "short") == results(whole)


def test_early_stopping_ends_the_run(train: Train, tmp_path: Path) -> None:
    assert train(tmp_path / "run", "train.patience=1", "train.epochs=30", "train.learning_rate=1e-30").code == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    epochs = [line["epoch"] for line in lines if line["kind"] == "validation"]
    assert len(epochs) < 30 and lines[-1]["best_epoch"] == epochs[-1] - 1


def test_bf16_trains_in_finite_numbers(train: Train, results: Results, whole: Path, tmp_path: Path) -> None:
    done = train(tmp_path / "bf16", "train.precision=bf16", "train.epochs=1")
    assert done.code == 0, done.err
    first, expected = (results(folder)[1][0] for folder in (tmp_path / "bf16", whole))
    assert first["total"] != expected["total"] and first["total"] == pytest.approx(expected["total"], rel=0.05)


def test_a_lost_state_is_no_reason_to_delete_a_run(train: Train, whole: Path, results: Results) -> None:
    before = results(whole)
    shutil.rmtree(whole / "last")
    done = train(whole, "--resume")
    assert done.code == 2 and "last/state.pt: missing" in done.err
    assert results(whole) == before


def test_resume_refuses_other_training_data_and_a_damaged_log(train: Train, whole: Path, tiny_collection: Path) -> None:
    log = (whole / "metrics.jsonl").read_text()
    (whole / "metrics.jsonl").write_text("")
    done = train(whole, "--resume")
    assert done.code == 2 and "metrics.jsonl: shorter" in done.err
    (whole / "metrics.jsonl").write_text(log)
    captions = tiny_collection / "vatex" / "TextData" / "vatextrain.caption.txt"
    text = captions.read_text(encoding="utf-8")
    captions.write_text(text.replace("\n", " dog\n", 1), encoding="utf-8")
    done = train(whole, "--resume")
    assert done.code == 2 and "training data changed" in done.err


def test_resume_is_recorded_with_what_changed(train: Train, whole: Path) -> None:
    run = json.loads((whole / "run.json").read_text())
    assert run.pop("tokenizer")["kind"] == "WordPiece"  # runs of earlier versions do not name it
    (whole / "run.json").write_text(json.dumps(run | {"threads": 99}))
    done = train(whole, "--resume", "train.epochs=4")
    assert done.code == 0 and "note: threads was 99, is" in done.out
    assert yaml.safe_load((whole / "config.yaml").read_text())["train"]["epochs"] == 4
    assert json.loads((whole / "run.json").read_text())["resumed"][0]["after_step"] == 3 * STEPS


def test_the_test_split_is_looked_at_before_training(train: Train, tiny_collection: Path, tmp_path: Path) -> None:
    (tiny_collection / "vatex" / "TextData" / "vatextest_zh.caption.txt").unlink()
    done = train(tmp_path / "run", "--test")
    assert done.code == 2 and "vatextest_zh" in done.err
    assert not (tmp_path / "run").exists()
