"""Baselines: ridge regression against its normal equations, encoders as transformers has them, the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from transformers import BertConfig, BertModel, CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

import nrccr
from nrccr.data.batch import TextBatch
from nrccr.data.tokens import CaptionTokenizer
from nrccr.evaluation.metrics import retrieval_metrics
from nrccr.models.towers import build_tower, tower_vectors
from nrccr.safeload.unpickle import load_weights
from nrccr.systems.baseline import fit
from nrccr.systems.baseline.fit import PENALTIES, Ridge

Command = Callable[..., Any]


@pytest.mark.parametrize("at_once", [7, 1 << 16])
@pytest.mark.parametrize("penalty", [1e-9, 0.03, 10.0])
def test_ridge_is_the_solution_of_its_normal_equations(
    penalty: float, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "AT_ONCE", at_once)
    draw = np.random.default_rng(0)
    text, visual, item_of = draw.standard_normal((50, 6)) + 3, draw.standard_normal((20, 4)), draw.integers(0, 20, 50)
    made = Ridge.of(torch.from_numpy(text), torch.from_numpy(visual), torch.from_numpy(item_of))
    weight, bias = made.solved(penalty)
    x, y = text - text.mean(axis=0), visual[item_of] - visual[item_of].mean(axis=0)
    shrunk = penalty * np.trace(x.T @ x / 50) / 6
    # Least squares over the pairs and, for the penalty, a row of zeros for each weight.
    rows, wanted = np.vstack([x, np.sqrt(50 * shrunk) * np.eye(6)]), np.vstack([y, np.zeros((6, 4))])
    expected = np.linalg.lstsq(rows, wanted, rcond=None)[0]  # (6, 4)
    np.testing.assert_allclose(weight.T.numpy(), expected, atol=1e-7)
    np.testing.assert_allclose(text @ weight.T.numpy() + bias.numpy(), x @ expected, atol=1e-7)
    np.testing.assert_allclose(made.visual_mean.numpy(), visual[item_of].mean(axis=0))


def run_baseline(command: Command, root: Path, bert: Path, out: Path, *options: object) -> Any:
    keys = (f"text.model={bert}", "text.pretrained=false", "text.backbone.hidden_size=32")
    return command("baseline", "baseline/vatex", "--root", root, "--out", out, "--device", "cpu", *keys, *options)


@pytest.fixture
def fitted(nrccr_command: Command, tiny_collection: Path, tiny_bert: Path, tmp_path: Path) -> Path:
    """A run folder: a random encoder with a map, on the tiny collection."""
    done = run_baseline(nrccr_command, tiny_collection, tiny_bert, tmp_path / "base")
    assert done.code == 0 and done.err == "", done.err
    assert "chosen on validation" in done.out and "16 queries, 8 items" in done.out
    return tmp_path / "base"


def test_a_run_folder_that_everything_reads(
    fitted: Path, trained: Path, nrccr_command: Command, tiny_collection: Path, tmp_path: Path
) -> None:
    metrics = json.loads((fitted / "test" / "metrics.json").read_text())
    again = nrccr_command("test", fitted, "--root", tiny_collection, "--out", tmp_path / "again", "--device", "cpu")
    assert again.code == 0, again.err
    assert json.loads((tmp_path / "again" / "metrics.json").read_text()) == metrics
    assert nrccr_command("test", trained, "--root", tiny_collection, "--device", "cpu").code == 0
    compared = nrccr_command("compare", fitted, trained)
    assert compared.code == 0 and "SumR" in compared.out, compared.err
    runs = ("--runs", fitted, "--runs", trained)
    table = nrccr_command("table", *runs, "--out", tmp_path / "table")
    assert table.code == 0, table.err
    listed = (tmp_path / "table" / "tables.md").read_text()
    assert f"{metrics['SumR']:.1f}" in listed and "| base |" in listed and "| run |" in listed
    model = nrccr.load(fitted, device="cpu")
    assert model.encode_text(["a man runs"], role="source").shape == (1, 16)


@pytest.mark.slow
def test_a_report_shows_it_beside_a_trained_run(
    fitted: Path, trained: Path, nrccr_command: Command, tiny_collection: Path, tmp_path: Path
) -> None:
    assert nrccr_command("test", trained, "--root", tiny_collection, "--device", "cpu").code == 0
    report = nrccr_command("report", fitted, trained, "--root", tiny_collection, "--out", tmp_path / "page")
    assert report.code == 0, report.err
    assert "base" in (tmp_path / "page" / "report.html").read_text("utf-8")


def test_scores_are_cosines_of_mapped_texts_and_centred_means_of_frames(
    fitted: Path, nrccr_command: Command, tiny_collection: Path, tmp_path: Path
) -> None:
    done = nrccr_command(
        "test", fitted, "--root", tiny_collection, "--out", tmp_path / "out", "--device", "cpu",
        "evaluation.save_scores=true",
    )  # fmt: skip
    assert done.code == 0, done.err
    from nrccr.data.bigfile import BigFile

    weights = load_weights(fitted / "model.safetensors")
    features = BigFile(tiny_collection / "vatex" / "FeatureData" / "i3d_kinetics")
    with np.load(tmp_path / "out" / "scores.npz") as arrays:
        items, scores = arrays["item_ids"].tolist(), arrays["scores"]
        found = {name: arrays[name] for name in ("visual", "text_source", "text_target", "query_ids")}

    def unit(vectors: Any) -> Any:
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    means = np.stack([features.read([features.rows(item)])[0][0].mean(axis=0) for item in items])
    np.testing.assert_allclose(found["visual"], unit(unit(means) - weights["mean"].numpy()), atol=1e-5)
    mixed = 0.8 * found["text_target"] @ found["visual"].T + 0.2 * found["text_source"] @ found["visual"].T
    np.testing.assert_allclose(scores, mixed, atol=1e-5)
    relevant = [items.index(query.split("#")[0]) for query in found["query_ids"].tolist()]
    own = json.loads((fitted / "test" / "metrics.json").read_text())["text_to_visual"]
    assert retrieval_metrics(scores, relevant) == pytest.approx(own)


def test_the_penalty_comes_from_validation_and_nothing_from_the_test(
    fitted: Path, nrccr_command: Command, tiny_collection: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    run = json.loads((fitted / "run.json").read_text())
    tried = {one["penalty"]: one["score"] for one in run["ridge"]["validation"]}
    assert tuple(tried) == PENALTIES and run["ridge"]["penalty"] == max(tried, key=lambda one: (tried[one], one))
    assert set(run["data"]) == {"train", "val"} and run["finished"]["step"] == 0
    # Each score is what a test of the validation split finds at that penalty.
    for number, penalty in enumerate((PENALTIES[0], PENALTIES[-1])):
        out = tmp_path / f"given{number}"
        done = run_baseline(nrccr_command, tiny_collection, tiny_bert, out, f"baseline.penalty={penalty!r}")
        assert done.code == 0 and "as given" in done.out, done.err
        assert nrccr_command("test", out, "--root", tiny_collection, "--split", "val", "--device", "cpu").code == 0
        own = json.loads((out / "val" / "metrics.json").read_text())["text_to_visual"]
        assert tried[penalty] == pytest.approx(own["R@1"] + own["R@5"] + own["R@10"])
    for name in ("vatextest_zh", "vatextest_google_zh2enc"):  # other test queries
        path = tiny_collection / "vatex" / "TextData" / f"{name}.caption.txt"
        lines = [line.split(" ", 1) for line in path.read_text("utf-8").splitlines()]
        texts = [text for _, text in lines][::-1]
        path.write_text("".join(f"{own} {text}\n" for (own, _), text in zip(lines, texts, strict=True)), "utf-8")
    done = run_baseline(nrccr_command, tiny_collection, tiny_bert, tmp_path / "other")
    assert done.code == 0, done.err
    assert (tmp_path / "other" / "model.safetensors").read_bytes() == (fitted / "model.safetensors").read_bytes()
    other = json.loads((tmp_path / "other" / "run.json").read_text())
    assert other["fingerprint"] == run["fingerprint"]


def test_the_captions_of_the_fit(
    fitted: Path, nrccr_command: Command, tiny_collection: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    maps = {"source": load_weights(fitted / "model.safetensors")["map.weight"]}
    for captions in ("target", "both"):
        out = tmp_path / captions
        options = (f"baseline.captions={captions}", "baseline.pooling=first")
        done = run_baseline(nrccr_command, tiny_collection, tiny_bert, out, *options)
        assert done.code == 0, done.err
        maps[captions] = load_weights(out / "model.safetensors")["map.weight"]
    assert len({weight.numpy().tobytes() for weight in maps.values()}) == 3


def test_back_translations_are_not_asked_for(
    fitted: Path, nrccr_command: Command, tiny_collection: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    """No baseline reads them: the map is the same without the file, and a check does not miss it."""
    (back,) = (tiny_collection / "vatex" / "TextData").glob("vatextrain_*2enc.caption.txt")
    back.unlink()
    done = run_baseline(nrccr_command, tiny_collection, tiny_bert, tmp_path / "without")
    assert done.code == 0, done.err
    maps = [load_weights(run / "model.safetensors")["map.weight"] for run in (fitted, tmp_path / "without")]
    assert torch.equal(*maps)
    done = nrccr_command("check", "baseline/vatex", "--root", tiny_collection)
    assert done.code == 0 and back.name not in done.out + done.err, done.err
    done = nrccr_command("check", "nrccr/vatex", "--root", tiny_collection)
    assert done.code == 2 and back.name in done.out + done.err, "a training reads them"


def test_a_card_and_a_saved_model(fitted: Path, nrccr_command: Command, tmp_path: Path) -> None:
    """As of a trained run: the card has results, and what is saved encodes as the run does."""
    done = nrccr_command("card", fitted)
    card = (fitted / "README.md").read_text("utf-8")
    assert done.code == 0 and "SumR" in card, done.err
    model = nrccr.load(fitted)
    model.save_pretrained(tmp_path / "saved")
    texts, frames = ["red dog", "a man"], [np.ones((3, 16), dtype=np.float32)]
    again = nrccr.load(tmp_path / "saved")
    np.testing.assert_array_equal(again.encode_text(texts), model.encode_text(texts))
    np.testing.assert_array_equal(again.encode_video(frames), model.encode_video(frames))
    assert model.joint_width == model.encode_text(texts).shape[1] == 16


def test_a_prefix_that_is_the_encoders(
    nrccr_command: Command, tiny_collection: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    """As of a training: null takes what the encoder was trained with, and the run records it."""
    folder = tmp_path / "multilingual-e5-small"
    folder.mkdir()
    for path in tiny_bert.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    BertModel(BertConfig.from_pretrained(folder)).save_pretrained(folder)
    keys = ("text.pretrained=true", "text.prefix=null", "text.backbone={}")
    done = run_baseline(nrccr_command, tiny_collection, folder, tmp_path / "e5", *keys)
    assert done.code == 0, done.err
    assert yaml.safe_load((tmp_path / "e5" / "config.yaml").read_text("utf-8"))["text"]["prefix"] == "query: "
    assert json.loads((tmp_path / "e5" / "run.json").read_text("utf-8"))["tokenizer"]["prefix"] == "query: "


TEXT = {
    "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48,
    "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0,
}  # fmt: skip
VISION = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip


@pytest.fixture(params=["clip", "siglip"])
def pair(request: pytest.FixtureRequest, tiny_bert: Path, tmp_path: Path) -> tuple[Path, Any]:
    """Folder of a whole CLIP or SigLIP with random weights and a tokeniser, and the model itself."""
    torch.manual_seed(0)
    text, vision = dict(TEXT), dict(VISION)
    if request.param == "clip":
        for side in (text, vision):
            side["projection_dim"] = 24
        model: Any = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
    else:
        text |= {"max_position_embeddings": 20, "projection_size": 32}
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    folder = tmp_path / request.param
    model.eval().save_pretrained(folder)
    for name in ("vocab.txt", "tokenizer_config.json"):
        (folder / name).write_bytes((tiny_bert / name).read_bytes())
    kind = "CLIPImageProcessor" if request.param == "clip" else "SiglipImageProcessor"
    size = {"shortest_edge": 32} if request.param == "clip" else {"height": 32, "width": 32}
    crop = {"crop_size": {"height": 32, "width": 32}} if request.param == "clip" else {}
    described = {"image_processor_type": kind, "size": size, **crop}
    (folder / "preprocessor_config.json").write_text(json.dumps(described))
    return folder, model


def vectors_of(model: Any, which: str, **inputs: Any) -> Any:
    """Unit vectors that transformers itself gives."""
    with torch.no_grad():
        out = getattr(model, f"get_{which}_features")(**inputs)
    found = out if isinstance(out, torch.Tensor) else out.pooler_output
    return torch.nn.functional.normalize(found, dim=-1).numpy()


def test_both_sides_of_a_clip_as_they_are(
    pair: tuple[Path, Any], nrccr_command: Command, tiny_images: Path, tmp_path: Path
) -> None:
    folder, model = pair
    out = tmp_path / "zero-shot"
    done = nrccr_command(
        "baseline", "baseline/multi30k-clip", "--root", tiny_images, "--out", out, "--device", "cpu",
        f"text.model={folder}", f"image.model={folder}", "evaluation.save_scores=true", "evaluation.batch_size=3",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "nothing is fitted" in done.out
    with np.load(out / "test" / "scores.npz") as arrays:
        items = arrays["item_ids"].tolist()
        visual, text = arrays["visual"], arrays["text_target"]
    loaded = nrccr.load(out, device="cpu")
    pictures = tiny_images / "multi30k" / "flickr30k-images"
    from PIL import Image

    pixels = torch.from_numpy(np.stack([loaded.preprocess(Image.open(pictures / f"{item}.jpg")) for item in items]))
    np.testing.assert_allclose(visual, vectors_of(model, "image", pixel_values=pixels), atol=1e-5)
    # Captions one by one, each as the model reads it: a SigLIP always at its full length.
    lines = (tiny_images / "multi30k" / "TextData" / "multi30ktest_de_2016_task1.caption.txt").read_text("utf-8")
    captions = [line.split(" ", 1)[1] for line in lines.splitlines()]
    tokenizer = CaptionTokenizer(str(folder), 30, lower_case=False)
    expected = []
    for caption in captions:
        tokens = tokenizer.encode([caption]).batch([0])
        if isinstance(model, SiglipModel):
            whole = torch.zeros(1, 20, dtype=torch.long)
            whole[:, : tokens.tokens.shape[1]] = tokens.tokens
            expected.append(vectors_of(model, "text", input_ids=whole)[0])
        else:
            expected.append(vectors_of(model, "text", input_ids=tokens.tokens)[0])
    np.testing.assert_allclose(text, np.stack(expected), atol=1e-5)
    assert (
        not list((out / "image_encoder").glob("*.safetensors"))
        and (out / "backbone" / "tokenizer_config.json").is_file()
    )
    # A saved one needs neither the run nor the encoder's folder.
    loaded.save_pretrained(tmp_path / "saved")
    for gone in (out, folder):
        gone.rename(gone.with_name(f"{gone.name}-gone"))
    again, picture = nrccr.load(tmp_path / "saved"), [pictures / f"{items[0]}.jpg"]
    np.testing.assert_array_equal(again.encode_image(picture), loaded.encode_image(picture))
    np.testing.assert_array_equal(again.encode_text(captions), loaded.encode_text(captions))


def test_padding_does_not_change_a_towers_vectors(pair: tuple[Path, Any]) -> None:
    folder, model = pair
    tower = build_tower(model.config.text_config, str(folder)).eval()
    tokens = torch.tensor([[2, 7, 9, 3]])
    alone = tower_vectors(tower, TextBatch(tokens, torch.ones(1, 4, dtype=torch.bool)), pad=0)
    longer = torch.nn.functional.pad(tokens, (0, 5))
    padded = tower_vectors(tower, TextBatch(longer, longer > 0), pad=0)
    torch.testing.assert_close(alone, padded)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["train.epochs=3"], "train.epochs=3 is not used by model=baseline; remove it"),
        (["joint.width=3"], "joint.width=3 is not used by model=baseline"),
        (["loss.margin=0.1"], "loss.margin=0.1 is not used by model=baseline"),
        (["baseline.map=none"], "gives vectors of width 32, features are 16 wide"),
        (["baseline.map=none", "baseline.penalty=1"], "baseline.penalty=1.0 is not used by baseline.map=none"),
        (["baseline.penalty=0"], "baseline.penalty=0 is out of range; it must be above 0"),
        (["data.target=fr"], "fr"),
    ],
)
def test_refused(
    options: list[str], says: str, nrccr_command: Command, tiny_collection: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    done = run_baseline(nrccr_command, tiny_collection, tiny_bert, tmp_path / "out", *options)
    assert done.code == 2 and done.err.count("\n") == 1 and says in done.err
    assert not (tmp_path / "out").exists()


def test_train_and_baseline_send_to_each_other(
    fitted: Path, nrccr_command: Command, tiny_collection: Path, tiny_bert: Path, tiny_config: Path, tmp_path: Path
) -> None:
    root = ("--root", tiny_collection, "--out", tmp_path / "out", "--device", "cpu")
    done = nrccr_command("train", "baseline/vatex", *root, f"text.model={tiny_bert}")
    assert done.code == 2 and "use `nrccr baseline` in place of `nrccr train`" in done.err
    done = nrccr_command("baseline", tiny_config, *root)
    assert done.code == 2 and "model=nrccr: is trained, by `nrccr train`" in done.err
    assert not (tmp_path / "out").exists()
    done = run_baseline(nrccr_command, tiny_collection, tiny_bert, fitted)
    assert done.code == 2 and "already holds a run" in done.err
    assert run_baseline(nrccr_command, tiny_collection, tiny_bert, fitted, "--overwrite").code == 0


def test_a_pooling_that_a_clip_does_not_have(
    pair: tuple[Path, Any], nrccr_command: Command, tiny_images: Path, tmp_path: Path
) -> None:
    done = nrccr_command(
        "baseline", "baseline/multi30k-clip", "--root", tiny_images, "--out", tmp_path / "out", "--device", "cpu",
        f"text.model={pair[0]}", f"image.model={pair[0]}", "baseline.pooling=mean",
    )  # fmt: skip
    assert done.code == 2 and "has a vector of its own; leave it out" in done.err and not (tmp_path / "out").exists()
