"""MLCMR's commands on the tiny collection: train, resume, test in both languages, check, published checkpoints."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nrccr
from nrccr.evaluation.metrics import retrieval_metrics
from nrccr.systems.base import splits_of
from nrccr.training.runfolder import RunFolder

Command = Callable[..., Any]
Train = Callable[..., Any]


@pytest.fixture
def train(nrccr_command: Command, mlcmr_config: Path, both_languages: Path) -> Train:
    """A function of a run folder and options: `nrccr train` of MLCMR on the tiny collection."""

    def run(out: Path, *options: str) -> Any:
        root = ("--root", both_languages)
        return nrccr_command("train", mlcmr_config, *root, "--out", out, "--device", "cpu", *options)

    return run


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("scenario", ["parallel", "translate", "unparallel"])
@pytest.mark.parametrize("reading", ["released", "corrected"])
def test_every_scenario_trains_and_is_tested_in_both_languages(
    train: Train, tmp_path: Path, both_languages: Path, scenario: str, reading: str
) -> None:
    out = tmp_path / "run"
    done = train(out, "--test", f"data.scenario={scenario}", f"reading={reading}", "train.epochs=2")
    assert done.code == 0, done.err
    chinese, english = (json.loads((out / place / "metrics.json").read_text()) for place in ("test", "test/en"))
    assert (chinese["queries_in"], english["queries_in"]) == ("zh", "en")
    assert chinese["queries"] == english["queries"] == 16 and chinese["normalisation"]["scores"] == "raw"
    assert (out / "test" / "ranks.tsv").is_file() and (out / "test" / "en" / "ranks.tsv").is_file()
    # The figures follow from what the model says of every caption and video.
    model = nrccr.load(out)
    model.save_pretrained(tmp_path / "saved")
    card = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    assert "| `zh` | text to video |" in card and "| `en` | text to video |" in card
    assert ("translator of the training captions" in card) is (scenario != "parallel")
    assert torch.equal(*(torch.from_numpy(own.encode_text(["狗"])) for own in (model, nrccr.load(tmp_path / "saved"))))
    splits = list(splits_of(model, both_languages, "test"))
    assert [(split.language, split.folder) for split in splits] == [("zh", ""), ("en", "en")]
    for split, metrics in zip(splits, (chinese, english), strict=True):
        queries = split.headline
        assert queries.translations is not None
        visual = torch.cat([model.network.embed_visual(split.visuals.batch(range(8)[at : at + 5])) for at in (0, 5)])
        weight = metrics["target_weight"]
        assert weight == 0.55
        mixed = sum(
            share * torch.cat([model.network.embed_text(table.batch(range(16)[at : at + 5])) for at in (0, 5, 10, 15)])
            for share, table in ((weight, queries.tokens), (1 - weight, queries.translations))
        )
        found = retrieval_metrics(mixed @ visual.T, queries.item_of)  # type: ignore[union-attr]
        if reading == "corrected":  # else an embedding depends on the batches, which need not be cut like this
            assert metrics["text_to_visual"] == pytest.approx(found)


def test_training_is_chosen_on_both_languages(train: Train, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train(out).code == 0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    checks = [line for line in lines if line["kind"] == "validation"]
    assert len(checks) == 3
    for line in checks:
        assert list(line["languages"]) == ["en", "zh"]
        assert line["score"] == pytest.approx(sum(own["SumR"] for own in line["languages"].values()))
    best = max(range(3), key=lambda at: checks[at]["score"])
    assert checks[-1]["best_epoch"] == best + 1
    (names,) = {tuple(key for key in line if key.endswith("_loss")) for line in lines if line["kind"] == "train"}
    assert names == ("source_loss", "target_loss", "source_view_loss", "target_view_loss", "visual_view_loss")


def test_seed_workers_and_resuming(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    whole, again, other = (tmp_path / name for name in ("whole", "again", "other"))
    there = ("--device", device)
    assert train(whole, *there).code == 0
    assert train(again, "data.workers=2", *there).code == 0 and train(other, "seed=1", *there).code == 0
    assert weights(again) == weights(whole) != weights(other)
    stopped = tmp_path / "stopped"
    save = RunFolder.save_state

    def save_then_die(self: RunFolder, state: dict[str, Any]) -> None:
        save(self, state)
        if state["position"]["epoch"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "save_state", save_then_die)
        assert train(stopped, *there).code == 130
    assert train(stopped, "--resume", *there).code == 0
    assert weights(stopped) == weights(whole)


def test_validating_on_the_test_split_is_said(train: Train, tmp_path: Path, both_languages: Path) -> None:
    for path in (both_languages / "vatex" / "TextData").glob("vatexval*"):
        path.unlink()
    refused = train(tmp_path / "none")
    assert refused.code == 2 and "vatexval.caption.txt" in refused.err and not (tmp_path / "none").exists()
    done = train(tmp_path / "run", "data.validate_on_test=true", "train.epochs=1")
    assert done.code == 0 and "data.validate_on_test" in done.out
    assert train(tmp_path / "held", "data.held_out=3", "train.epochs=1").code == 0


def test_check_looks_at_what_the_scenario_reads(
    nrccr_command: Command, mlcmr_config: Path, both_languages: Path
) -> None:
    good = nrccr_command("check", mlcmr_config, "--root", both_languages)
    assert good.code == 0 and "no problems found" in good.out
    (both_languages / "vatex" / "TextData" / "vatextrain_zh.caption.txt").unlink()
    (both_languages / "vatex" / "TextData" / "vatextest_google_enc2zh.caption.txt").unlink()
    bad = nrccr_command("check", mlcmr_config, "--root", both_languages)
    assert bad.code == 2 and "2 problems" in bad.err
    assert nrccr_command("check", mlcmr_config, "--root", both_languages, "data.scenario=translate").code == 2


def test_ranking_for_a_typed_query(train: Train, nrccr_command: Command, both_languages: Path, tmp_path: Path) -> None:
    assert train(tmp_path / "run", "train.epochs=1").code == 0
    done = nrccr_command("rank", tmp_path / "run", "人", "--root", both_languages, "--device", "cpu", "--top", "8")
    assert done.code == 0 and all(f"test{video} " in done.out for video in range(8))
    # It needs no captions of the other query language.
    (both_languages / "vatex" / "TextData" / "vatextest.caption.txt").unlink()
    again = nrccr_command("rank", tmp_path / "run", "人", "--root", both_languages, "--device", "cpu", "--top", "8")
    assert again.out == done.out


def test_encoding_raw_captions_and_videos(train: Train, tmp_path: Path) -> None:
    assert train(tmp_path / "run", "reading=corrected", "train.epochs=1").code == 0
    model = nrccr.load(tmp_path / "run")
    frames = [np.random.default_rng(0).standard_normal((count, 16)).astype(np.float32) for count in (3, 90)]
    vectors = model.encode_video(frames)
    assert vectors.shape == (2, 24)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    longer = model.encode_video([frames[1][:64], frames[1]])
    assert np.abs(longer[0] - longer[1]).max() > 1e-4  # the mean is over all 90 frames
    np.testing.assert_array_equal(model.encode_text(["A dog!"], "source"), model.encode_text(["a dog"], "source"))
    assert model.encode_text(["人"]).shape == (1, 24)
