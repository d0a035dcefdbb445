"""Faults of translated files, each on a line made for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nrccr.translation.quality import inspect, loops


def write(path: Path, tag: str, texts: list[str]) -> Path:
    path.write_text("".join(f"v{i}#{tag}#0 {text}\n" for i, text in enumerate(texts)), encoding="utf-8")
    return path


def test_every_fault_is_found_at_its_line(tmp_path: Path) -> None:
    good = [("a man runs in the park", "一个男人在公园里跑步")] * 6
    bad = [
        ("A dog, barking!", "a dog barking"),  # 7, in another script too
        ("a child plays", ""),  # 8
        ("a cat jumps over a wall", "猫跳猫跳猫跳猫跳过墙"),  # 9
        ("a woman is singing a very long song on a stage at night", "歌唱"),  # 10
        ("a bird flies over it", "un oiseau vole"),  # 11
        ("a man plays FIFA again", "男人又在玩FIFA"),  # 12, fine
        ("no no no no no no", "不不不不不不"),  # 13: the source repeats, too
        ("somebody swims across the river", "有人游过那条河流"),  # 14, replaced
    ]
    source = write(tmp_path / "s.caption.txt", "enc", [text for text, _ in good + bad])
    target = write(tmp_path / "t.caption.txt", "enc2zh", [text for _, text in good + bad])
    found = inspect(source, target, "zh", replaced=[14])
    assert found.kinds == {"untranslated": [7], "empty": [8, 14], "repeated": [9], "length": [10], "script": [7, 11]}
    assert found.captions == 14


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("very very very big", False),
        ("very very very very big", True),
        ("he runs and he runs and", False),
        ("he runs and he runs and he runs and stops", True),
        ("看看看", False),
        ("跑步跑步跑步", True),
        ("", False),
        ("aaaa bbbb", False),
    ],
)
def test_loops(text: str, wrong: bool) -> None:
    assert loops(text) is wrong


def test_lines_are_counted_in_the_file(tmp_path: Path) -> None:
    source = write(tmp_path / "s.caption.txt", "enc", ["a b c d", "a b c e", "a b c f"])
    target = tmp_path / "t.caption.txt"
    target.write_text("v2#enc2de#0 a b c f\nbroken line\nv0#enc2de#0 das ist\n", encoding="utf-8")
    found = inspect(source, target, "de")
    assert found.untranslated == [1]


def test_real_translations(shared: Path) -> None:
    texts = shared / "data" / "VisualSearch" / "vatex" / "TextData"
    found = inspect(texts / "vatextrain.caption.txt", texts / "vatextrain_google_enc2zh.caption.txt", "zh")
    assert {kind: len(lines) for kind, lines in found.kinds.items()} == {
        "untranslated": 0, "empty": 0, "repeated": 4, "length": 0, "script": 2,
    }  # fmt: skip
