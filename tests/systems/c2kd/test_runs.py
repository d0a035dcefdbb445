"""C2KD from configuration to test: the three stages, teachers, resuming, published checkpoints."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nrccr
from nrccr.safeload.unpickle import load_checkpoint, load_weights, save_weights
from nrccr.systems.loading import load_retriever

CHECKOUT = Path(__file__).resolve().parents[3]
Command = Callable[..., Any]
LANGUAGES = ("en", "de", "zh")
FIRST_TRAIN_FILE = "multi_msrvtttrain_de.caption.txt"


def distilling(teachers: list[Path], *options: str) -> list[str]:
    return ["c2kd.stage=distill", f"c2kd.teachers=[{','.join(map(str, teachers))}]", *options]


def lines_of(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "seconds" not in k} for line in lines if line["kind"] == kind]


def test_translate_train_from_configuration_to_metrics(learn: Command, nrccr_command: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = learn(run, "--test")
    assert done.code == 0 and done.err == "", done.err
    assert "train: 12 items, captions (en 23, de 21, zh 24), missing (en 1, de 3), 0 cut, 0 empty" in done.out
    assert "best validation score" in done.out and "rank variance across languages" in done.out
    trained = lines_of(run, "train")
    assert len(trained) == 4  # two epochs of two batches: the last, short one is dropped
    losses = {name for name in trained[0] if name.endswith("_loss")}
    assert losses == {"english_loss", "contrastive_de_loss", "contrastive_zh_loss"}
    for line in trained:
        assert line["total"] == pytest.approx(sum(line[name] for name in losses), rel=1e-5)
    rates = [line["learning_rate"] for line in trained]
    assert rates == pytest.approx([5e-4, 5e-4, 4.5e-4, 4.5e-4])
    validated = lines_of(run, "validation")
    assert set(validated[0]["languages"]) == set(LANGUAGES) and validated[0]["score"] > 0
    metrics = json.loads((run / "test" / "metrics.json").read_text())
    assert metrics["collection"] == "multi_msrvtt" and metrics["split"] == "test" and metrics["items"] == 8
    assert metrics["switches"] == {"frames": "first", "pool_mask": "own"}
    for language in LANGUAGES:
        assert (run / "test" / language / "ranks.tsv").is_file()
    assert nrccr_command("compare", run / "test" / "en", run / "test" / "zh", "--languages").code == 0
    assert {path.name for path in (run / "backbone").iterdir()} >= {"config.json", "tokenizer.json"}


def test_validation_split_equals_the_validation_in_training(
    learn: Command, nrccr_command: Command, tiny_languages: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert learn(run).code == 0
    done = nrccr_command("test", run, "--root", tiny_languages, "--split", "val", "--device", "cpu")
    assert done.code == 0, done.err
    metrics = json.loads((run / "val" / "metrics.json").read_text())
    validated = lines_of(run, "validation")
    best = validated[validated[-1]["best_epoch"] - 1]
    assert metrics["mean"]["text_to_visual"] == pytest.approx(best["mean"]["text_to_visual"])


def test_zero_shot_reads_english_alone(learn: Command, tiny_languages: Path, tmp_path: Path) -> None:
    (tiny_languages / "multi_msrvtt" / "TextData" / FIRST_TRAIN_FILE).unlink()
    done = learn(tmp_path / "run", "c2kd.stage=zero_shot", "--test")
    assert done.code == 0, done.err
    assert "captions (en 23), 0 cut" in done.out
    assert [name for name in lines_of(tmp_path / "run", "train")[0] if name.endswith("_loss")] == ["english_loss"]
    metrics = json.loads((tmp_path / "run" / "test" / "metrics.json").read_text())
    assert list(metrics["languages"]) == list(LANGUAGES)


def test_without_validation_split_the_last_epoch_is_kept(learn: Command, tiny_languages: Path, tmp_path: Path) -> None:
    for path in (tiny_languages / "multi_msrvtt" / "TextData").glob("multi_msrvttval*"):
        path.unlink()
    run = tmp_path / "run"
    done = learn(run, "--test")
    assert done.code == 0 and "no validation split; epoch 2, the last, was kept" in done.out, done.err
    kept, last = load_weights(run / "model.safetensors"), load_checkpoint(run / "last" / "state.pt")["network"]
    assert kept.keys() == last.keys() and all(torch.equal(kept[name], last[name]) for name in kept)


@pytest.mark.parametrize("pooling", ["maximum", "minimum", "mean", "each", "learned_teachers", "learned_pools"])
def test_every_pooling_distils(learn: Command, teachers: list[Path], tmp_path: Path, pooling: str) -> None:
    done = learn(tmp_path / "run", *distilling(teachers, f"c2kd.pooling={pooling}", "train.epochs=1", "--test"))
    assert done.code == 0, done.err
    first, second = lines_of(tmp_path / "run", "train")
    assert {f"distill_{language}_loss" for language in LANGUAGES} < first.keys()
    shares = [name for name in second if name.startswith("weight_")]
    assert len(shares) == {"learned_teachers": 2, "learned_pools": 3}.get(pooling, 0)
    if shares:
        assert sum(second[name] for name in shares) == pytest.approx(1)
        assert {first[name] for name in shares} != {second[name] for name in shares}  # they learn


def test_precomputed_teachers_give_the_losses_of_teachers_in_the_loop(
    learn: Command, teachers: list[Path], tmp_path: Path, device: str
) -> None:
    runs = {ready: tmp_path / f"precompute-{ready}" for ready in ("true", "false")}
    for ready, run in runs.items():
        done = learn(run, *distilling(teachers, f"c2kd.precompute={ready}", "c2kd.balance=0.3"), "--device", device)
        assert done.code == 0, done.err
    both = [lines_of(run, "train") for run in runs.values()]
    assert len(both[0]) == len(both[1]) == 4
    assert both[0][0] == pytest.approx(both[1][0], abs=1e-5)
    for one, other in zip(*both, strict=True):
        assert one["total"] == pytest.approx(other["total"], abs=1e-3)  # rounding grows from step to step


def test_smooth_l1_ablation(learn: Command, teachers: list[Path], tmp_path: Path) -> None:
    done = learn(tmp_path / "run", *distilling(teachers, "c2kd.distillation=smooth_l1", "train.epochs=1"))
    assert done.code == 0, done.err


@pytest.mark.parametrize("pooling", ["maximum", "learned_teachers"])
def test_resuming_is_bit_exact_and_keeps_learned_weights(
    learn: Command, teachers: list[Path], tmp_path: Path, pooling: str, device: str
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = [*distilling(teachers, f"c2kd.pooling={pooling}"), "--device", device]
    assert learn(whole, *options, "train.epochs=3").code == 0
    assert learn(parts, *options, "train.epochs=1").code == 0
    done = learn(parts, *options, "train.epochs=3", "--resume")
    assert done.code == 0 and "resumes after epoch 1" in done.out, done.err
    assert lines_of(whole, "train") == lines_of(parts, "train")
    ours, theirs = (load_checkpoint(run / "last" / "state.pt") for run in (whole, parts))
    for name, value in ours["network"].items():
        assert torch.equal(value, theirs["network"][name]), name
    if pooling == "learned_teachers":
        mixing, other = (state["players"]["mixing"]["module"]["mixing"] for state in (ours, theirs))
        assert torch.equal(mixing, other) and not torch.equal(mixing, torch.full((2,), 0.33))


def test_a_run_goes_on_with_the_teachers_it_began_with(learn: Command, teachers: list[Path], tmp_path: Path) -> None:
    run, options = tmp_path / "run", distilling(teachers)
    assert learn(run, *options, "train.epochs=1").code == 0
    record = json.loads((run / "run.json").read_text())
    assert [own["name"] for own in record["teachers"]] == [str(teacher) for teacher in teachers]
    for own, teacher in zip(record["teachers"], teachers, strict=True):
        assert own["weights"] == hashlib.sha256((teacher / "model.safetensors").read_bytes()).hexdigest()
    peaks = record["finished"].pop("peak_memory_mb")
    assert record["finished"] == {"step": 2, "best_epoch": 1} and 50 < peaks["process"] < 50_000
    before = (run / "run.json").read_bytes()
    weights = load_weights(teachers[0] / "model.safetensors")
    save_weights({name: value * 2 for name, value in weights.items()}, teachers[0] / "model.safetensors")
    done = learn(run, *options, "train.epochs=2", "--resume")
    assert done.code == 2 and "run.json: the teachers changed since; resume with the same" in done.err
    assert (run / "run.json").read_bytes() == before


def test_odd_teachers_are_noted(learn: Command, teachers: list[Path], tmp_path: Path) -> None:
    record = teachers[0] / "run.json"
    record.write_text(json.dumps({k: v for k, v in json.loads(record.read_text()).items() if k != "finished"}))
    config = teachers[1] / "config.yaml"
    config.write_text(config.read_text().replace("collection: multi_msrvtt", "collection: multi_rudder"))
    named = [teachers[0] / "model.safetensors", teachers[1]]  # by its weights, as nrccr.load takes it too
    done = learn(tmp_path / "run", *distilling(named), "train.epochs=1")
    assert done.code == 0, done.err
    said = " ".join(done.out.split())
    assert f"note: teacher {named[0]} has not finished its training" in said
    assert f"teacher {named[1]} was trained with data.collection=multi_rudder, not multi_msrvtt" in said


def test_languages_without_training_captions_are_noted(learn: Command, tiny_languages: Path, tmp_path: Path) -> None:
    text = tiny_languages / "multi_msrvtt" / "TextData"
    (text / FIRST_TRAIN_FILE).unlink()
    done = learn(tmp_path / "run", "train.epochs=1")
    assert done.code == 0 and "note: no training captions in de, which the test split has" in done.out, done
    assert "note" not in learn(tmp_path / "english", "train.epochs=1", "c2kd.stage=zero_shot").out


def test_asking_for_fewer_languages_keeps_gallery_and_figures(
    learn: Command, nrccr_command: Command, tiny_languages: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert learn(run, "train.epochs=1", "--test").code == 0
    whole = json.loads((run / "test" / "metrics.json").read_text())
    foreign = run / "test" / "mine" / "ranks.tsv"
    foreign.parent.mkdir()
    foreign.write_text("not ours")
    done = nrccr_command("test", run, "--root", tiny_languages, "--device", "cpu", "data.languages=[zh]")
    assert done.code == 0, done.err
    alone = json.loads((run / "test" / "metrics.json").read_text())
    assert alone["items"] == whole["items"] == 8 and alone["languages"] == {"zh": whole["languages"]["zh"]}
    assert alone["languages"]["zh"]["queries"] == 7 and alone["rank_variance"] is None
    # None of the test before, and all that is not a test's.
    assert sorted(path.parent.name for path in (run / "test").glob("*/ranks.tsv")) == ["mine", "zh"]
    assert sorted(path.parent.name for path in (run / "test").glob("*/ranks_visual.tsv")) == ["zh"]


def test_workers_change_nothing(learn: Command, teachers: list[Path], tmp_path: Path) -> None:
    for workers in (0, 2):
        options = distilling(teachers, f"data.workers={workers}", "c2kd.precompute=false", "train.epochs=1")
        assert learn(tmp_path / str(workers), *options).code == 0
    assert lines_of(tmp_path / "0", "train") == lines_of(tmp_path / "2", "train")


def test_a_run_folder_stands_on_its_own_with_labses_tokens(
    learn: Command, nrccr_command: Command, tiny_languages: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    own, run = shutil.copytree(tiny_bert, tmp_path / "own"), tmp_path / "run"
    done = learn(run, f"text.model={own}", "switches.pool_mask=labse", f"c2kd.labse={tiny_bert}", "--test")
    assert done.code == 0, done.err
    before = json.loads((run / "test" / "metrics.json").read_text())
    shutil.rmtree(own)
    again = tmp_path / "again"
    changed = (run / "config.yaml").read_text().replace(str(tiny_bert), str(own))
    (run / "config.yaml").write_text(changed)  # neither encoder is where it was
    done = nrccr_command("test", run, "--root", tiny_languages, "--out", again, "--device", "cpu")
    assert done.code == 0, done.err
    assert json.loads((again / "metrics.json").read_text()) == before
    model = nrccr.load(run)
    vectors = model.encode_text(["a man runs", "ein Mann"], role="source")
    assert vectors.shape == (2, 24) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    model.save_pretrained(tmp_path / "saved")
    shutil.rmtree(run)
    again_loaded = nrccr.load(tmp_path / "saved")
    assert np.array_equal(again_loaded.encode_text(["a man runs", "ein Mann"], role="source"), vectors)
    assert (tmp_path / "saved" / "labse" / "config.json").is_file()
    assert "| `de` | text to video |" in (tmp_path / "saved" / "README.md").read_text(), "one row a language"
    assert model.encode_video([np.ones((3, 16), dtype=np.float32)]).shape == (1, 24)


def test_comparing_two_runs_in_one_language(learn: Command, nrccr_command: Command, tmp_path: Path) -> None:
    runs = [tmp_path / name for name in ("a", "b")]
    for seed, run in enumerate(runs):
        assert learn(run, "train.epochs=1", f"seed={seed}", "--test").code == 0
    done = nrccr_command("compare", *runs)
    assert done.code == 2 and f"{runs[0]}: tested by language; give the folder of one, such as {runs[0]}/test/de" in (
        done.err
    )
    done = nrccr_command("compare", *(run / "test" / "de" for run in runs), "--resamples", 100)
    assert done.code == 0 and "T2V R@1" in done.out and "a/test/de" in "".join(done.out.split()), done
    done = nrccr_command("compare", *(runs[0] / "test" / language for language in LANGUAGES), "--languages")
    assert done.code == 0, done.err
    # Finished runs of C2KD stand in the tables of `nrccr table`.
    done = nrccr_command("table", "--runs", tmp_path)
    assert done.code == 0 and "Other runs of C2KD" in done.out, done.err


def test_ranking_and_checking(
    learn: Command, nrccr_command: Command, c2kd_config: Path, tiny_languages: Path, tmp_path: Path
) -> None:
    assert learn(tmp_path / "run", "train.epochs=1").code == 0
    root = ("--root", tiny_languages)
    done = nrccr_command("rank", tmp_path / "run", "ein Hund rennt", *root, "--device", "cpu", "--right", "test3")
    assert done.code == 0 and "8 videos of multi_msrvtt test" in done.out, done.err
    done = nrccr_command("check", c2kd_config, *root)
    assert done.code == 0 and "no problems found" in done.out, done.err
    assert "lacks 3 captions that another language has" in done.out
    path = tiny_languages / "multi_msrvtt" / "TextData" / FIRST_TRAIN_FILE
    path.write_text(path.read_text() + "broken\nnowhere#de#0 ein Ball\n")
    done = nrccr_command("check", c2kd_config, *root)
    assert done.code == 2 and "2 problems found" in done.err and "1 of 13 items of split train have no" in done.out


def publish(run: Path, path: Path) -> None:
    """Write a run's weights as the published code lays them out."""
    names = {
        "text.backbone.": "fusion_text.", "text.norm.": "text_proj.0.", "text.project.linear.": "text_proj.1.fc.",
        "text.project.gate.": "text_proj.1.cg.fc.", "video.embed.linear.": "video_token_proj.fc.",
        "video.embed.gate.": "video_token_proj.cg.fc.", "video.embed_norm.": "video_norm_layer.",
        "video.project.linear.": "video_proj.fc.", "video.project.gate.": "video_proj.cg.fc.",
        "video.cls": "fusion_video.cls_token", "video.nothing": "fusion_video.masking_token",
        "video.blocks.": "fusion_video.blocks.",
    }  # fmt: skip
    inner = {
        "attention_norm.": "norm1.", "query_key_value.": "attn.qkv.", "output.": "attn.proj.", "mlp_norm.": "norm2.",
        "inner.": "mlp.fc1.", "outer.": "mlp.fc2.",
    }  # fmt: skip
    state = {}
    for name, value in load_weights(run / "model.safetensors").items():
        ((ours, theirs),) = [pair for pair in names.items() if name.startswith(pair[0])]
        rest = name.removeprefix(ours)
        if ours == "video.blocks.":
            block, part = rest.split(".", 1)
            rest = f"{block}.{next(new + part.removeprefix(old) for old, new in inner.items() if part.startswith(old))}"
        state[theirs + rest] = value.reshape(1, 1, -1) if name == "video.cls" else value
    path.parent.mkdir()
    torch.save({"state_dict": state, "epoch": 1, "arch": "X"}, path)


def test_published_checkpoints_test_and_teach(
    learn: Command, nrccr_command: Command, teachers: list[Path], tiny_languages: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    small = shutil.copytree(tiny_bert, tmp_path / "small")
    config = json.loads((teachers[0] / "backbone" / "config.json").read_text())
    (small / "config.json").write_text(json.dumps(config))
    publish(teachers[0], tmp_path / "published" / "latest_model.pth")
    given = (f"text.model={small}", f"c2kd.labse={tiny_bert}", "data.max_frames=5", "evaluation.batch_size=5")
    tested = ("--root", tiny_languages, "--device", "cpu")
    done = nrccr_command("test", tmp_path / "published", *tested, *given)
    assert done.code == 0, done.err
    assert nrccr_command("test", teachers[0], *tested).code == 0
    published, own = (
        json.loads((folder / "test" / "metrics.json").read_text()) for folder in (tmp_path / "published", teachers[0])
    )
    assert published["switches"]["pool_mask"] == "labse" and own["switches"]["pool_mask"] == "own"
    assert published["languages"] == own["languages"]  # the same tokeniser for both masks
    options = [
        f"c2kd.teachers=[{tmp_path / 'published'},{teachers[1]}]", f"c2kd.teacher_models=[{small},'']",
        f"c2kd.labse={tiny_bert}", "c2kd.stage=distill", "train.epochs=1",
    ]  # fmt: skip
    done = learn(tmp_path / "student", *options)
    assert done.code == 0, done.err
    done = learn(tmp_path / "lost", *options, "c2kd.teacher_models=[./no/where,'']")
    assert done.code == 2 and f"c2kd.teachers: {tmp_path / 'published'}: encoder ./no/where: " in done.err, done.err
    assert done.err.rstrip().endswith("as its entry of c2kd.teacher_models"), done.err
    done = learn(tmp_path / "other", *distilling(teachers, "train.epochs=1"))
    assert lines_of(tmp_path / "student", "train")[0] == pytest.approx(
        lines_of(tmp_path / "other", "train")[0], abs=1e-5
    )


def test_the_golden_checkpoint_loads_as_any_model(shared: Path, tmp_path: Path) -> None:
    folder = shared / "golden" / "c2kd"
    bert = json.loads((folder / "expected.json").read_text())["bert"]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"} | bert))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(5, bert["vocab_size"]))]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    model = load_retriever(folder, [f"text.model={tmp_path}", f"c2kd.labse={tmp_path}"], "cpu")
    with np.load(folder / "inputs.npz") as arrays, np.load(folder / "expected.npz") as expected:
        videos = [frames[mask.astype(bool)] for frames, mask in zip(arrays["video"], arrays["video_mask"], strict=True)]
        wanted = expected["video"] / np.linalg.norm(expected["video"], axis=1, keepdims=True)
    shown = [row for row, frames in enumerate(videos) if len(frames)]
    np.testing.assert_allclose(model.encode_video([videos[row] for row in shown]), wanted[shown], atol=1e-5)
    assert model.encode_text(["7 8 9"]).shape == (1, 32) and model.config.model == "c2kd"
