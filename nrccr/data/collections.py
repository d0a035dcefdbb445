"""Every collection's languages, splits, file names and folders: the only place that knows a path.

A collection lies in `ROOT/<collection>/TextData/<name>.caption.txt` and `ROOT/<collection>/FeatureData/<feature>/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nrccr.errors import UserError

Split = Literal["train", "val", "test"]
Role = Literal["source", "target", "back"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Templates = Mapping[Split, Mapping[Role, tuple[str, ...]]]

# Names of caption files: {c} collection, {t} translator, {x} target language, {more} further round trips of the
# translation. Two names are two spellings of one file.
VIDEO_FILES: Templates = {
    "train": {
        "source": ("{c}train",),
        "target": ("{c}train_{t}_enc2{x}{more}",),
        "back": ("{c}train_{t}_enc2{x}2enc",),
    },
    "val": {"source": ("{c}val_{t}_{x}2enc", "{c}val_{t}_{x}c2en"), "target": ("{c}val_{x}",)},
    "test": {"source": ("{c}test_{t}_{x}2enc", "{c}test_{t}_{x}c2en"), "target": ("{c}test_{x}",)},
}


@dataclass(frozen=True)
class Layout:
    """What is known of a collection before looking at the disk.

    Attributes:
        names: its names on disk and in configs, ours first.
        targets: target languages.
        feature: the usual visual feature.
        width: how wide its published vectors are.
        files: caption files of each split.
    """

    names: tuple[str, ...]
    targets: tuple[str, ...]
    feature: str
    width: int
    files: Templates

    def file_names(
        self, prefix: str, split: Split, role: Role, translator: str, target: str, round_trips: int = 0
    ) -> list[str]:
        """Names that a caption file may have in a collection whose files are named `prefix`, ours first."""
        words = {"c": prefix, "t": translator, "x": target, "more": f"2enc2{target}" * round_trips}
        return [template.format(**words) + ".caption.txt" for template in self.files[split][role]]


GENERATED = Layout(("generated",), ("de", "zh"), "pixels", 1024, VIDEO_FILES)
LAYOUTS = (
    Layout(("vatex",), ("zh",), "i3d_kinetics", 1024, VIDEO_FILES),
    Layout(("msrvttcn", "msrvtt10kcn"), ("zh",), "resnext101-resnet152", 4096, VIDEO_FILES),
    GENERATED,
)


@dataclass(frozen=True)
class SplitFiles:
    """Caption files of a split.

    Attributes:
        source: English: written by people in training, translated from the target queries in validation and test.
        target: the target language: translated from the source in training, written by people in validation and test.
        back: the back-translation of the target in training, else None.
    """

    source: Path
    target: Path
    back: Path | None


@dataclass(frozen=True)
class Collection:
    """A collection found on disk.

    Attributes:
        name: our name of it.
        folder: its folder.
        target: target language.
        translator: whose translations.
        features: the folder of its visual features, which `BigFile` opens.
        layout: its file names.
        round_trips: how often the training split's translation went to the source language and back once more.
    """

    name: str
    folder: Path
    target: str
    translator: str
    features: Path
    layout: Layout
    round_trips: int = 0

    def split(self, split: Split) -> SplitFiles:
        """Caption files of a split.

        Raises:
            UserError: one of them is missing, or there is no such split.
        """
        back = self.file(split, "back") if "back" in self.roles(split) else None
        return SplitFiles(self.file(split, "source"), self.file(split, "target"), back)

    def roles(self, split: Split) -> list[Role]:
        """Which files a split has."""
        if split not in self.layout.files:
            raise UserError(f"split {split!r} is unknown; choose one of {', '.join(self.layout.files)}")
        return list(self.layout.files[split])

    def file(self, split: Split, role: Role) -> Path:
        """One caption file of a split.

        Raises:
            UserError: it is missing under every name that it may have.
        """
        folder = self.folder / "TextData"
        # Files are named after their folder; a folder that was renamed keeps files named the other way.
        prefixes = sorted(self.layout.names, key=lambda name: name != self.folder.name)
        names = [
            name
            for prefix in prefixes
            for name in self.layout.file_names(prefix, split, role, self.translator, self.target, self.round_trips)
        ]
        for name in names:
            if (folder / name).is_file():
                return folder / name
        raise UserError(
            f"{folder}: no file {' or '.join(names)} ({self.name}, {split}, {role} captions); add it or check --root"
        )


def locate(
    root: Path,
    collection: str,
    *,
    target: str = "zh",
    translator: str = "google",
    feature: str | None = None,
    round_trips: int = 0,
) -> Collection:
    """Find a collection under the root.

    Args:
        root: the folder that holds the collections.
        collection: its name, or another name that it is known by.
        target: target language.
        translator: whose translations.
        feature: name of the visual feature; by default the collection's usual one. `BigFile` checks its folder.
        round_trips: further translations of the training text into the source language and back.

    Raises:
        UserError: the collection or the target language is unknown, or its folder is missing.
    """
    layout = next((layout for layout in LAYOUTS if collection in layout.names), None)
    if layout is None:
        known = ", ".join(layout.names[0] for layout in LAYOUTS)
        raise UserError(f"collection {collection!r} is unknown; choose one of {known}")
    if target not in layout.targets:
        choices = ", ".join(layout.targets)
        raise UserError(f"collection {collection!r} has no target language {target!r}; choose one of {choices}")
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give the folder of all collections as --root")
    names = sorted(layout.names, key=lambda name: name != collection)
    folder = next((root / name for name in names if (root / name).is_dir()), None)
    if folder is None:
        raise UserError(f"{root}: no folder {' or '.join(names)} in it; give the folder of all collections as --root")
    features = folder / "FeatureData" / (feature or layout.feature)
    return Collection(layout.names[0], folder, target, translator, features, layout, round_trips)


def find_backbone(root: Path, model: str) -> str:
    """`text.model` as a folder: the given one, else one of that name under the root, else it is left a hub name."""
    inside = root / model
    return str(inside) if inside.is_dir() and not Path(model).is_dir() else model
