"""Files of a collection: names, ids, resumed runs, what is kept and what is refused."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from nrccr.data.captions import read_captions
from nrccr.data.collections import SPLITS
from nrccr.errors import UserError
from nrccr.translation.engine import Engine
from nrccr.translation.files import empty_lines, find_collection, jobs, translate_file
from nrccr.translation.journal import Journal
from tests.conftest import Command


class Upper:
    """Upper case is its translation; it dies at the batch `dies`."""

    fingerprint = "upper"

    def __init__(self, dies: int = -1) -> None:
        self.dies, self.asked = dies, 0

    def batches(self, texts: Sequence[str], batch_size: int) -> Iterator[list[int]]:
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for start in range(0, len(texts), batch_size):
            yield order[start : start + batch_size]

    def translate_batch(self, texts: Sequence[str]) -> list[str]:
        if self.asked == self.dies:
            raise KeyboardInterrupt
        self.asked += 1
        return [text.upper() for text in texts]


def test_files_of_a_collection(tiny_collection: Path) -> None:
    found = jobs(find_collection(tiny_collection / "vatex", "zh", "me", 1), SPLITS)
    assert [(job.source.name, job.out.name, job.tag, job.language) for job in found] == [
        ("vatextrain.caption.txt", "vatextrain_me_enc2zh.caption.txt", "enc2zh", "zh"),
        ("vatextrain_me_enc2zh.caption.txt", "vatextrain_me_enc2zh2enc.caption.txt", "enc2zh2enc", "en"),
        ("vatexval_zh.caption.txt", "vatexval_me_zh2enc.caption.txt", "zh2enc", "en"),
        ("vatextest_zh.caption.txt", "vatextest_me_zh2enc.caption.txt", "zh2enc", "en"),
    ]


def test_names_and_tags_are_those_of_the_published_translations(shared: Path) -> None:
    root = shared / "data" / "VisualSearch"
    for name, target in (("vatex", "zh"), ("multi30k", "de"), ("multi30k", "fr"), ("multi30k", "cs")):
        for job in jobs(find_collection(root / name, target, "google", 1), SPLITS):
            assert job.out.is_file(), job.out
            tags = {caption.split("#")[-2] for caption in read_captions(job.out).ids}
            assert job.tag in tags or name == "multi30k", (job.tag, tags)


@pytest.mark.parametrize("dies", [0, 1, 5])
def test_resumed_files_are_the_same(tiny_collection: Path, dies: int) -> None:
    job = jobs(find_collection(tiny_collection / "vatex", "zh", "me", 1), ["train"])[0]
    assert translate_file(job, Upper(), 4) is True
    whole = job.out.read_bytes()
    before, after = read_captions(job.source), read_captions(job.out)
    assert (after.items, after.numbers) == (before.items, before.numbers)
    assert after.texts == [text.upper() for text in before.texts]
    job.out.unlink()
    with pytest.raises(KeyboardInterrupt):
        translate_file(job, Upper(dies), 4)
    assert not job.out.exists() and job.journal.exists()
    rest = Upper()
    translate_file(job, rest, 4)
    assert rest.asked == 6 - dies and job.out.read_bytes() == whole and not job.journal.exists()


def test_finished_files_are_kept_and_others_refused(tiny_collection: Path) -> None:
    job = jobs(find_collection(tiny_collection / "vatex", "zh", "me", 1), ["train"])[0]
    translate_file(job, Upper(), 4)
    again = Upper()
    assert translate_file(job, again, 4) is False and again.asked == 0
    with pytest.raises(UserError, match="was not made of this text by this translator"):
        translate_file(job, Upper(), 5)
    assert translate_file(job, Upper(), 5, overwrite=True) is True
    job.out.write_text(job.out.read_text().replace("A", "B", 1))
    with pytest.raises(UserError, match="was not made"):
        translate_file(job, Upper(), 5)
    google = jobs(find_collection(tiny_collection / "vatex", "zh", "google", 1), ["train"])[0]
    theirs = google.out.read_bytes()
    with pytest.raises(UserError, match="was not made"):
        translate_file(google, Upper(), 4)
    assert google.out.read_bytes() == theirs


def test_an_empty_translation_is_recorded(tiny_collection: Path) -> None:
    job = jobs(find_collection(tiny_collection / "vatex", "zh", "me", 1), ["train"])[0]

    class Silent(Upper):
        def translate_batch(self, texts: Sequence[str]) -> list[str]:
            return ["\u200b" if text == first else text.upper() for text in texts]

    first = read_captions(job.source).texts[2]
    translate_file(job, Silent(), 4)
    texts = read_captions(job.source).texts
    assert read_captions(job.out).texts[2] == first
    assert empty_lines(job) == [index + 1 for index, text in enumerate(texts) if text == first]


def test_journal(tmp_path: Path) -> None:
    path = tmp_path / ".x.partial"
    journal = Journal(path, "one")
    journal.add(0, ["a\n", "é"])
    journal.add(1, ["b"])
    with pytest.raises(UserError, match="another run is translating this file"):
        Journal(path, "one")
    journal.close()
    for torn in (b'[2, ["c', b'[2, ["c"]]', b"[2]\n", b'{"a": 1}\n', b"\xff\n", b"[" * 5000 + b"\n"):
        whole = path.read_bytes()
        path.write_bytes(whole + torn)
        journal = Journal(path, "one")
        assert journal.done == {0: ["a\n", "é"], 1: ["b"]} and path.read_bytes() == whole
        journal.close()
    journal = Journal(path, "two")
    assert journal.done == {}
    journal.close(remove=True)
    assert not path.exists()


def test_journal_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    (tmp_path / ".x.partial").symlink_to(tmp_path / "precious")
    with pytest.raises(UserError, match="a link"):
        Journal(tmp_path / ".x.partial", "one")
    assert (tmp_path / "precious").read_text() == "x"


def python(code: str) -> str:
    return shlex.join([sys.executable, "-c", code])


ECHO = python("import sys; sys.stdout.write(sys.stdin.read().upper())")
ENGINES = {
    "unclosed": ("cat 'x", "No closing quotation"),
    "nothing": (" ", "an empty command"),
    "missing": ("no-such-program-here", "cannot be started .No such file"),
    "failing": (python("raise SystemExit('out of words')"), "exit code 1 .out of words.; try it"),
    "fewer": (python("print('x')"), "answered 2 lines with 1"),
    "more": (python("import sys; print(sys.stdin.read())"), "answered 2 lines with 3"),
    "not UTF-8": (python(r"import os; os.write(1, b'\xff\n\xff\n')"), "is not UTF-8"),
}


@pytest.mark.parametrize("name", ENGINES)
def test_wrong_engines(name: str) -> None:
    command, message = ENGINES[name]
    with pytest.raises(UserError, match=message):
        Engine(command).translate_batch(["a", "b"])


def test_engine() -> None:
    assert Engine("cat").translate_batch(["a\tb \r", "", "ü\u2028c"]) == ["a b", "", "ü c"]
    assert list(Engine("cat").batches("abcde", 2)) == [[0, 1], [2, 3], [4]]
    assert Engine("cat -u").fingerprint != Engine("cat").fingerprint


@pytest.mark.skipif(shutil.which("apertium") is None, reason="needs Debian's apertium and apertium-eng-spa")
def test_apertium() -> None:
    made = Engine("apertium -u eng-spa").translate_batch(["A man sings.", "The dog runs in the water"])
    assert made == ["Un hombre canta.", "Las carreras de perro en el agua"]


def test_command_with_a_program(tiny_collection: Path, tiny_config: Path, nrccr_command: Command) -> None:
    folder = tiny_collection / "vatex"
    given = ("translate", folder, "--to", "zh", "--engine", ECHO, "--back-engine", ECHO, "--translator", "upper")
    done = nrccr_command(*given)
    assert done.code == 0, done.err
    assert "vatextrain_upper_enc2zh.caption.txt: translated" in done.out
    assert (
        "vatextrain_upper_enc2zh.caption.txt: untranslated: lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 14 more" in done.out
    )
    done = nrccr_command("check", tiny_config, "--root", tiny_collection, "data.translator=upper")
    assert done.code == 0, done.out
    assert "done already" in nrccr_command(*given).out
    shown = nrccr_command("translate", folder, "--to", "zh", "--translator", "upper", "--check", "--lines", "0").out
    assert "enc2zh.caption.txt: script: lines 1, 2" in shown and "more" not in shown


def test_command_with_models(marian: Path, tiny_collection: Path, nrccr_command: Command) -> None:
    folder = tiny_collection / "vatex"
    given = ("translate", folder, "--to", "zh", "--back-model", marian, "--device", "cpu", "--beams", "1")
    done = nrccr_command(*given, "--model", marian)
    assert done.code == 0, done.err
    texts = folder / "TextData"
    for name in ("train_opus-tiny_enc2zh", "train_opus-tiny_enc2zh2enc", "test_opus-tiny_zh2enc"):
        assert len(read_captions(texts / f"vatex{name}.caption.txt")) in (24, 16)
    assert "training captions need --model too" in nrccr_command(*given).err


USAGE: dict[str, tuple[list[str], str]] = {
    "nothing": ([], "give --model or --engine"),
    "both": (["--model", "x", "--engine", "cat"], "not both"),
    "one way": (["--engine", "cat"], "needs --back-engine"),
    "only back": (["--back-engine", "cat"], "training captions need --engine too"),
    "split": (["--engine", "cat", "--splits", "train,dev"], "no split 'dev'"),
    "tag": (["--engine", "cat", "--back-engine", "cat", "--translator", "../x"], "it stands in file names"),
    "no model": (["--model", "/nowhere/model"], "no configuration there"),
}


@pytest.mark.parametrize("name", USAGE)
def test_wrong_usage(tiny_collection: Path, nrccr_command: Command, name: str) -> None:
    given, message = USAGE[name]
    before = sorted((tiny_collection / "vatex" / "TextData").iterdir())
    done = nrccr_command("translate", tiny_collection / "vatex", "--to", "zh", *given)
    assert (done.code, done.err.count("\n")) == (2, 1) and message in done.err
    assert sorted((tiny_collection / "vatex" / "TextData").iterdir()) == before


def test_wrong_collections(tiny_collection: Path, nrccr_command: Command) -> None:
    engines = ("--engine", "cat", "--back-engine", "cat")
    done = nrccr_command("translate", tiny_collection / "vatx", "--to", "zh", *engines)
    assert done.code == 2 and "no such folder; give the folder of one collection" in done.err
    done = nrccr_command("translate", tiny_collection / "vatex", "--to", "de", *engines)
    assert done.code == 2 and "no target language 'de'" in done.err


SLOW = python("import sys, time; text = sys.stdin.read(); time.sleep(0.1); sys.stdout.write(text.upper())")


@pytest.mark.parametrize("batches", [1, 4])
def test_killed_and_resumed(tiny_collection: Path, tmp_path: Path, batches: int) -> None:
    other = Path(shutil.copytree(tiny_collection, tmp_path / "other"))

    def command(root: Path, engine: str) -> list[str]:
        engines = ["--engine", engine, "--back-engine", engine, "--translator", "me", "--batch-size", "3"]
        return [sys.executable, "-m", "nrccr", "translate", str(root / "vatex"), "--to", "zh", *engines]

    subprocess.run(command(other, SLOW), check=True, capture_output=True)
    journal = tiny_collection / "vatex" / "TextData" / ".vatextrain_me_enc2zh.caption.txt.partial"
    process = subprocess.Popen(command(tiny_collection, SLOW), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: journal.exists() and journal.read_bytes().count(b"\n") > batches, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(journal.read_bytes().splitlines())
    assert not journal.with_name("vatextrain_me_enc2zh.caption.txt").exists() and 1 < done < 9
    subprocess.run(command(tiny_collection, SLOW), check=True, capture_output=True)
    for path in sorted((other / "vatex" / "TextData").iterdir()):
        assert (tiny_collection / "vatex" / "TextData" / path.name).read_bytes() == path.read_bytes(), path.name
    assert not journal.exists() and json.loads(next(journal.parent.glob("*.json")).read_text())["sha256"]


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while not ready():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
