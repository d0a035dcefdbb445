"""Files and folders appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from nrccr.files import atomic_folder, atomic_path, write_json


def test_a_file_is_replaced_only_on_success(tmp_path: Path) -> None:
    path = tmp_path / "new" / "value.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [entry.name for entry in path.parent.iterdir()] == ["value.json"]


def test_a_folder_is_replaced_only_on_success(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with atomic_folder(folder) as temporary:
        (temporary / "one").write_text("1")
    with pytest.raises(RuntimeError), atomic_folder(folder) as temporary:
        (temporary / "two").write_text("2")
        raise RuntimeError
    assert [entry.name for entry in folder.iterdir()] == ["one"]
    with atomic_folder(folder) as temporary:
        (temporary / "three").write_text("3")
    assert [entry.name for entry in folder.iterdir()] == ["three"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_what_a_kill_left_behind_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".run.tmp").mkdir()
    (tmp_path / ".run.tmp" / "half").write_text("")
    (tmp_path / ".run.old").mkdir()
    with atomic_folder(tmp_path / "run") as temporary:
        assert not any(temporary.iterdir())
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]
