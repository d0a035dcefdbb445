"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
import torch

from nrccr import files
from nrccr.errors import UserError, not_written
from nrccr.files import Lock, atomic_folder, atomic_path, refuse_links, write_json, write_text
from nrccr.safeload.unpickle import save_weights
from tests.conftest import FullDisk


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


def test_a_failure_leaves_no_new_folders(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for write in (atomic_path, atomic_folder):
        for path in (tmp_path / "a" / "b" / "x", tmp_path / "mine" / "a" / "x"):
            with pytest.raises(RuntimeError), write(path):
                raise RuntimeError
            assert [entry.name for entry in tmp_path.rglob("*")] == ["mine"]


def test_what_a_kill_left_behind_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".run.tmp").mkdir()
    (tmp_path / ".run.tmp" / "half").write_text("")
    (tmp_path / ".run.old").mkdir()
    with atomic_folder(tmp_path / "run") as temporary:
        assert not any(temporary.iterdir())
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_temporary_names_are_random_and_a_link_in_wait_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    run = tmp_path / "run"
    run.mkdir()
    (run / ".ranks.tsv.tmp").symlink_to(victim)
    names = set()
    for _ in range(2):
        with atomic_path(run / "ranks.tsv") as temporary:
            names.add(temporary.name)
            temporary.write_text("1")
    assert len(names) == 2 and victim.read_text() == "mine"
    monkeypatch.setattr(files.secrets, "token_hex", lambda count: "0" * 16)  # had somebody guessed the name
    (run / f".ranks.tsv.{'0' * 16}.tmp").symlink_to(victim)
    with pytest.raises(FileExistsError, match=r"ranks\.tsv'"):
        write_text(run / "ranks.tsv", "2")
    assert victim.read_text() == "mine" and (run / "ranks.tsv").read_text() == "1"


def test_modes_follow_the_umask(tmp_path: Path) -> None:
    for mask in (0o022, 0o077, 0o002):
        before = os.umask(mask)
        try:
            write_text(tmp_path / f"file{mask}", "")
            save_weights({"a": torch.zeros(2)}, tmp_path / f"weights{mask}")  # safetensors alone has the owner read it
            with atomic_folder(tmp_path / f"folder{mask}"):
                pass
        finally:
            os.umask(before)
        for name in ("file", "weights"):
            assert stat.S_IMODE((tmp_path / f"{name}{mask}").stat().st_mode) == 0o666 & ~mask
        assert stat.S_IMODE((tmp_path / f"folder{mask}").stat().st_mode) == 0o777 & ~mask


def test_leftovers_of_killed_writes_are_removed_and_running_ones_are_not(tmp_path: Path) -> None:
    left = f".value.{'a' * 16}.tmp"
    (tmp_path / left).write_text("half")
    (tmp_path / ".value.notes.tmp").write_text("somebody's own")
    with atomic_path(tmp_path / "value") as temporary:
        temporary.write_text("outer")
        write_text(tmp_path / "value", "inner")  # as another process would
        assert temporary.exists() and not (tmp_path / left).exists()
    assert (tmp_path / "value").read_text() == "outer"
    (tmp_path / f".run.{'a' * 16}.old").mkdir()
    with atomic_folder(tmp_path / "run") as outer:
        with atomic_folder(tmp_path / "run"):
            pass
        assert outer.is_dir()
    assert {entry.name for entry in tmp_path.iterdir()} == {"value", "run", ".value.notes.tmp"}


def test_a_linked_folder_is_replaced_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "disk" / "run").mkdir(parents=True)
    (tmp_path / "run").symlink_to(tmp_path / "disk" / "run")
    with atomic_folder(tmp_path / "run") as temporary:
        (temporary / "new").touch()
    assert (tmp_path / "run").is_symlink() and (tmp_path / "disk" / "run" / "new").is_file()
    with pytest.raises(FileExistsError), atomic_folder(tmp_path / "run", replace=False):
        pass
    assert [entry.name for entry in (tmp_path / "disk").iterdir()] == ["run"]


def test_links_inside_are_named_and_the_folder_itself_may_be_one(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "test").mkdir(parents=True)
    (tmp_path / "link").symlink_to(run)
    refuse_links(tmp_path / "link", ["test/ranks.tsv", "absent/file"])
    (run / "test" / "ranks.tsv").symlink_to(tmp_path / "victim")  # it leads nowhere yet
    with pytest.raises(UserError, match=r"run/test/ranks\.tsv: a link"):
        refuse_links(run, ["metrics.jsonl", "test/ranks.tsv"])
    (run / "last").symlink_to(tmp_path)
    with pytest.raises(UserError, match="run/last: a link"):
        refuse_links(run, ["last/state.pt"])


def test_a_lock_holds_until_it_is_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, first, second = tmp_path / "log", Lock(), Lock()
    assert first.take(path) and first.held
    assert not second.take(path) and not second.held
    child = os.fork()
    if not child:  # a forked worker neither holds nor frees it
        os._exit(0 if not files._locks else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not second.take(path)
    first.release()
    assert second.take(path)
    monkeypatch.setattr(files, "fcntl", None)
    assert first.take(path), "no locks, no refusal"
    for lock in (first, second):
        lock.release()
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "pipe")
    for name, said in (("link", "a link"), ("pipe", "not a regular file")):
        with pytest.raises(UserError, match=f"{name}: {said}"):
            first.take(tmp_path / name)


def test_a_write_that_fails_names_what_is_written(tmp_path: Path, no_file_longer_than: FullDisk) -> None:
    """Not what is temporary, and not nothing, as an error of `write` does; another file keeps its name."""
    for write, below in ((atomic_path, False), (atomic_folder, True)):
        with (
            pytest.raises(OSError, match="File too large") as raised,
            no_file_longer_than(9),
            write(tmp_path / "new") as temporary,
        ):
            ((temporary / "one") if below else temporary).write_text("0123456789")
        assert raised.value.filename == str(tmp_path / "new")
        for name in ("missing", "missing.tmp"):
            with pytest.raises(FileNotFoundError) as raised, write(tmp_path / "new"):
                (tmp_path / name).read_text()
            assert raised.value.filename == str(tmp_path / name)
    with pytest.raises(FileNotFoundError) as raised, atomic_folder(tmp_path / "new") as temporary:
        (temporary / "below" / "one").write_text("")
    assert raised.value.filename == str(tmp_path / "new")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS])
def test_only_a_full_disk_is_called_full(number: int) -> None:
    hidden = RuntimeError("unexpected pos 704 vs 598")  # as torch says it
    hidden.__context__ = OSError(number, os.strerror(number))
    for error in (OSError(number, "x"), hidden, ValueError(f"I/O error: as safetensors says it (os error {number})")):
        said = str(not_written(Path("state.pt"), error, "give another --out"))
        assert said.startswith(f"state.pt: cannot be written ({os.strerror(number)}); ")
        assert ("full" in said) == (number not in (errno.EACCES, errno.EROFS)) == ("--out" not in said)
