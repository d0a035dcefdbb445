"""The collections that are known before reading the disk: languages, splits, file names and folders.

Those of own data are described beside their data, see `nrccr.data.own`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

SplitName = Literal["train", "val", "test"]
Role = Literal["source", "target", "back"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
Templates = Mapping[SplitName, Mapping[Role, tuple[str, ...]]]


def _train(prefix: str) -> dict[Role, tuple[str, ...]]:
    """Training captions of a collection of images, named after `prefix`."""
    return {
        "source": (prefix + "train_enc",),
        "target": (prefix + "train_{t}_enc2{x}{more}",),
        "back": (prefix + "train_{t}_enc2{x}2enc",),
    }


# Names of caption files: {c} collection, {t} translator, {x} target language, {more} further round trips of the
# translation, {s} ending of German files of task 1. Two names are two spellings of one file.
VIDEO_FILES: Templates = {
    "train": {
        "source": ("{c}train",),
        "target": ("{c}train_{t}_enc2{x}{more}",),
        "back": ("{c}train_{t}_enc2{x}2enc",),
    },
    "val": {"source": ("{c}val_{t}_{x}2enc", "{c}val_{t}_{x}c2en"), "target": ("{c}val_{x}",)},
    "test": {"source": ("{c}test_{t}_{x}2enc", "{c}test_{t}_{x}c2en"), "target": ("{c}test_{x}",)},
}
# Each language has files of its own: what people wrote in it for these images.
_QUERIES: Templates = {
    "val": {"source": ("{c}val_{t}_{x}2enc{s}", "{c}val_{t}_{x}c2en{s}"), "target": ("{c}val_{x}{s}",)},
    "test": {
        "source": ("{c}test_{t}_{x}2enc_2016{s}", "{c}test_{t}_{x}c2en_2016{s}"),
        "target": ("{c}test_{x}_2016{s}",),
    },
}
# What people wrote in a language, and translations between it and English; where MLCMR reads both languages.
HUMAN = {"en": ("{c}{split}",), "x": ("{c}{split}_{x}",)}
TRANSLATED = {"en": ("{c}{split}_{t}_{x}2enc", "{c}{split}_{t}_{x}c2en"), "x": ("{c}{split}_{t}_enc2{x}",)}
HALF = ("{c}train_half",)  # training captions in one language or the other
IMAGE_FILES: Templates = {"train": _train("{c}"), **_QUERIES}
TASK_2_FILES: Templates = {"train": _train("Flickr30k"), **_QUERIES}


VECTOR_FILES: Mapping[SplitName, str] = {
    "train": "train-{f}-avgpool.npy",
    "val": "val-{f}-avgpool.npy",
    "test": "test_2016_flickr-{f}-avgpool.npy",
}
SPELLINGS = ("resnet_152", "resnet152")  # of a feature


@dataclass(frozen=True)
class ImageLayout:
    """Where a collection of images keeps them.

    Attributes:
        folder: of the images themselves, `<id>.jpg`.
        ids: of each split, the names that the list of its vectors' rows may have.
        vectors: of each split, {f} the feature.
    """

    folder: str
    ids: Mapping[SplitName, tuple[str, ...]]
    vectors: Mapping[SplitName, str] = field(default_factory=lambda: VECTOR_FILES)


def word_of(source: str) -> str:
    """The source language in names of files: English is `enc`."""
    return "enc" if source == "en" else source


@dataclass(frozen=True)
class Layout:
    """What is known of a collection before reading the disk.

    Attributes:
        names: its names on disk and in configs, ours first.
        targets: target languages; empty: any.
        feature: the usual visual feature.
        width: how wide its published vectors are; 0: they are not published.
        files: caption files of each split.
        task_2: those of its second task, where it has one.
        images: for a collection of images, where they are.
        source: language of the training captions.
        own: whether it is of own data, described in its folder.
    """

    names: tuple[str, ...]
    targets: tuple[str, ...]
    feature: str
    width: int
    files: Templates
    task_2: Templates | None = None
    images: ImageLayout | None = None
    source: str = "en"
    own: bool = False

    def file_names(
        self,
        prefix: str,
        split: SplitName,
        role: Role,
        translator: str,
        target: str,
        *,
        round_trips: int = 0,
        task: int = 1,
    ) -> list[str]:
        """Names that a caption file may have in a collection whose files are named `prefix`, ours first."""
        files = self.files if task == 1 or self.task_2 is None else self.task_2
        ending = "_task1" if self.task_2 is not None and task == 1 and target == "de" else ""
        words = {
            "c": prefix,
            "t": translator,
            "x": target,
            "s": ending,
            "more": f"2{word_of(self.source)}2{target}" * round_trips,
        }
        return [template.format(**words) + ".caption.txt" for template in files[split][role]]


GENERATED = Layout(("generated",), ("de", "zh"), "pixels", 1024, VIDEO_FILES)
LAYOUTS = (
    Layout(("vatex",), ("zh",), "i3d_kinetics", 1024, VIDEO_FILES),
    Layout(("msrvttcn", "msrvtt10kcn"), ("zh",), "resnext101-resnet152", 4096, VIDEO_FILES),
    Layout(("msrvtt10kyu", "msrvtt10k"), ("zh",), "resnext101-resnet152", 4096, VIDEO_FILES),
    GENERATED,
    Layout(
        ("multi30k",),
        ("de", "fr", "cs"),
        "resnet_152",
        2048,
        IMAGE_FILES,
        TASK_2_FILES,
        ImageLayout(
            "flickr30k-images", {"train": ("train_id.txt",), "val": ("val_id.txt",), "test": ("test_id_2016.txt",)}
        ),
    ),
    Layout(
        ("mscoco",),
        ("zh", "ja"),
        "resnet_152",
        2048,
        IMAGE_FILES,
        images=ImageLayout(
            "all_pics", {"train": ("train_id.txt",), "val": ("{x}_val_id.txt",), "test": ("{x}_test_id.txt",)}
        ),
    ),
)
