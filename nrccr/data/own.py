"""Collections of own data: any name, any languages, described by a `collection.yaml` in their folder.

The names of their caption files say everything else: split, languages, and who translated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nrccr.config.yaml import read_layers
from nrccr.data.layouts import LAYOUTS, SPLITS, ImageLayout, Layout, Role, SplitName, Templates, word_of
from nrccr.errors import UserError

DESCRIPTION = "collection.yaml"
ENDING = ".caption.txt"
_LANGUAGE = "[a-z]{2,3}(?:-[A-Za-z]{2,8})*"
_NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_IMAGES = ImageLayout(
    "images",
    {split: (f"{split}_id.txt",) for split in SPLITS},
    {split: f"{split}-{{f}}-avgpool.npy" for split in SPLITS},
)


@dataclass(frozen=True)
class Own:
    """What `collection.yaml` says.

    Attributes:
        name: of the collection; its files are named after it.
        images: whether its items are images; else videos.
        source: language of the training captions.
        feature: the usual visual feature; none: the one that is there.
        escapes: whether line breaks in captions are written as escapes, see nrccr.data.escapes.
        splits: how items came into their splits, for readers.
    """

    name: str
    images: bool = False
    source: str = "en"
    feature: str | None = None
    escapes: bool = False
    splits: str = ""

    def text(self) -> str:
        """The file's text; words in quotes, as other readers of YAML take a bare `no` (Norwegian) for false."""
        feature = f'feature: "{self.feature}"\n' if self.feature else ""
        return (
            "# A collection of own data, made by `nrccr import`; docs/data-format.md explains the keys.\n"
            f'name: "{self.name}"\n'
            f"kind: {'images' if self.images else 'videos'}\n"
            f'source: "{self.source}"\n'
            f"{feature}"
            f"escapes: {'true' if self.escapes else 'false'}\n"
            f'splits: "{self.splits}"\n'
        )


@dataclass(frozen=True)
class CaptionFile:
    """What the name of a caption file says.

    Attributes:
        split: train, val or test.
        route: the captions' language; before it, of translations, those that they came through: en, zh.
        translator: whose translations; empty: what people wrote.
    """

    split: SplitName
    route: tuple[str, ...]
    translator: str = ""

    def tag(self, source: str) -> str:
        """The tag of its captions: the route, English as `enc` where it is the source."""
        return "2".join(word_of(each) if each == source else each for each in self.route)

    def name(self, own: Own) -> str:
        """Its name in a collection."""
        if self.translator:
            return f"{own.name}{self.split}_{self.translator}_{self.tag(own.source)}{ENDING}"
        language = "" if self.route == (own.source,) else f"_{self.route[0]}"
        return f"{own.name}{self.split}{language}{ENDING}"


def parse_name(name: str, own: Own) -> CaptionFile | None:
    """What the name of a caption file of a collection says; none if it is none."""
    pattern = rf"{re.escape(own.name)}({'|'.join(SPLITS)})(?:_(.+)_({_LANGUAGE}(?:2{_LANGUAGE})+)|_({_LANGUAGE}))?"
    found = re.fullmatch(pattern + re.escape(ENDING), name)
    if found is None:
        return None
    split = next(split for split in SPLITS if split == found[1])
    route = (found[3] or found[4] or own.source).split("2")
    languages = tuple(own.source if word == word_of(own.source) else word for word in route)
    return CaptionFile(split, languages, found[2] or "")


def caption_files(folder: Path, own: Own) -> dict[Path, CaptionFile]:
    """The caption files of a collection, by split and name."""
    named = ((path, parse_name(path.name, own)) for path in sorted((folder / "TextData").glob(f"*{ENDING}")))
    found = {path: file for path, file in named if file is not None}
    return dict(sorted(found.items(), key=lambda pair: SPLITS.index(pair[1].split)))


def languages_of(folder: Path, own: Own) -> list[str]:
    """The languages of a collection's captions but the source."""
    return sorted({file.route[-1] for file in caption_files(folder, own).values()} - {own.source})


def translators_of(folder: Path) -> list[str]:
    """Whose translations a collection has."""
    return sorted({file.translator for file in caption_files(folder, read_own(folder)).values()} - {""})


def find_own(root: Path, collection: str) -> Path | None:
    """The folder of a collection of own data; none where the name is not that of one.

    Args:
        root: folder of the collections.
        collection: its folder under the root, or a path.

    Raises:
        UserError: a path without collection.yaml.
    """
    folder = root / collection
    if (folder / DESCRIPTION).is_file():
        return folder
    return require_own(Path(collection)) if Path(collection).name != collection else None


def require_own(folder: Path) -> Path:
    """A folder that is a collection of own data.

    Raises:
        UserError: it is none.
    """
    if not (folder / DESCRIPTION).is_file():
        raise UserError(f"{folder}: no {DESCRIPTION} in it; give the folder of a collection that `nrccr import` made")
    return folder


def read_own(folder: Path) -> Own:
    """Read `collection.yaml`.

    Raises:
        UserError: it is missing, or a key is unknown or has a wrong value.
    """
    path = require_own(folder) / DESCRIPTION
    layer = read_layers(path, alone=True)[0]
    values = layer.values
    known = ("name", "kind", "source", "feature", "escapes", "splits")

    def refuse(key: str, message: str) -> UserError:
        return UserError(f"{layer.place(key)}: {message}")

    unknown = next((key for key in values if key not in known), None)
    if unknown is not None:
        raise refuse(unknown, f"key {unknown} is unknown; choose from {', '.join(known)}")
    if "name" not in values:
        raise refuse("", "no key name; add the name that the caption files begin with")
    for key in ("name", "source", "feature", "splits"):
        if not isinstance(values.get(key, ""), str):
            raise refuse(key, f"{key} must be a word; put it in quotes")
    if values.get("kind", "videos") not in ("videos", "images"):
        raise refuse("kind", "kind must be videos or images")
    if not isinstance(values.get("escapes", False), bool):
        raise refuse("escapes", "escapes must be true or false")
    own = Own(
        name=values["name"],
        images=values.get("kind") == "images",
        source=values.get("source", "en"),
        feature=values.get("feature"),
        escapes=values.get("escapes", False),
        splits=values.get("splits", ""),
    )
    require_name(layer.place("name"), own.name)
    require_language(layer.place("source"), own.source)
    if own.feature is not None:
        require_word(layer.place("feature"), own.feature, "feature")
    return own


def has_escapes(path: Path) -> bool:
    """Whether a caption file is of a collection whose captions hold escapes."""
    folder = path.parent.parent
    return path.parent.name == "TextData" and (folder / DESCRIPTION).is_file() and read_own(folder).escapes


def require_word(place: str, word: str, what: str) -> None:
    """Make sure that a word can stand in the name of a file.

    Raises:
        UserError: it cannot.
    """
    if not re.fullmatch(_NAME, word):
        raise UserError(
            f"{place}: {what} {word!r}: give ASCII letters, digits, '-', '_' and '.', a letter or digit first"
        )


def require_name(place: str, name: str) -> None:
    """Make sure that a collection of own data may have a name.

    Raises:
        UserError: it cannot stand in the name of a file, or is that of a known collection.
    """
    require_word(place, name, "name")
    if name.startswith("multi_") or any(name in layout.names for layout in LAYOUTS):
        raise UserError(f"{place}: name {name!r} is that of a published or generated collection; choose another")


def require_language(place: str, language: str) -> None:
    """Make sure that a language has a code that can stand in the name of a file.

    Raises:
        UserError: it has not.
    """
    if not re.fullmatch(_LANGUAGE, language) or language == "enc":
        raise UserError(f"{place}: language {language!r}: give a code of letters, such as de, zh or zh-Hant")


def layout_of(own: Own) -> Layout:
    """The layout of a collection of own data."""
    word = word_of(own.source)
    train: Mapping[Role, tuple[str, ...]] = {
        "source": ("{c}train",),
        "target": ("{c}train_{t}_" + word + "2{x}{more}",),
        "back": ("{c}train_{t}_" + word + "2{x}2" + word,),
    }
    files: dict[SplitName, Mapping[Role, tuple[str, ...]]] = {"train": train}
    for split in SPLITS[1:]:
        files[split] = {"source": ("{c}" + split + "_{t}_{x}2" + word,), "target": ("{c}" + split + "_{x}",)}
    templates: Templates = files
    images = _IMAGES if own.images else None
    return Layout((own.name,), (), own.feature or "", 0, templates, images=images, source=own.source, own=True)


def feature_folder(folder: Path, own: Own, feature: str | None) -> Path:
    """The folder of a collection's features: the one that is named, or the only one there is; it may be missing."""
    features = folder / "FeatureData"
    named = feature or own.feature
    there = sorted(path.name for path in features.iterdir() if path.is_dir()) if features.is_dir() else []
    return features / (named or (there[0] if len(there) == 1 else "NAME"))


def usual_route(
    split: str, language: str, source: str, others: Sequence[str], sources: Mapping[Any, Any]
) -> tuple[str, ...] | None:
    """The languages that a translation came through where nothing says so; none where that is not clear.

    Into another language it comes from the source. Into the source it comes from the other language, if there is one
    only; in a split of training with human captions in the source it is their back-translation.

    Args:
        split: train, val or test.
        language: of the translation.
        source: language of the training captions.
        others: the other languages.
        sources: by split, whether it has human captions in the source language.
    """
    if language != source:
        return source, language
    if len(others) != 1:
        return None
    back = split == "train" and sources.get(split)
    return (source, others[0], source) if back else (others[0], source)
