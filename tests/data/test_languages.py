"""Where a collection has its captions in each language."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nrccr.data.batch import ENGLISH
from nrccr.data.collections import SPLITS, SplitName
from nrccr.data.languages import LANGUAGE_LAYOUTS, TEACHERS, converted_layout, locate_languages
from nrccr.errors import UserError
from nrccr.systems.c2kd.convert import LANGUAGES


def complaint(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def rudder(tmp_path: Path) -> Path:
    """A root with a converted collection that has no Kannada in training and neither Marathi nor Kannada in test."""
    text = tmp_path / "multi_rudder" / "TextData"
    text.mkdir(parents=True)
    for name in ("train_en", "train_en_words", "train_hi", "train_mr", "test_en", "test_hi"):
        (text / f"multi_rudder{name}.caption.txt").touch()
    return tmp_path


def test_converted_collections_have_the_languages_of_their_pickles() -> None:
    for published, languages in LANGUAGES.items():
        assert set(converted_layout(published).languages) == set(languages.values())
    assert all(layout.languages[0] == ENGLISH for layout in LANGUAGE_LAYOUTS)


def test_a_converted_collection(rudder: Path) -> None:
    found = locate_languages(rudder, "multi_rudder")
    assert found.features == rudder / "multi_rudder" / "FeatureData" / "clip"
    assert locate_languages(rudder, "multi_rudder", feature="s3d").features.name == "s3d"
    assert found.languages("train") == ["en", "hi", "mr"] and found.languages("test") == ["en", "hi"]
    assert found.languages("train", ["mr", "en"]) == ["en", "mr"]
    assert found.languages("test", ["kn"]) == ["kn"]
    assert found.file("train", "hi").name == "multi_ruddertrain_hi.caption.txt"
    words = found.find("train", TEACHERS)
    assert words is not None and words.name == "multi_ruddertrain_en_words.caption.txt"
    assert found.find("test", TEACHERS) is None
    assert [found.has(split) for split in SPLITS] == [True, False, True]
    assert found.layout.averaged and found.layout.converted and found.images is None


def test_what_is_not_there(rudder: Path, tmp_path: Path) -> None:
    found = locate_languages(rudder, "multi_rudder")
    said = complaint(lambda: found.file("train", "kn"))
    assert "no file multi_ruddertrain_kn.caption.txt (multi_rudder, train, captions in kn)" in said
    assert "no file multi_rudderval_en.caption.txt" in complaint(lambda: found.languages("val"))
    said = complaint(lambda: found.languages("train", ["de"]))
    assert said == "data.languages: multi_rudder has no 'de'; choose from en, hi, mr, kn"
    said = complaint(lambda: locate_languages(rudder, "mscoco"))
    assert "cannot be read by language; choose one of multi_msrvtt, " in said
    assert "nrccr convert c2kd" in complaint(lambda: locate_languages(rudder, "multi_vatex"))
    assert "no such folder" in complaint(lambda: locate_languages(tmp_path / "no", "multi_vatex"))
    assert "no folder vatex" in complaint(lambda: locate_languages(rudder, "vatex"))


MULTI30K: dict[SplitName, dict[str, str]] = {
    "train": {"en": "multi30ktrain_enc", "de": "multi30ktrain_google_enc2de", "cs": "multi30ktrain_google_enc2cs"},
    "val": {"en": "multi30kval_enc", "de": "multi30kval_de_task1", "fr": "multi30kval_fr"},
    "test": {"en": "multi30ktest_enc_2016", "de": "multi30ktest_de_2016_task1", "cs": "multi30ktest_cs_2016"},
}
VATEX: dict[SplitName, dict[str, str]] = {
    "train": {"en": "vatextrain", "zh": "vatextrain_google_enc2zh"},
    "val": {"en": "vatexval", "zh": "vatexval_zh"},
    "test": {"en": "vatextest", "zh": "vatextest_zh"},
}


@pytest.mark.parametrize(("name", "names"), [("multi30k", MULTI30K), ("vatex", VATEX)])
def test_real_files(shared: Path, name: str, names: dict[SplitName, dict[str, str]]) -> None:
    found = locate_languages(shared / "data" / "VisualSearch", name)
    for split, files in names.items():
        assert found.languages(split) == list(found.layout.languages)
        for language, wanted in files.items():
            assert found.file(split, language).name == f"{wanted}.caption.txt"
        assert found.find(split, TEACHERS) is None
        if name == "multi30k":
            assert all(path.is_file() for path in found.vectors(split))
    assert (found.images is not None) == (name == "multi30k") and not found.layout.averaged


def test_another_translator(tmp_path: Path) -> None:
    (tmp_path / "vatex" / "TextData").mkdir(parents=True)
    path = tmp_path / "vatex" / "TextData" / "vatextrain_mine_enc2zh.caption.txt"
    path.touch()
    assert locate_languages(tmp_path, "vatex", translator="mine").file("train", "zh") == path
