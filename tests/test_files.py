"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

import pytest
import torch

from nrccr import files
from nrccr.errors import UserError, not_written
from nrccr.files import (
    Lock,
    atomic_folder,
    atomic_path,
    encodable,
    moderate,
    open_to_append,
    refuse_links,
    write_json,
    write_text,
)
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


def test_names_like_leftovers_that_are_not_ours_stay(tmp_path: Path) -> None:
    mine = [".a.txt.tmp.mine", f".axtxt.{'0' * 16}.tmp", f".a.txt.{'0' * 15}.tmp", "a.txt.tmp"]
    for name in mine:
        (tmp_path / name).write_text("mine")
    os.mkfifo(tmp_path / ".a.txt.tmp")
    write_text(tmp_path / "a.txt", "人\udcff")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*mine, ".a.txt.tmp", "a.txt"])
    assert (tmp_path / "a.txt").read_text("utf-8") == "人\\udcff"
    write_json(tmp_path / "b.json", {"a": "人\udcff"})
    assert "人\\udcff" in (tmp_path / "b.json").read_text("utf-8")


def test_what_is_opened_to_append_keeps_what_it_has(tmp_path: Path) -> None:
    for text in ("old", "new"):
        descriptor = open_to_append(tmp_path / "log")
        os.write(descriptor, text.encode())
        os.close(descriptor)
    assert (tmp_path / "log").read_text() == "oldnew"
    with pytest.raises(UserError, match="missing/log: cannot be written"):
        open_to_append(tmp_path / "missing" / "log")


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux")
def test_nothing_stays_open(tmp_path: Path) -> None:
    lock, before = Lock(), len(os.listdir("/proc/self/fd"))
    assert lock.take(tmp_path / "lock")
    for number in range(3):
        write_text(tmp_path / f"{number}", "")
        with atomic_folder(tmp_path / f"folder{number}"):
            pass
        assert not Lock().take(tmp_path / "lock")
    assert len(os.listdir("/proc/self/fd")) == before + 1
    lock.release()
    assert len(os.listdir("/proc/self/fd")) == before


def test_bytes_are_on_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *of, name=name, real=real: (done.append(name), real(*of)))
    write_text(tmp_path / "a", "x")
    assert done == ["fsync", "replace"]


def test_a_path_that_is_no_unicode_has_a_link_that_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a\udcff").write_text("x")
    with encodable("a\udcff") as readable:
        assert readable.isascii() and Path(readable).read_text() == "x"
    with encodable("a") as readable:
        assert readable == "a"


def test_whole_numbers_that_a_float_holds(tmp_path: Path) -> None:
    assert moderate("9" * 300) == 10**300 - 1
    with pytest.raises(ValueError, match="301 digits"):
        moderate("9" * 301)


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
        for other in ("{folder}/missing", "{temporary}.other"):
            with pytest.raises(FileNotFoundError) as raised, write(tmp_path / "new") as temporary:
                Path(other.format(folder=tmp_path, temporary=temporary)).read_text()
            assert raised.value.filename == other.format(folder=tmp_path, temporary=temporary)
        (tmp_path / "old").mkdir()
        (tmp_path / "old" / "kept").touch()
        if not below:  # what cannot change places with a folder
            with pytest.raises(OSError, match="directory") as raised, write(tmp_path / "old"):
                pass
            assert (raised.value.filename, raised.value.filename2) == (str(tmp_path / "old"), None)
        shutil.rmtree(tmp_path / "old")
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
