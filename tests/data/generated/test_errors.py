"""What became of the words of a noisy translation, and the file that says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from nrccr.data.captions import read_captions
from nrccr.data.collections import errors_of
from nrccr.data.generated.collection import Recipe, generate
from nrccr.data.generated.errors import Known, read_known, spelt
from nrccr.data.generated.noise import changed
from nrccr.data.generated.words import Word
from nrccr.errors import UserError


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("generated")
    return generate(root, Recipe(rates=(0.0, 0.4), videos=(12, 4, 6), captions=3)) / "TextData"


def test_fates_by_hand() -> None:
    known = Known("a big three moves left".split(), "three a big moves departed".split())
    assert known.fates() == ["moved", "right", "right", "right", "wrong"]
    assert known.lost() == pytest.approx(1 / 5), "left is lost, three is only moved"
    assert known.corrected().fates() == ["right", "right", "moved", "right", "wrong"]
    assert Known(["a"], []).fates() == [] and Known(["a"], []).lost() == 1 and Known([], ["a"]).lost() == 0
    assert Known(["a", "b"], ["a", "a", "b"]).fates() in (["right", "wrong", "right"], ["wrong", "right", "right"])


def test_places_in_the_text() -> None:
    known = Known("eine 3 schrumpft".split(), "drei wird eine kleiner".split())
    text, spans = "Drei wird, eine kleiner.", [(0, 2), (2, 4), (5, 9), (9, 10), (11, 15), (16, 23), (23, 24)]
    assert known.fates_in(text, spans) == ["wrong", "wrong", "wrong", None, "right", "wrong", None]
    assert known.fates_in(text, [(5, 15)]) == ["wrong"], "a part over two words is as bad as the first bad one"
    assert known.fates_in("something else", spans) == [None] * 7


@pytest.mark.parametrize(("language", "noise"), [("de", 0), ("de", 40), ("zh", 40)])
def test_every_translation_of_a_collection(texts: Path, language: str, noise: int) -> None:
    captions = read_captions(texts / f"generatedtrain_noise{noise}_enc2{language}.caption.txt")
    known = read_known(captions.path)
    assert list(known) == captions.keys
    for text, own in zip(captions.texts, known.values(), strict=True):
        fates = own.fates()
        lost = changed([Word(word) for word in own.clean], [Word(word) for word in own.noisy])
        assert len(own.clean) - fates.count("right") == lost, "right is what noise.changed counts as kept"
        moved = [word for word, fate in zip(own.noisy, fates, strict=True) if fate == "moved"]
        assert round(own.lost() * len(own.clean)) == lost - len(moved)
        spans = [(at, at + 1) for at in range(len(text))]
        assert {fate for fate in own.fates_in(text, spans) if fate} == set(fates)
        bare = text.replace("，", "").replace(",", "") if language == "zh" else text.replace(",", "")
        assert spelt(own.noisy, language) == bare
    assert noise or all(own.clean == own.noisy for own in known.values())


def test_damaged_lines(tmp_path: Path) -> None:
    captions = tmp_path / "a.caption.txt"
    assert read_known(captions) == {}
    good = '{"item": "v", "number": 0, "clean": ["a"], "noisy": []}\n'
    for bad in (
        "[]",
        "{}",
        "{",
        '{"item": ["v"], "number": 0, "clean": ["a"], "noisy": []}',
        good.replace("[]", "[1]"),
    ):
        errors_of(captions).write_text(good + bad)
        with pytest.raises(UserError, match=r"a\.errors\.jsonl:2: no errors of a translation"):
            read_known(captions)
    errors_of(captions).write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="cannot be read"):
        read_known(captions)
