"""Collections read by language, for C2KD: which file holds a split's captions in which language.

Beside nrccr.data.collections the only place that knows a path. A collection converted from C2KD's published pickles
(`nrccr convert c2kd`) has one file a split and language; Multi30K and VATEX have the files that NRCCR reads: the
English captions and their translations in training, what people wrote in each language in validation and test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nrccr.data.batch import ENGLISH
from nrccr.data.collections import SPLITS, Collection, SplitName, locate
from nrccr.data.own import Own, find_own, languages_of, read_own
from nrccr.errors import UserError

TEACHERS = "en_words"  # the English that C2KD's published teachers read
OTHERS = "*"  # in place of a language: all that have no entry of their own

# {c} collection, {t} translator, {l} language. A split has the languages whose files exist.
LanguageFiles = Mapping[SplitName, Mapping[str, str]]
CONVERTED_FILES: LanguageFiles = {split: {OTHERS: "{c}" + split + "_{l}"} for split in SPLITS}
_MULTI30K_FILES: LanguageFiles = {
    "train": {ENGLISH: "{c}train_enc", OTHERS: "{c}train_{t}_enc2{l}"},
    "val": {ENGLISH: "{c}val_enc", "de": "{c}val_de_task1", OTHERS: "{c}val_{l}"},
    "test": {ENGLISH: "{c}test_enc_2016", "de": "{c}test_de_2016_task1", OTHERS: "{c}test_{l}_2016"},
}
_VATEX_FILES: LanguageFiles = {
    "train": {ENGLISH: "{c}train", OTHERS: "{c}train_{t}_enc2{l}"},
    "val": {ENGLISH: "{c}val", OTHERS: "{c}val_{l}"},
    "test": {ENGLISH: "{c}test", OTHERS: "{c}test_{l}"},
}


@dataclass(frozen=True)
class LanguageLayout:
    """What is known of a collection before reading the disk.

    Attributes:
        name: its name on disk and in configs.
        languages: all that it can have, English first.
        files: caption files of each split.
        feature: the usual visual feature; none where nrccr.data.collections knows it.
        averaged: whether the published evaluation averages the captions of an item into one query.
    """

    name: str
    languages: tuple[str, ...]
    files: LanguageFiles
    feature: str | None = None
    averaged: bool = False

    @property
    def converted(self) -> bool:
        """Whether it comes from a published pickle; the others are collections of NRCCR."""
        return self.feature is not None

    def file_name(self, split: SplitName, language: str, translator: str) -> str:
        """The caption file of a split in a language."""
        names = self.files[split]
        template = names.get(language, names[OTHERS])
        return template.format(c=self.name, t=translator, l=language) + ".caption.txt"


def _own_layout(folder: Path, own: Own) -> LanguageLayout:
    """That of a collection of own data: training translations, and what people wrote elsewhere."""
    if own.source != ENGLISH:
        raise UserError(f"{folder}: the training captions are in {own.source}, C2KD reads English; choose another")
    files: LanguageFiles = {
        "train": {ENGLISH: "{c}train", OTHERS: "{c}train_{t}_enc2{l}"},
        **{split: {ENGLISH: "{c}" + split, OTHERS: "{c}" + split + "_{l}"} for split in SPLITS[1:]},
    }
    return LanguageLayout(own.name, (ENGLISH, *languages_of(folder, own)), files)


def _converted(name: str, languages: str, feature: str) -> LanguageLayout:
    return LanguageLayout(f"multi_{name}", tuple(languages.split()), CONVERTED_FILES, feature, averaged=True)


LANGUAGE_LAYOUTS = (
    _converted("msrvtt", "en de fr cs zh ru vi sw es", "clip"),
    _converted("vatex", "en zh", "clip"),
    _converted("youcook2", "en de fr cs zh ru vi es ja", "s3d"),
    _converted("rudder", "en hi mr kn", "clip"),
    LanguageLayout("multi30k", ("en", "de", "fr", "cs"), _MULTI30K_FILES),
    LanguageLayout("vatex", ("en", "zh"), _VATEX_FILES),
)


def converted_layout(published: str) -> LanguageLayout:
    """The layout of a published collection: msrvtt, vatex, youcook2 or rudder."""
    return next(layout for layout in LANGUAGE_LAYOUTS if layout.name == f"multi_{published}")


@dataclass(frozen=True)
class LanguageCollection:
    """A collection found on disk.

    Attributes:
        layout: its file names.
        folder: its folder.
        features: the folder of its visual features: of videos for `BigFile`, of images with a file a split.
        translator: whose translations.
        images: for a collection of images, the layout that locates its vectors.
    """

    layout: LanguageLayout
    folder: Path
    features: Path
    translator: str = "google"
    images: Collection | None = None

    @property
    def name(self) -> str:
        """Its name in configs."""
        return self.layout.name

    def languages(self, split: SplitName, wanted: Sequence[str] = ()) -> list[str]:
        """The languages of a split: the configured ones, or else those whose files exist; English first.

        Raises:
            UserError: a configured one that the collection does not have, or no file at all.
        """
        for language in wanted:
            if language not in self.layout.languages:
                known = ", ".join(self.layout.languages)
                raise UserError(f"data.languages: {self.name} has no {language!r}; choose from {known}")
        found = [language for language in self.layout.languages if self.find(split, language) is not None]
        chosen = wanted or found
        if not chosen:
            self.file(split, ENGLISH)  # raises, as it is missing
        return [language for language in self.layout.languages if language in chosen]

    def find(self, split: SplitName, language: str) -> Path | None:
        """The caption file of a split in a language, if it exists; also of the teachers' English."""
        if language == TEACHERS and not self.layout.converted:
            return None
        path = self.folder / "TextData" / self.layout.file_name(split, language, self.translator)
        return path if path.is_file() else None

    def file(self, split: SplitName, language: str) -> Path:
        """The caption file of a split in a language.

        Raises:
            UserError: it is missing.
        """
        found = self.find(split, language)
        if found is None:
            name = self.layout.file_name(split, language, self.translator)
            raise UserError(
                f"{self.folder / 'TextData'}: no file {name} ({self.name}, {split}, captions in {language}); "
                "add it, check --root, or leave it out with data.languages"
            )
        return found

    def has(self, split: SplitName) -> bool:
        """Whether the split exists in any language."""
        return any(self.find(split, language) is not None for language in self.layout.languages)

    def notes(self, wanted: Sequence[str], *, taught: bool, english_only: bool) -> list[str]:
        """Notes for a training: languages that are only tested, a missing file of the teachers' English.

        Args:
            wanted: the configured languages; empty: all whose files exist.
            taught: whether there are teachers.
            english_only: whether training is in English alone.
        """
        found = []
        if taught and self.layout.converted and self.find("train", TEACHERS) is None:
            name = self.layout.file_name("train", TEACHERS, self.translator)
            found.append(f"no file {name}; teachers read the words of the English captions")
        if not english_only and self.has("train") and self.has("test"):
            trained = self.languages("train", wanted)
            unseen = [language for language in self.languages("test", wanted) if language not in trained]
            if unseen:
                found.append(f"no training captions in {', '.join(unseen)}, which the test split has")
        return found

    def vectors(self, split: SplitName) -> tuple[Path, Path]:
        """The vectors of a split's images and the list of their ids, see nrccr.data.collections.

        Raises:
            UserError: one of the two is missing.
        """
        assert self.images is not None
        return self.images.vectors(split)


def locate_languages(
    root: Path, collection: str, *, translator: str = "google", feature: str | None = None
) -> LanguageCollection:
    """Find a collection under the root, to be read by language.

    Args:
        root: the folder that holds the collections.
        collection: its name.
        translator: whose translations, where training text has any.
        feature: name of the visual feature; by default the collection's usual one.

    Raises:
        UserError: the collection is unknown or cannot be read by language, or its folder is missing.
    """
    own = find_own(root, collection)
    layout = next((layout for layout in LANGUAGE_LAYOUTS if layout.name == collection), None)
    if own is not None:
        layout = _own_layout(own, read_own(own))
    if layout is None:
        known = ", ".join(layout.name for layout in LANGUAGE_LAYOUTS)
        raise UserError(
            f"collection {collection!r} cannot be read by language; choose one of {known}, or give the folder of your "
            "own"
        )
    if not layout.converted:
        found = locate(root, collection, target=layout.languages[-1], translator=translator, feature=feature)
        images = found if found.layout.images is not None else None
        return LanguageCollection(layout, found.folder, found.features, translator, images)
    if translator != "google":
        raise UserError(f"data.translator={translator}: {layout.name} has one text only in each language; leave it out")
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give the folder of all collections as --root")
    folder = root / layout.name
    if not folder.is_dir():
        raise UserError(
            f"{root}: no folder {layout.name} in it; give the folder of all collections as --root, or make this one "
            "with `nrccr convert c2kd`"
        )
    return LanguageCollection(layout, folder, folder / "FeatureData" / (feature or str(layout.feature)), translator)
