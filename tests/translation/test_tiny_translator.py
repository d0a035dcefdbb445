"""The sentence pairs of `scripts/tiny_translator.py`; tests/test_demo.py trains with it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "tiny_translator.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script as a module."""
    pytest.importorskip("sentencepiece", reason="needs the extra translate")
    spec = importlib.util.spec_from_file_location("tiny_translator", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("languages", [("en", "de"), ("de", "en"), ("en", "zh"), ("zh", "en")])
def test_a_sentence_has_one_right_translation(script: ModuleType, languages: tuple[str, str]) -> None:
    pairs = script.pairs(languages, 1000, seed=3)
    assert pairs == script.pairs(languages, 1000, seed=3) and len(pairs) == 1000
    answers: dict[str, set[str]] = {}
    for text, translation in pairs:
        answers.setdefault(text, set()).add(translation)
    assert 700 < len(answers) < 1000, "sentences vary, and some come twice"
    assert [text for text, found in answers.items() if len(found) > 1] == []


def test_translations_are_plain_and_keep_the_order(script: ModuleType) -> None:
    names = {"one": "Eins", "two": "Zwei", "three": "Drei", "four": "Vier", "five": "Fünf", "six": "Sechs"}
    seen = 0
    for english, german in script.pairs(("en", "de"), 500, seed=5):
        assert "während" not in german.lower() and "handgeschrieben" not in german
        found = [names[word] for word in english.lower().strip(".").replace(",", "").split() if word in names]
        assert [word for word in german.strip(".").replace(",", "").split() if word in found] == found
        seen += len(found) == 2
    assert seen > 20
