"""Every collection's files and folders on disk: the only paths, with `nrccr.data.languages`.

A collection lies in `ROOT/<collection>/TextData/<name>.caption.txt` and `ROOT/<collection>/FeatureData/<feature>/`;
images as pixels lie in a folder of their own. Names come from `nrccr.data.layouts`, or for own data from the
`collection.yaml` in its folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nrccr.data.layouts import (
    GENERATED,
    HALF,
    HUMAN,
    LAYOUTS,
    SPELLINGS,
    SPLITS,
    TRANSLATED,
    VIDEO_FILES,
    Layout,
    Role,
    SplitName,
)
from nrccr.data.own import feature_folder, find_own, languages_of, layout_of, read_own, require_language, translators_of
from nrccr.errors import UserError

__all__ = [
    "GENERATED",
    "HUMAN",
    "SPELLINGS",
    "SPLITS",
    "TRANSLATED",
    "VIDEO_FILES",
    "Collection",
    "Role",
    "SplitFiles",
    "SplitName",
    "errors_of",
    "find_backbone",
    "leads_inside",
    "locate",
    "require_source",
]


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
        name: our name for it.
        folder: its folder.
        target: target language.
        translator: whose translations.
        features: the folder of its visual features: of videos for `BigFile`, of images with a file a split.
        layout: its file names.
        round_trips: further round trips of the training split's translation through the source language.
        task: which of its tasks, 1 or 2.
        pictures: the folder of the images themselves; none where it has videos.
    """

    name: str
    folder: Path
    target: str
    translator: str
    features: Path
    layout: Layout
    round_trips: int = 0
    task: int = 1
    pictures: Path | None = None

    def split(self, split: SplitName, *, back: bool = True) -> SplitFiles:
        """Caption files of a split.

        Args:
            split: its name.
            back: whether back-translations are read, which then must be there.

        Raises:
            UserError: one of them is missing, or there is no such split.
        """
        third = self.file(split, "back") if "back" in self.roles(split) and back else None
        return SplitFiles(self.file(split, "source"), self.file(split, "target"), third)

    def roles(self, split: SplitName) -> list[Role]:
        """Which files a split has."""
        if split not in self.layout.files:
            raise UserError(f"split {split!r} is unknown; choose one of {', '.join(self.layout.files)}")
        return list(self.layout.files[split])

    def file(self, split: SplitName, role: Role) -> Path:
        """One caption file of a split.

        Raises:
            UserError: it is missing under every name that it may have.
        """
        names = [
            name
            for prefix in self._prefixes()
            for name in self.layout.file_names(
                prefix, split, role, self.translator, self.target, round_trips=self.round_trips, task=self.task
            )
        ]
        return self._text_file(names, f"{split}, {role} captions")

    def translation(self, split: SplitName, role: Role) -> Path:
        """Where a translation is written: it is named after the file that people wrote, which must exist."""
        written = self.file(split, "source" if split == "train" else "target")
        prefix = next((own for own in self._prefixes() if written.name.startswith(own + split)), self.layout.names[0])
        words = (prefix, split, role, self.translator, self.target)
        return written.with_name(self.layout.file_names(*words, task=self.task)[0])

    def human(self, split: SplitName, language: str) -> Path:
        """What people wrote in English or the target language, for MLCMR.

        Raises:
            UserError: it is missing.
        """
        return self._text_file(self._names(HUMAN, split, language), f"{split}, human captions in {language}")

    def translated(self, split: SplitName, language: str) -> Path:
        """What people wrote in the target language, translated into English, or the reverse, for MLCMR.

        Raises:
            UserError: it is missing under every name that it may have.
        """
        return self._text_file(self._names(TRANSLATED, split, language), f"{split}, translations into {language}")

    def half(self) -> Path | None:
        """Training captions in one language or the other, for MLCMR; none where there is no such file."""
        names = [name.format(c=prefix) + ".caption.txt" for prefix in self._prefixes() for name in HALF]
        return next((self.folder / "TextData" / name for name in names if self._is_text(name)), None)

    def _prefixes(self) -> list[str]:
        """Files are named after their folder; a folder that was renamed keeps files named the other way."""
        return sorted(self.layout.names, key=lambda name: name != self.folder.name)

    def _names(self, templates: Mapping[str, tuple[str, ...]], split: SplitName, language: str) -> list[str]:
        words = {"split": split, "t": self.translator, "x": self.target}
        return [
            template.format(c=prefix, **words) + ".caption.txt"
            for prefix in self._prefixes()
            for template in templates["en" if language == "en" else "x"]
        ]

    def _is_text(self, name: str) -> bool:
        return (self.folder / "TextData" / name).is_file()

    def _text_file(self, names: list[str], what: str) -> Path:
        folder = self.folder / "TextData"
        found = next((folder / name for name in names if self._is_text(name)), None)
        if found is None:
            missing = f"{folder}: no file {' or '.join(names)} ({self.name}, {what})"
            raise UserError(f"{missing}; {self._advice(names[0]) if self.layout.own else 'add it or check --root'}")
        return found

    def _advice(self, name: str) -> str:
        """How a collection of own data gets a caption file."""
        if f"_{self.translator}_" not in name:
            return "add such rows of kind human to the table, and import it again"
        others = [other for other in translators_of(self.folder) if other != self.translator]
        there = f", or set data.translator to {' or '.join(others)}" if others else ""
        return f"make it with `nrccr translate`, or import a table that has such rows{there}"

    def film(self, item: str) -> Path | None:
        """The film of a video, where the collection keeps films too; none for an id that leads out of their folder."""
        path = self.folder / "media" / f"{item}.mp4"
        return path if leads_inside(item) and path.is_file() else None

    def vectors(self, split: SplitName) -> tuple[Path, Path]:
        """The vectors of a split's images, a `.npy` file, and the list of their ids, one a row.

        Raises:
            UserError: one of the two is missing under every name that it may have.
        """
        assert self.layout.images is not None
        folder, name = self.features, self.features.name
        spellings = sorted(SPELLINGS, key=lambda spelling: spelling != name) if name in SPELLINGS else [name]
        vectors = [folder / self.layout.images.vectors[split].format(f=spelling) for spelling in spellings]
        names = [name.format(x=self.target) for name in self.layout.images.ids[split]]
        ids = [place / name for name in names for place in (folder.parent, folder)]
        return self._first(vectors, split, "vectors"), self._first(ids, split, "image ids")

    def _first(self, paths: list[Path], split: SplitName, what: str) -> Path:
        for path in paths:
            if path.is_file():
                return path
        raise UserError(
            f"{paths[0].parent}: no file {' or '.join(dict.fromkeys(path.name for path in paths))} there or in "
            f"{self.features.name} ({self.name}, {split}, {what}); add it, or check --root and data.feature"
        )


def leads_inside(item: str) -> bool:
    """Whether a file named after an item lies in its folder, whatever its id says."""
    return not Path(item).is_absolute() and ".." not in Path(item).parts


def locate(
    root: Path,
    collection: str,
    *,
    target: str | None = "zh",
    translator: str = "google",
    feature: str | None = None,
    round_trips: int = 0,
    task: int = 1,
    pictures: str | None = None,
) -> Collection:
    """Find a collection under the root.

    Args:
        root: the folder that holds the collections.
        collection: its name, or an alternative name; of own data its folder, under the root or as a path.
        target: target language.
        translator: whose translations.
        feature: name of the visual feature; by default the collection's usual one. `BigFile` checks its folder.
        round_trips: further round trips of the training text through the source language.
        task: which of its tasks.
        pictures: folder of the images themselves; by default the collection's usual one.

    Raises:
        UserError: the collection, the target language or the task is unknown, or its folder is missing.
    """
    own = find_own(root, collection)
    if own is not None:
        if task != 1:
            raise UserError(f"data.task={task}: collection {collection!r} has no second task; set data.task=1")
        return _locate_own(own, target, translator, feature, round_trips, pictures)
    layout = next((layout for layout in LAYOUTS if collection in layout.names), None)
    if layout is None:
        known = ", ".join(layout.names[0] for layout in LAYOUTS)
        raise UserError(
            f"{root}: no collection {collection!r} in it; give the folder of all collections as --root, and as "
            f"data.collection the folder of your own or one of {known}"
        )
    target = target or layout.targets[0]
    if target not in layout.targets:
        choices = ", ".join(layout.targets)
        raise UserError(f"collection {collection!r} has no target language {target!r}; choose one of {choices}")
    if task != 1 and layout.task_2 is None:
        raise UserError(f"data.task={task}: collection {collection!r} has no second task; set data.task=1")
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give the folder of all collections as --root")
    names = sorted(layout.names, key=lambda name: name != collection)
    folder = next((root / name for name in names if (root / name).is_dir()), None)
    if folder is None:
        raise UserError(f"{root}: no folder {' or '.join(names)} in it; give the folder of all collections as --root")
    features = folder / "FeatureData" / (feature or layout.feature)
    images = None
    if layout.images is not None:
        images = folder / layout.images.folder if pictures is None else Path(pictures)
        if features.name in SPELLINGS and not features.is_dir():
            spelled = (features.with_name(spelling) for spelling in SPELLINGS)
            features = next((other for other in spelled if other.is_dir()), features)
    return Collection(layout.names[0], folder, target, translator, features, layout, round_trips, task, images)


def _locate_own(
    folder: Path, target: str | None, translator: str, feature: str | None, round_trips: int, pictures: str | None
) -> Collection:
    """A collection of own data; see locate."""
    own = read_own(folder)
    target = target or next(iter(languages_of(folder, own)), None)
    if target is None:
        raise UserError(
            f"{folder}: all its captions are in {own.source}; set data.target to the language of the queries"
        )
    require_language(f"data.target={target}", target)
    images = None
    if own.images:
        images = folder / "images" if pictures is None else Path(pictures)
    features = feature_folder(folder, own, feature)
    return Collection(own.name, folder, target, translator, features, layout_of(own), round_trips, pictures=images)


def errors_of(captions: Path) -> Path:
    """Where the clean sentences of a translated caption file lie; only generated collections have them."""
    return captions.with_name(captions.name.replace(".caption.txt", ".errors.jsonl"))


def require_source(collection: Collection, source: str) -> None:
    """Make sure that the training captions of a collection are in a language.

    Raises:
        UserError: they are in another.
    """
    if collection.layout.source != source:
        raise UserError(
            f"{collection.folder}: the training captions are in {collection.layout.source}, not {source}; "
            "choose another collection, or for NRCCR set data.source"
        )


def find_backbone(root: Path, model: str) -> str:
    """`text.model` as a folder: the given one, else one of that name under the root, else it is left a hub name."""
    inside = root / model
    return str(inside) if inside.is_dir() and not Path(model).is_dir() else model
