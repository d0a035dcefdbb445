"""Quartet's commands: every part trains, a resumed run has the same bytes, each language is tested."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from transformers import BertConfig, BertModel

import nrccr
from nrccr.data.bigfile import BigFile
from nrccr.data.generated.collection import Recipe, generate
from nrccr.errors import UserError
from nrccr.evaluation.metrics import retrieval_metrics
from nrccr.safeload.unpickle import load_checkpoint, load_weights
from nrccr.systems.base import splits_of
from nrccr.systems.settings import load_config
from nrccr.training.runfolder import RunFolder
from tests.systems.quartet.parts import EVERYTHING, TRIPLET, VIDEOS

Command = Callable[..., Any]
Train = Callable[..., Any]
NOTHING = ("quartet.views=false", "quartet.languages=0", "quartet.guidance=0", "quartet.trust=false", "train.average=0")


@pytest.fixture
def train(nrccr_command: Command, quartet_config: Path, tiny_collection: Path) -> Train:
    """A function of a run folder and options: `nrccr train` of Quartet on the tiny collection."""

    def run(out: Path, *options: str) -> Any:
        root = ("--root", tiny_collection)
        return nrccr_command("train", quartet_config, *root, "--out", out, "--device", "cpu", *options)

    return run


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run: Path) -> set[str]:
    return {name for line in lines(run) if line["kind"] == "train" for name in line if name.endswith("_loss")}


def ranks_of(folder: Path) -> dict[tuple[str, str], int]:
    """The rank of every query, by item and number."""
    rows = [line.split("\t") for line in (folder / "ranks.tsv").read_text().splitlines()[1:]]
    return {(row[0].split("#")[0], row[0].split("#")[2]): int(row[1]) for row in rows}


def test_every_part_is_a_term_and_can_be_left_out(train: Train, tmp_path: Path) -> None:
    assert train(tmp_path / "all", "train.epochs=1", *EVERYTHING).code == 0
    assert losses(tmp_path / "all") == {
        *("rank_loss", "languages_zh_loss", "guidance_zh_loss", "similarity_zh_loss", "feature_zh_loss"),
        *("cycle_loss", "adversary_loss", "discriminator_loss"),
    }
    assert load_weights(tmp_path / "all" / "model.safetensors")["words.pairs.weight"].shape == (16384, 8)
    assert train(tmp_path / "none", "train.epochs=1", *NOTHING).code == 0
    assert losses(tmp_path / "none") == {"rank_loss"}
    assert train(tmp_path / "triplet", "train.epochs=1", *TRIPLET).code == 0
    for line in lines(tmp_path / "triplet"):
        assert line["kind"] != "train" or line["temperature"] == pytest.approx(0.07)  # no term trains it


@pytest.mark.parametrize("video", VIDEOS)
def test_every_kind_of_video_is_loaded_again(train: Train, tmp_path: Path, video: str) -> None:
    run = tmp_path / video
    assert train(run, "train.epochs=1", *NOTHING, *VIDEOS[video]).code == 0
    trained = nrccr.load(run)
    names = {name.split(".")[2] for name in load_weights(run / "model.safetensors") if name.startswith("visual.parts.")}
    assert names == {"mean": set(), "levels": {"0"}, "transformer": {"0"}, "both": {"0", "1"}}[video]
    frames = np.random.default_rng(0).random((2, 3, trained.feature_width), np.float32)
    alone = trained.encode_video([frames[0]])
    np.testing.assert_allclose(trained.encode_video(list(frames))[:1], alone, atol=1e-5)


@pytest.mark.parametrize("video", ["mean", "both"])
def test_a_test_sees_long_videos_as_encode_video_does(
    train: Train, tiny_collection: Path, tmp_path: Path, video: str
) -> None:
    """Their mean is of all frames, of those too that a batch leaves out."""
    given = (*NOTHING, *VIDEOS[video], "data.max_frames=3")
    assert train(tmp_path / "run", "train.epochs=1", *given).code == 0
    model = nrccr.load(tmp_path / "run")
    (split,) = splits_of(model, tiny_collection, "test")
    features = BigFile(tiny_collection / "vatex" / "FeatureData" / "i3d_kinetics")
    whole = [features.read([features.rows(video)])[0][0] for video in split.visuals.ids]  # each (frames, 16)
    assert max(map(len, whole)) > 3
    gallery = model.network.embed_visual(split.visuals.batch(range(len(whole))))
    np.testing.assert_allclose(gallery.numpy(), model.encode_video(whole), atol=1e-5)


@pytest.mark.parametrize("parts", [(), EVERYTHING], ids=["usual", "everything"])
def test_resuming_gives_the_same_bytes(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: tuple[str, ...]
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert train(whole, *parts).code == 0 and train(tmp_path / "again", "data.workers=1", *parts).code == 0
    save = RunFolder.save_state

    def save_then_die(self: RunFolder, state: dict[str, Any]) -> None:
        save(self, state)
        if state["position"]["epoch"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "save_state", save_then_die)
        assert train(stopped, *parts).code == 130
    assert train(stopped, "--resume", *parts).code == 0
    expected = (whole / "model.safetensors").read_bytes()
    assert (stopped / "model.safetensors").read_bytes() == expected
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == expected


def test_a_damaged_memory_is_refused(train: Train, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(run, "train.epochs=1").code == 0
    state = load_checkpoint(run / "last" / "state.pt")
    for name in ("average", "memory"):
        torch.save({key: value for key, value in state.items() if key != name}, run / "last" / "state.pt")
        done = train(run, "--resume", "train.epochs=2")
        assert done.code == 2 and "does not fit this configuration" in done.err and done.err.count("\n") == 1
    torch.save(state | {"memory": {"trust": {"average": torch.ones(1, 5)}}}, run / "last" / "state.pt")
    assert train(run, "--resume", "train.epochs=2").code == 2


def test_saved_weights_are_the_average(train: Train, tmp_path: Path) -> None:
    """With a decay that leaves nothing of the past they are the last step's, as without an average."""
    for name, decay in (("plain", "0"), ("sudden", "1e-9"), ("slow", "0.9")):
        assert train(tmp_path / name, "train.epochs=1", "train.warmup=0", f"train.average={decay}").code == 0
    plain, sudden, slow = (load_weights(tmp_path / name / "model.safetensors") for name in ("plain", "sudden", "slow"))
    for key, value in plain.items():
        torch.testing.assert_close(sudden[key], value, rtol=1e-5, atol=1e-6)
    assert any(not torch.allclose(slow[key], value, atol=1e-5) for key, value in plain.items())


@pytest.fixture
def generated(tmp_path: Path) -> Path:
    """Root with a small generated collection: English, German and Chinese."""
    generate(tmp_path / "root", Recipe(seed=0, rates=(0.2,), videos=(12, 6, 6), captions=2))
    return tmp_path / "root"


def test_the_cycle_needs_back_translations_of_the_first_language_alone(nrccr_command: Command, generated: Path) -> None:
    texts = generated / "generated" / "TextData"
    for language, code in (("zh", 0), ("de", 2)):
        (texts / f"generatedtrain_noise20_enc2{language}2enc.caption.txt").unlink()
        done = nrccr_command("check", "quartet/generated", "--root", generated, "loss.cycle=0.1")
        assert done.code == code, done.err
    assert "enc2de2enc" in done.err or "enc2de2enc" in done.out


def test_several_languages_in_one_model(nrccr_command: Command, generated: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    small = ("visual.width=32", "visual.heads=4", "joint.width=24", "train.batch_size=8", "train.epochs=2")
    done = nrccr_command("check", "quartet/generated", "--root", generated)
    assert done.code == 0, done.err
    done = nrccr_command(
        "train", "quartet/generated", "--root", generated, "--out", run, "--device", "cpu", "--test",
        "train.log_every=1", *small,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert {"languages_de_loss", "languages_zh_loss", "guidance_de_loss", "guidance_zh_loss"} < losses(run)
    (last,) = [line for line in lines(run) if line["kind"] == "validation"][-1:]
    sums = [last["languages"][language]["SumR"] for language in ("de", "zh")]
    assert last["score"] == pytest.approx(sum(sums) / 2)
    model = nrccr.load(run)
    splits = list(splits_of(model, generated, "test"))
    assert [(split.language, split.folder) for split in splits] == [("de", ""), ("zh", "zh")]
    for split in splits:
        metrics = json.loads((run / "test" / split.folder / "metrics.json").read_text())
        queries = split.headline
        assert queries.translations is not None
        count = len(queries.ids)
        target, source = (
            model.network.embed_text(table.batch(range(count))) for table in (queries.tokens, queries.translations)
        )
        weight = metrics["target_weight"]
        scores = (weight * target + (1 - weight) * source) @ model.network.embed_visual(split.visuals.batch(range(6))).T
        assert metrics["text_to_visual"] == pytest.approx(retrieval_metrics(scores, queries.item_of))
    assert model.encode_text(["eine Fünf"]).shape == (1, 24)
    together = json.loads((run / "test" / "languages.json").read_text())
    each = [json.loads((run / "test" / name / "metrics.json").read_text()) for name in ("", "zh")]
    assert together["mean"]["SumR"] == pytest.approx(sum(one["SumR"] for one in each) / 2)
    ranks = [ranks_of(run / "test" / name) for name in ("", "zh")]
    assert ranks[0].keys() == ranks[1].keys() and together["rank_variance_queries"] == len(ranks[0]) == 12
    variance = np.mean([np.var([ranks[0][key], ranks[1][key]]) for key in ranks[0]])
    assert together["rank_variance"] == pytest.approx(variance) and variance > 0
    done = nrccr_command("compare", "--languages", run)
    assert done.code == 0 and f"{together['mean']['SumR']:.2f}" in done.out, done.err
    assert f"{variance:.2f} (12 queries" in done.out
    done = nrccr_command("test", run, "--root", generated, "--device", "cpu", "--tune")
    tuned = json.loads((run / "test-tuned" / "languages.json").read_text())
    assert done.code == 0 and tuned["untuned"]["mean"] == together["mean"], done.err
    header, *rows = [line.split("\t") for line in (run / "trust.tsv").read_text("utf-8").splitlines()]
    assert header == ["trust", "caption", "language", "translation"] and len(rows) == 2 * 24
    assert [float(row[0]) for row in rows] == sorted(float(row[0]) for row in rows) and float(rows[0][0]) < 1
    assert {row[2] for row in rows} == {"de", "zh"} and all(row[3] for row in rows)
    done = nrccr_command("report", run, "--root", generated, "--device", "cpu", "--parts", "distrust,retrieved")
    assert done.code == 0 and "queries in de" in (run / "report" / "report.html").read_text("utf-8"), done.err
    with (run / "report" / "distrusted.csv").open(encoding="utf-8") as file:
        (first, *_) = csv.DictReader(file)
    assert first["translation"] in {row[3] for row in rows if row[2] == "de"} and float(first["words lost %"]) >= 0
    with (run / "report" / "trust.csv").open(encoding="utf-8") as file:
        shown = list(csv.DictReader(file))
    assert [[row["caption"], row["language"], row["translation"]] for row in shown] == [row[1:] for row in rows[:12]]
    assert all(row["source"] and row["clean sentence"] for row in shown)
    with (run / "report" / "trust-numbers.csv").open(encoding="utf-8") as file:
        assert [(row["language"], row["translations"]) for row in csv.DictReader(file)] == [
            ("all", "48"), ("de", "24"), ("zh", "24")
        ]  # fmt: skip


def test_a_prefix_is_part_of_every_caption(train: Train, tmp_path: Path) -> None:
    assert train(tmp_path / "run", "train.epochs=1", 'text.prefix="red "').code == 0
    model = nrccr.load(tmp_path / "run")
    bare = model.tokenizer.tokenizer("red 狗")["input_ids"]
    tokens = model.tokenizer.encode(["狗"]).batch([0]).tokens[0].tolist()
    assert tokens == bare
    assert json.loads((tmp_path / "run" / "run.json").read_text())["tokenizer"]["prefix"] == "red "
    np.testing.assert_array_equal(model.encode_text(["狗"]), nrccr.load(tmp_path / "run").encode_text(["狗"]))


def test_parts_of_a_batch_without_a_language(train: Train, tiny_collection: Path, tmp_path: Path) -> None:
    """Few translations: most parts of like length have none, and their views are none either."""
    (path,) = (tiny_collection / "vatex" / "TextData").glob("vatextrain_google_enc2zh.caption.txt")
    path.write_text("\n".join(path.read_text("utf-8").splitlines()[:3]) + "\n", "utf-8")
    given = ("train.epochs=1", "train.batch_size=24", "train.log_every=1", "data.mismatch_tolerance=1")
    done = train(tmp_path / "run", *given)
    assert done.code == 0, done.err
    assert {"languages_zh_loss", "guidance_zh_loss"} < losses(tmp_path / "run")


@pytest.mark.parametrize("left", [1, 2])
def test_batches_with_few_translations(train: Train, tiny_collection: Path, tmp_path: Path, left: int) -> None:
    """Most batches have no translation, one has one alone: it takes the running statistics."""
    (path,) = (tiny_collection / "vatex" / "TextData").glob("vatextrain_google_enc2zh.caption.txt")
    path.write_text("\n".join(path.read_text("utf-8").splitlines()[:left]) + "\n", "utf-8")
    parts = [part for part in EVERYTHING if not part.startswith("loss.cycle")]
    done = train(tmp_path / "run", "train.epochs=1", "train.batch_size=4", "data.mismatch_tolerance=1", *parts)
    assert done.code == 0, done.err
    assert all(torch.isfinite(value).all() for value in load_weights(tmp_path / "run" / "model.safetensors").values())


def test_what_the_encoder_wants_is_recorded(train: Train, tiny_bert: Path, tmp_path: Path) -> None:
    """An encoder that is found as LaBSE is pooled at its first token, and the run records that."""
    encoder = Path(shutil.copytree(tiny_bert, tmp_path / "LaBSE"))
    config = BertConfig.from_pretrained(encoder)
    BertModel(config).save_pretrained(encoder)
    given = ("train.epochs=1", f"text.model={encoder}", "text.pretrained=true", "text.freeze=none", "text.backbone={}")
    run = tmp_path / "run"
    done = train(run, *given)
    assert done.code == 0, done.err
    recorded = yaml.safe_load((run / "config.yaml").read_text())
    assert (recorded["text"]["prefix"], recorded["quartet"]["pooling"]) == ("", "first")
    assert nrccr.load(run).network.text.pooling == "first"
    assert train(run, "--resume", *given).code == 0
    assert train(tmp_path / "mean", *given, "quartet.pooling=mean").code == 0
    assert nrccr.load(tmp_path / "mean").network.text.pooling == "mean"
    named = Path(shutil.copytree(encoder, tmp_path / "unknown"))
    done = train(tmp_path / "other", *given[:1], f"text.model={named}", *given[2:])
    assert done.code == 0 and "no encoder of our table, so text.prefix='', quartet.pooling='mean'" in done.out


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["loss.similarity=0.4"], "need the teacher"),
        (["quartet.trust=false", "quartet.trust_from=4"], "quartet.trust_from=4 is not used by quartet.trust=false"),
        (["quartet.ranking=triplet", "quartet.temperature=0.1"], "is not used by quartet.ranking=triplet"),
        (
            ["quartet.ranking=triplet"],  # the file has another than the usual one
            "quartet.least_temperature=0.07 is not used by quartet.ranking=triplet; set it to 0.01",
        ),
        ([*TRIPLET, "quartet.trust=true"], "quartet.trust=true is not used by quartet.ranking=triplet"),
        ([*TRIPLET, "quartet.views=true"], "quartet.views=true is not used by quartet.ranking=triplet"),
        (["data.languages=[zh]", "data.target=fr"], "data.target=fr is not used by data.languages=[zh]"),
        (["data.languages=[zh,de,zh]"], "data.languages: zh is there twice"),
        (["visual.kind=vectors", "quartet.dropped_frames=0.4"], "is not used by visual.kind=vectors"),
        (
            ["visual.kind=vectors", "quartet.video=levels", "quartet.dropped_frames=0", "data.max_frames=7"],
            "data.max_frames=7 is not used by visual.kind=vectors",
        ),
        (["visual.kind=vectors", "quartet.video=mean"], "is not used by visual.kind=vectors"),
        (["loss.margin=0.3"], "loss.margin=0.3 is not used by quartet.ranking=contrast"),
        (["quartet.guidance=0", "quartet.guidance_temperature=0.1"], "is not used by quartet.guidance=0"),
        (["loss.temperature=0.05"], "loss.temperature=0.05 is not used by loss.similarity=0.0; set it to 0.07"),
        (["text.freeze=all_frozen"], "train.backbone_learning_rate=0.0001 is not used by text.freeze=all_frozen"),
        (["text.width=64"], "text.width=64 is not used by quartet.pooling="),
        (["visual.gru=32", "quartet.video=transformer"], "visual.gru=32 is not used by quartet.video=transformer"),
        (["visual.layers=2", "quartet.video=levels"], "visual.layers=2 is not used by quartet.video=levels"),
        (["adversary.learning_rate=0.01"], "adversary.learning_rate=0.01 is not used by loss.adversary=0"),
        (["visual.kind=clip"], "visual.kind=clip does not go with model=quartet"),
        (["data.languages=[en,zh]"], "data.source=en is among the languages of the queries"),
        (["quartet.video=both", "data.max_frames=81"], "at most 80"),
        (["data.scenario=unparallel"], "is not used by model=quartet"),
    ],
)
def test_what_does_not_go_together_is_refused(train: Train, tmp_path: Path, overrides: list[str], says: str) -> None:
    done = train(tmp_path / "run", *overrides)
    assert done.code == 2 and says in done.err and done.err.count("\n") == 1 and not (tmp_path / "run").exists()


def test_a_target_beside_the_languages_of_a_file_is_refused_even_if_it_is_the_usual_one() -> None:
    path = Path(__file__).resolve().parents[3] / "configs" / "quartet" / "generated.yaml"
    with pytest.raises(UserError, match=r"data\.target: not used beside data\.languages=\[de,zh\]; choose with"):
        load_config(path, ["data.target=zh"])
    assert load_config(path, ["data.languages=[]", "data.target=de"]).data.target == "de"
