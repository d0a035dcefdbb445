"""Fixtures that every test folder may use: a tiny backbone, a tiny collection, a configuration for both."""

from __future__ import annotations

import json
import random
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from nrccr.data.bigfile import write_bigfile

# Small tensors gain nothing from threads, and lose much where other processes hold the cores.
torch.set_num_threads(1)

CHECKOUT = Path(__file__).resolve().parents[1]
SHARED = CHECKOUT.parent / "shared"
FEATURE_WIDTH = 16
ENGLISH = ["a", "man", "woman", "dog", "runs", "sings", "red", "ball", "in", "water"]
CHINESE = list("人女狗跑唱红球水的在")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "."]
TINY_BERT = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "vocab_size": len(SPECIAL) + len(ENGLISH) + len(CHINESE),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
# Caption files of a split: file name, tag and language.
CAPTION_FILES = {
    "train": [
        ("vatextrain", "enc", ENGLISH),
        ("vatextrain_google_enc2zh", "enc2zh", CHINESE),
        ("vatextrain_google_enc2zh2enc", "enc2zh2enc", ENGLISH),
    ],
    "val": [("vatexval_google_zh2enc", "zh2enc", ENGLISH), ("vatexval_zh", "zh", CHINESE)],
    "test": [("vatextest_google_zh2enc", "zh2enc", ENGLISH), ("vatextest_zh", "zh", CHINESE)],
}
VIDEOS = {"train": 12, "val": 8, "test": 8}  # with two captions each


class Outcome(NamedTuple):
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]
FullDisk = Callable[[int], AbstractContextManager[None]]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden numbers and real captions beside the checkout; skips where it is missing."""
    if not SHARED.is_dir():
        pytest.skip("needs the folder ../shared (golden numbers, real captions), which this machine lacks")
    return SHARED


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a BERT without weights, for all tests: 2 layers, 32 wide, a vocabulary of two dozen words."""
    folder = tmp_path_factory.mktemp("tiny_bert")
    (folder / "config.json").write_text(json.dumps(TINY_BERT))
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *ENGLISH, *CHINESE]) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true, "tokenizer_class": "BertTokenizer"}')
    return folder


@pytest.fixture
def tiny_collection(tmp_path: Path) -> Path:
    """Root with a vatex collection: 24 training pairs, 16 queries for 8 videos in validation and in test.

    Videos have 1 to 7 frames of width 16, captions 2 to 6 words.
    """
    root = tmp_path / "VisualSearch"
    text = root / "vatex" / "TextData"
    text.mkdir(parents=True)
    choose = random.Random(0)
    for split, files in CAPTION_FILES.items():
        for name, tag, words in files:
            between = " " if words is ENGLISH else ""
            lines = [
                f"{split}{video}#{tag}#{k} {between.join(choose.choices(words, k=choose.randint(2, 6)))}\n"
                for video in range(VIDEOS[split])
                for k in range(2)
            ]
            (text / f"{name}.caption.txt").write_text("".join(lines), encoding="utf-8")
    values = np.random.default_rng(0)
    videos = [f"{split}{video}" for split, count in VIDEOS.items() for video in range(count)]
    frames = [(video, values.standard_normal((1 + i % 7, FEATURE_WIDTH))) for i, video in enumerate(videos)]
    write_bigfile(root / "vatex" / "FeatureData" / "i3d_kinetics", frames)
    return root


# What MLCMR reads besides.
BOTH_LANGUAGES = {
    "train": [("vatextrain_zh", "zh", CHINESE), ("vatextrain_google_zhc2en", "zhc2en", ENGLISH)],
    "val": [("vatexval", "enc", ENGLISH)],
    "test": [("vatextest", "enc", ENGLISH), ("vatextest_google_enc2zh", "enc2zh", CHINESE)],
}


@pytest.fixture
def both_languages(tiny_collection: Path) -> Path:
    """The tiny collection with human captions in both languages in every split, and their translations.

    The video `train0` has 100 frames, more than a batch takes.
    """
    choose = random.Random(1)
    for split, files in BOTH_LANGUAGES.items():
        for name, tag, words in files:
            between = " " if words is ENGLISH else ""
            lines = [
                f"{split}{video}#{tag}#{k} {between.join(choose.choices(words, k=choose.randint(2, 6)))}\n"
                for video in range(VIDEOS[split])
                for k in range(2)
            ]
            (tiny_collection / "vatex" / "TextData" / f"{name}.caption.txt").write_text("".join(lines), "utf-8")
    values = np.random.default_rng(1)
    videos = [f"{split}{video}" for split, count in VIDEOS.items() for video in range(count)]
    frames = [
        (video, values.standard_normal((100 if i == 0 else 1 + i % 7, FEATURE_WIDTH))) for i, video in enumerate(videos)
    ]
    features = tiny_collection / "vatex" / "FeatureData" / "i3d_kinetics"
    shutil.rmtree(features)
    write_bigfile(features, frames)
    return tiny_collection


TinyConfig = Callable[..., Path]


@pytest.fixture(scope="session")
def write_tiny(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> TinyConfig:
    """A function of a configuration under configs and sections of values: a file that trains it small, in a second."""

    def write(extends: str, **sections: dict[str, object]) -> Path:
        usual: dict[str, dict[str, object]] = {
            "text": {
                "model": str(tiny_bert),
                "backbone": {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64},
            },
            "joint": {"width": 24},
            "train": {"batch_size": 8, "epochs": 3, "log_every": 2},
            "evaluation": {"batch_size": 5},
        }
        values = {name: usual.get(name, {}) | sections.get(name, {}) for name in (*usual, *sections)}
        path = tmp_path_factory.mktemp("config") / "tiny.yaml"
        path.write_text(yaml.safe_dump({"extends": str(CHECKOUT / "configs" / extends), **values}))
        return path

    return write


@pytest.fixture(scope="session")
def mlcmr_config(write_tiny: TinyConfig) -> Path:
    """A configuration, for all tests, that trains MLCMR on the tiny collection."""
    data: dict[str, object] = {"scenario": "parallel", "validation_english": "human"}
    return write_tiny("mlcmr/vatex-small.yaml", data=data, visual={"gru": 8, "maps": 6})


@pytest.fixture(scope="session")
def quartet_config(write_tiny: TinyConfig) -> Path:
    """A configuration, for all tests, that trains Quartet on the tiny collection, with masked views."""
    return write_tiny("quartet/vatex-small.yaml", quartet={"views": True})


@pytest.fixture(scope="session")
def tiny_config(write_tiny: TinyConfig) -> Path:
    """A configuration, for all tests, that trains on the tiny collection."""
    return write_tiny("nrccr/vatex-small.yaml", text={"width": 32, "heads": 4}, visual={"width": 32, "heads": 4})


@pytest.fixture(scope="session")
def c2kd_config(write_tiny: TinyConfig) -> Path:
    """A translate-train configuration of C2KD, for all tests, that trains on the collection of tiny_languages."""
    return write_tiny(
        "c2kd/multi30k-small-translate-train.yaml",
        data={"collection": "multi_msrvtt", "max_frames": 5},
        visual={"kind": "video", "width": 16},
        train={"batch_size": 5, "epochs": 2, "log_every": 1},
    )


@pytest.fixture
def nrccr_command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs `nrccr ...` in this process; an exception that the command line lets through fails the test."""
    from nrccr.cli.app import main

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["nrccr", *map(str, arguments)])
        capfd.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        printed = capfd.readouterr()
        return Outcome(code, printed.out, printed.err)

    return run


@pytest.fixture
def no_file_longer_than() -> FullDisk:
    """What a full disk, a quota or `ulimit -f` does: within it no file takes more than so many bytes."""

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


NEEDS_GPU = (pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"))


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
def device(request: pytest.FixtureRequest) -> str:
    """The CPU, and with -m gpu a CUDA device."""
    return str(request.param)


@pytest.fixture
def trained(
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    tiny_config: Path,
    tiny_collection: Path,
    nrccr_command: Command,
) -> Path:
    """A run folder of the test's own: three epochs on the tiny collection, trained once for all tests."""
    kept = tmp_path_factory.getbasetemp() / "trained_once"
    if not kept.exists():
        done = nrccr_command("train", tiny_config, "--root", tiny_collection, "--out", kept, "--device", "cpu")
        assert done.code == 0, done.err
    return Path(shutil.copytree(kept, tmp_path / "run"))


@pytest.fixture
def run_test(nrccr_command: Command, tiny_collection: Path) -> Command:
    """A function of a run folder or checkpoint and options: `nrccr test` on the tiny collection."""

    def run(path: Path, *options: object) -> Outcome:
        return nrccr_command("test", path, "--root", tiny_collection, "--device", "cpu", *options)

    return run


@pytest.fixture
def start(nrccr_command: Command, tiny_config: Path, tiny_collection: Path, tmp_path: Path) -> Command:
    """A function of options: `nrccr train` into the folder `started`, which a refused command must not have made."""

    def run(*options: object) -> Outcome:
        out = tmp_path / "started"
        done = nrccr_command("train", tiny_config, "--root", tiny_collection, "--out", out, "--device", "cpu", *options)
        assert done.code == 0 or not out.exists()
        return done

    return run


IMAGES = {"train": 12, "val": 8, "test": 8}  # with two captions each
GERMAN = ["ein", "mann", "frau", "hund", "rennt", "singt", "rot", "ball", "im", "wasser"]
IMAGE_CAPTIONS = {
    "train": [
        ("multi30ktrain_enc", "enc", ENGLISH),
        ("multi30ktrain_google_enc2de", "enc2de", GERMAN),
        ("multi30ktrain_google_enc2de2enc", "enc2de2enc", ENGLISH),
    ],
    "val": [("multi30kval_google_de2enc_task1", "de2enc", ENGLISH), ("multi30kval_de_task1", "de", GERMAN)],
    "test": [
        ("multi30ktest_google_de2enc_2016_task1", "de2enc", ENGLISH),
        ("multi30ktest_de_2016_task1", "de", GERMAN),
    ],
}
VECTOR_NAMES = {"train": "train", "val": "val", "test": "test_2016_flickr"}
ID_LISTS = {"train": "train_id.txt", "val": "val_id.txt", "test": "test_id_2016.txt"}


@pytest.fixture
def tiny_images(tmp_path: Path) -> Path:
    """Root with a multi30k collection: 24 training pairs, 16 queries for 8 images in validation and in test.

    Vectors of width 16, and the images themselves, 40 x 50 pixels of noise; two captions an image.
    """
    root = tmp_path / "ImageSearch"
    text, features = root / "multi30k" / "TextData", root / "multi30k" / "FeatureData"
    pictures = root / "multi30k" / "flickr30k-images"
    for folder in (text, features / "resnet_152", pictures):
        folder.mkdir(parents=True)
    choose, values = random.Random(0), np.random.default_rng(0)
    for split, files in IMAGE_CAPTIONS.items():
        ids = [f"{split}{image}" for image in range(IMAGES[split])]
        for name, tag, words in files:
            lines = [
                f"{image}#{tag}#{k} {' '.join(choose.choices(words, k=choose.randint(2, 6)))}\n"
                for image in ids
                for k in range(2)
            ]
            (text / f"{name}.caption.txt").write_text("".join(lines), encoding="utf-8")
        vectors = values.standard_normal((len(ids), FEATURE_WIDTH)).astype(np.float32)
        np.save(features / "resnet_152" / f"{VECTOR_NAMES[split]}-resnet_152-avgpool.npy", vectors)
        (features / ID_LISTS[split]).write_text("\n".join(ids) + "\n")
        for image in ids:
            pixels = values.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(pictures / f"{image}.jpg")
    return root


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a CLIP without weights: one layer, 64 wide, 32 x 32 pixels, vectors of width 24."""
    folder = tmp_path_factory.mktemp("tiny_clip")
    vision = {
        "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 128,
        "image_size": 32, "patch_size": 8, "projection_dim": 24,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps({"model_type": "clip_vision_model", **vision}))
    return folder


@pytest.fixture
def image_run(nrccr_command: Command, tiny_bert: Path, tiny_clip: Path, tiny_images: Path, tmp_path: Path) -> Command:
    """A function of a command's first words and options: on the images, with tiny models and one or two epochs."""
    shared_keys = [
        f"text.model={tiny_bert}", "text.backbone.hidden_size=32", "text.backbone.intermediate_size=64",
        "text.width=32", "text.heads=4", "visual.width=32", "joint.width=24", "train.batch_size=8", "train.epochs=2",
        "train.log_every=2", "evaluation.batch_size=5", f"image.model={tiny_clip}", "image.pretrained=false",
        f"image.cache={tmp_path / 'cache'}",
    ]  # fmt: skip

    def run(name: str, *options: object) -> Outcome:
        config = CHECKOUT / "configs" / "nrccr" / "multi30k-small.yaml"
        root = ("--root", tiny_images)
        if name == "test":
            return nrccr_command("test", *options, *root, "--device", "cpu", f"image.cache={tmp_path / 'cache'}")
        device = () if name == "check" else ("--device", "cpu")
        return nrccr_command(name, config, *root, *device, *shared_keys, *options)

    return run


# Caption numbers that a language lacks, by video and number; the others are there.
LANGUAGE_WORDS = {"en": ENGLISH, "de": GERMAN, "zh": CHINESE}
LACKING = {("train", "de"): {(1, 0), (2, 0), (2, 1)}, ("train", "en"): {(5, 1)}, ("test", "zh"): {(3, 0)}}


@pytest.fixture
def tiny_languages(tmp_path: Path) -> Path:
    """Root with a multi_msrvtt collection in English, German and Chinese, with a validation split.

    12 training videos with two captions each, some of which are missing in German and one in English; 8 videos with one
    caption in validation and in test, one missing in Chinese. Videos have 1 to 7 frames of width 16.
    """
    root = tmp_path / "LanguageSearch"
    text = root / "multi_msrvtt" / "TextData"
    text.mkdir(parents=True)
    choose, values = random.Random(0), np.random.default_rng(0)
    for split, count in VIDEOS.items():
        for language, words in LANGUAGE_WORDS.items():
            between, lines = "" if language == "zh" else " ", {}
            for video in range(count):
                for k in range(2 if split == "train" else 1):
                    caption = between.join(choose.choices(words, k=choose.randint(2, 6)))
                    if (video, k) not in LACKING.get((split, language), ()):
                        lines[f"{split}{video}#{language}#{k}"] = caption
            stem = f"multi_msrvtt{split}_{language}"
            written = "".join(f"{name} {caption}.\n" for name, caption in lines.items())
            (text / f"{stem}.caption.txt").write_text(written, encoding="utf-8")
            if language == "en":
                bare = "".join(f"{name.replace('#en#', '#en_words#')} {caption}\n" for name, caption in lines.items())
                (text / f"{stem}_words.caption.txt").write_text(bare, encoding="utf-8")
    videos = [f"{split}{video}" for split, count in VIDEOS.items() for video in range(count)]
    frames = [(video, values.standard_normal((1 + i % 7, FEATURE_WIDTH))) for i, video in enumerate(videos)]
    write_bigfile(root / "multi_msrvtt" / "FeatureData" / "clip", frames)
    return root
