"""`nrccr import --overwrite` killed between any two of its file operations leaves the old collection or the new one."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nrccr import exchange, files
from nrccr.data.importing import Recipe, import_table
from nrccr.data.own import Own

OPERATIONS = {"open", "os.rename", "os.mkdir", "os.link", "os.remove", "os.rmdir", "os.scandir", "ctypes.dlsym"}
RECIPE = Recipe(Own("mine"))
State = dict[str, bytes]


def table(path: Path, word: str, captions: int) -> Path:
    """A table of a few videos; the new one has other texts and files than the old one."""
    languages = ("en", "zh")[:captions]
    rows = [f"v{i},{language},{word} {i} {k}" for i in range(4) for k in range(captions) for language in languages]
    path.write_text("\n".join(["item,language,text", *rows]) + "\n", encoding="utf-8")
    return path


def state(folder: Path) -> State:
    """Every file of a collection with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def killed_at(number: int, work: Callable[[], Any]) -> bool:
    """Do work in a process that is killed before a file operation; whether it came that far."""
    child = os.fork()
    if not child:
        left = [number]

        def watch(event: str, _: tuple[Any, ...]) -> None:
            if event in OPERATIONS:
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("swaps", [True, False], ids=["swapped", "moved"])
def test_the_old_collection_or_the_new_one(swaps: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system cannot swap two names there may be none for a moment; the next import finds the old one."""
    if not swaps:
        monkeypatch.setattr(exchange, "exchange", lambda one, other: False)
    elif not sys.platform.startswith(("linux", "darwin")):
        pytest.skip("this system does not swap names")
    first, second = table(tmp_path / "a.csv", "old", 1), table(tmp_path / "b.csv", "new", 2)
    out = tmp_path / "mine"
    import_table(first, out, RECIPE)
    (out / "FeatureData" / "clip").mkdir(parents=True)
    (out / "FeatureData" / "clip" / "feature.bin").write_bytes(b"features")
    old = state(out)
    import_table(second, tmp_path / "mine2", RECIPE)
    new = state(tmp_path / "mine2") | {"FeatureData/clip/feature.bin": b"features"}
    assert old.keys() != new.keys()
    count, outcomes = 1, set()
    while killed_at(count, lambda: import_table(second, out, RECIPE, overwrite=True)):
        found = state(out) if out.exists() else None
        assert found in (old, new) or (found is None and not swaps), f"killed before operation {count}"
        outcomes.add("none" if found is None else "old" if found == old else "new")
        import_table(first, out, RECIPE, overwrite=True)  # whatever it left, the next one works
        assert state(out) == old and not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
        count += 1
    assert state(out) == new
    assert outcomes == {"old", "new"} | (set() if swaps else {"none"}) and count > 30


def test_a_replacement_that_fails_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "exchange", lambda one, other: False)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old").touch()
    with pytest.raises(OSError), files.atomic_folder(tmp_path / "run") as temporary:
        temporary.rmdir()  # so that it cannot be renamed
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "old"]
