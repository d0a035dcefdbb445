"""A run folder is written by one training at a time, and nothing in it leads a write elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nrccr.training.loop import Trainer
from nrccr.training.runfolder import RunFolder

Train = Callable[..., Any]
Results = Callable[[Path], Any]


@pytest.mark.parametrize("name", ["test", "test/ranks.tsv", "test/ranks_visual.tsv", "test/metrics.json"])
def test_a_test_writes_through_no_link(run_test: Train, trained: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (trained / name).parent.mkdir(exist_ok=True)
    (trained / name).symlink_to(outside / "victim" if "." in name else outside)
    done = run_test(trained)
    assert done.code == 2 and len(done.err.splitlines()) == 1 and f"{trained / name}: a link" in done.err
    assert not any(outside.iterdir())


def test_a_users_own_links_to_folders_are_followed(run_test: Train, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "results").symlink_to(tmp_path / "disk")
    (tmp_path / "link").symlink_to(trained)
    assert run_test(tmp_path / "link", "--out", tmp_path / "results").code == 0
    assert (tmp_path / "disk" / "metrics.json").is_file()


@pytest.mark.parametrize("name", ["metrics.jsonl", "tensorboard", "last", "model.safetensors", "run.json"])
def test_a_resumed_run_writes_through_no_link(train: Train, trained: Path, tmp_path: Path, name: str) -> None:
    (trained / name).rename(tmp_path / "moved")
    (trained / name).symlink_to(tmp_path / "moved")
    done = train(trained, "--resume", "train.epochs=4")
    assert done.code == 2 and len(done.err.splitlines()) == 1 and f"{trained / name}: a link" in done.err


def test_a_bank_writes_through_no_link(
    nrccr_command: Train, trained: Path, tiny_collection: Path, tmp_path: Path
) -> None:
    (trained / "bank").symlink_to(tmp_path)
    done = nrccr_command("bank", trained, "--root", tiny_collection, "--size", 5, "--device", "cpu")
    assert done.code == 2 and f"{trained / 'bank'}: a link" in done.err and not (tmp_path / "bank.json").exists()


def test_overwrite_keeps_a_link_to_the_run_folder(train: Train, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(trained)
    assert train(tmp_path / "link", "--overwrite", "train.epochs=1", "seed=5").code == 0
    assert (tmp_path / "link").is_symlink() and "seed: 5" in (trained / "config.yaml").read_text()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("option", ["--resume", "--overwrite"])
def test_a_second_training_in_one_folder_stops_with_one_line(
    train: Train, results: Results, trained: Path, option: str
) -> None:
    before = results(trained)
    with RunFolder(trained).held():
        done = train(trained, option, "train.epochs=4")
    assert done.code == 2 and len(done.err.splitlines()) == 1 and f"{trained}: another training" in done.err
    assert results(trained) == before
    assert train(trained, option, "train.epochs=4").code == 0


def test_of_two_trainings_that_start_together_one_stops(
    train: Train, results: Results, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other's run appeared after this one had found nothing in the folder."""
    init = Trainer.__init__

    def init_late(self: Trainer, *arguments: Any) -> None:
        init(self, *arguments)
        shutil.copytree(trained, tmp_path / "new")

    monkeypatch.setattr(Trainer, "__init__", init_late)
    done = train(tmp_path / "new")
    assert done.code == 2 and "already holds a run" in done.err
    assert results(tmp_path / "new") == results(trained)
    assert not list(tmp_path.glob(".new*"))


def test_a_training_holds_its_folder_until_it_ends(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, held = Trainer.run, []

    def run_and_look(self: Trainer) -> Any:
        other = RunFolder(self.folder.path)
        held.append(not other.lock.take(other.log))
        return run(self)

    monkeypatch.setattr(Trainer, "run", run_and_look)
    for option in ((), ("--overwrite",), ("--resume", "train.epochs=2")):
        assert train(tmp_path / "run", "train.epochs=1", *option).code == 0
    assert held == [True] * 3
    assert RunFolder(tmp_path / "run").lock.take(tmp_path / "run" / "metrics.jsonl")
