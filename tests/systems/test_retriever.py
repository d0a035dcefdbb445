"""`nrccr.load`: what it opens, and raw captions and frames -> embeddings."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nrccr
from nrccr.data.batch import VideoBatch
from nrccr.errors import UserError

CAPTIONS = ["狗跑", "人唱水", "女在红球水", "狗"]
ENGLISH = ["A man, runs!", "the DOG sings in water", "red ball"]


def one_line(action: Callable[[], object]) -> str:
    """The UserError that the action must raise."""
    with pytest.raises(UserError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def clips() -> list[Any]:
    values = np.random.default_rng(0)
    return [values.standard_normal((count, 16)) for count in (3, 1, 7, 5, 2, 4, 6)]


def test_a_run_is_loaded_by_folder_and_by_weights_file(trained: Path) -> None:
    by_folder, by_file = nrccr.load(trained), nrccr.load(str(trained / "model.safetensors"))
    assert np.array_equal(by_folder.encode_text(CAPTIONS), by_file.encode_text(CAPTIONS))
    assert by_folder.config.joint.width == 24 and not by_folder.network.training
    assert by_folder.checkpoint == by_file.checkpoint == trained / "model.safetensors"


def test_another_folder_of_the_same_backbone(trained: Path, tmp_path: Path) -> None:
    expected = nrccr.load(trained).encode_text(CAPTIONS)
    elsewhere = shutil.move(trained / "backbone", tmp_path / "bert")
    assert np.array_equal(nrccr.load(trained, text_model=str(elsewhere)).encode_text(CAPTIONS), expected)


def test_overrides_of_the_command_line(trained: Path, tmp_path: Path) -> None:
    elsewhere = shutil.move(trained / "backbone", tmp_path / "bert")
    backbone = f"text.model={elsewhere}"
    model = nrccr.load(trained, overrides=[backbone, "evaluation.batch_size=3", "reading=corrected"])
    assert model.config.evaluation.batch_size == 3 and model.config.reading == "corrected"
    assert nrccr.load(trained).config.evaluation.batch_size == 5
    both = nrccr.load(trained, text_model="/no/such/folder", overrides=[backbone])
    assert both.config.text.model == str(elsewhere), "overrides come after text_model"
    assert "evaluation.no_such" in one_line(lambda: nrccr.load(trained, overrides=["evaluation.no_such=1"]))
    assert "not one string" in one_line(lambda: nrccr.load(trained, overrides=backbone))


@torch.no_grad()
def test_encode_text_is_the_network_on_tokens(trained: Path) -> None:
    model = nrccr.load(trained)
    found = model.encode_text(CAPTIONS)
    assert found.shape == (4, 24) and found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    batch = model.tokenizer.encode(CAPTIONS).batch(range(4))
    np.testing.assert_array_equal(found, model.network.embed_text(batch).numpy())


def test_roles(trained: Path) -> None:
    model = nrccr.load(trained)
    cleaned = ["A man runs.", "The dog sings in water.", "Red ball."]
    as_source = model.encode_text(ENGLISH, role="source")
    np.testing.assert_array_equal(as_source, model.encode_text(cleaned, role="target"))
    assert np.abs(as_source - model.encode_text(ENGLISH)).max() > 1e-3, "a target text is taken as it is"


def test_encode_video_is_the_network_on_frames(trained: Path) -> None:
    model = nrccr.load(trained)
    videos = clips()
    found = model.encode_video(videos)
    assert found.shape == (7, 24) and found.dtype == np.float32
    for start in (0, 5):  # evaluation.batch_size is 5, in the order given
        part = videos[start : start + 5]
        longest = max(map(len, part))
        frames = torch.zeros(len(part), longest, 16)
        mask = torch.zeros(len(part), longest, dtype=torch.bool)
        for row, video in enumerate(part):
            frames[row, : len(video)] = torch.from_numpy(video).float()
            mask[row, : len(video)] = True
        expected = model.network.embed_visual(VideoBatch(frames, mask)).numpy()
        np.testing.assert_allclose(found[start : start + 5], expected, atol=1e-6)


def test_long_videos_are_cut_as_in_training(trained: Path) -> None:
    model = nrccr.load(trained)
    video = np.random.default_rng(0).standard_normal((100, 16))
    np.testing.assert_array_equal(model.encode_video([video]), model.encode_video([video[:64]]))


def test_corrected_embeddings_do_not_depend_on_their_neighbours(trained: Path) -> None:
    videos = clips()
    for reading, independent in (("corrected", True), ("released", False)):
        config = (trained / "config.yaml").read_text().replace("reading: released", f"reading: {reading}")
        (trained / "config.yaml").write_text(config)
        model = nrccr.load(trained)
        assert model.config.reading == reading and model.network.independent is independent
        gaps = [
            np.abs(model.encode_text(CAPTIONS)[:1] - model.encode_text(CAPTIONS[:1])).max(),
            np.abs(model.encode_video(videos)[1:2] - model.encode_video(videos[1:2])).max(),
        ]
        assert (max(gaps) < 1e-5) if independent else (min(gaps) > 1e-4)
        (trained / "config.yaml").write_text(config.replace(f"reading: {reading}", "reading: released"))


def test_errors(trained: Path, tmp_path: Path) -> None:
    model = nrccr.load(trained)
    assert "no captions" in one_line(lambda: model.encode_text([]))
    assert "caption 1 is empty" in one_line(lambda: model.encode_text(["狗", "  "]))
    wrong: Any = "back"
    assert "role='back'" in one_line(lambda: model.encode_text(["狗"], role=wrong))
    assert "no videos" in one_line(lambda: model.encode_video([]))
    assert "video 1" in one_line(lambda: model.encode_video([np.ones((2, 16)), np.ones((2, 15))]))
    assert "video 0" in one_line(lambda: model.encode_video([np.ones((0, 16))]))
    assert "video 0" in one_line(lambda: model.encode_video([np.ones(16)]))
    assert "NaN" in one_line(lambda: model.encode_video([np.full((1, 16), np.nan)]))
    assert "nowhere" in one_line(lambda: nrccr.load(tmp_path / "nowhere"))
    assert "cuda:7" in one_line(lambda: nrccr.load(trained, device="cuda:7"))
    assert "/no/such" in one_line(lambda: nrccr.load(trained, text_model="/no/such/folder"))


def test_golden_published_checkpoint(shared: Path) -> None:
    golden = shared / "golden" / "nrccr_video"
    model = nrccr.load(golden / "runs_0", text_model=str(golden / "bert"))
    assert model.checkpoint == golden / "runs_0" / "model_best.pth.tar" and model.feature_width == 32
    assert model.config.reading == "released" and model.config.text.trainable_layers == [1, 2]
    wanted = np.load(golden / "expected_test.npz")
    queries = golden / "VisualSearch" / "vatex" / "TextData" / "vatextest_zh.caption.txt"
    translations = queries.with_name("vatextest_google_zh2enc.caption.txt")
    for path, role, name in ((queries, "target", "target_embs"), (translations, "source", "source_embs")):
        texts = [line.split(" ", 1)[1] for line in path.read_text(encoding="utf-8").splitlines()[:16]]
        chosen: Any = role
        np.testing.assert_allclose(model.encode_text(texts, role=chosen), wanted[name][:16], atol=1e-5)


def test_metrics_are_reachable_from_the_package() -> None:
    code = "import nrccr, sys; assert 'torch' not in sys.modules; print(nrccr.evaluation.metrics.retrieval_metrics)"
    assert "retrieval_metrics" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout


def test_a_backbone_whose_words_have_another_width(
    nrccr_command: Callable[..., Any], tiny_config: Path, tiny_collection: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    """ELECTRA maps word vectors to its hidden width; a run of it is loaded as any."""
    folder = tmp_path / "electra"
    shutil.copytree(tiny_bert, folder)
    config = json.loads((folder / "config.json").read_text())
    values = {"model_type": "electra", "embedding_size": 16, "architectures": ["ElectraModel"]}
    (folder / "config.json").write_text(json.dumps(config | values))
    given = (f"text.model={folder}", "text.backbone={}", "train.epochs=1")
    at = ("--root", tiny_collection, "--out", tmp_path / "run", "--device", "cpu")
    done = nrccr_command("train", tiny_config, *at, *given)
    assert done.code == 0, done.err
    assert nrccr.load(tmp_path / "run").encode_text(["人"]).shape == (1, 24)
