"""Indexes: equal to the tester, to a rebuilt one, whole or not there, and none that a stranger made is believed."""

from __future__ import annotations

import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nrccr
from nrccr.errors import UserError
from nrccr.evaluation.normalise import normalise
from nrccr.search import build
from nrccr.search.moments import Window, apart
from nrccr.search.query import Searcher
from nrccr.search.store import open_index
from nrccr.search.vectors import KINDS, Kind, Shape, Vectors
from tests.conftest import Command
from tests.search.conftest import TESTED, part

QUERY = "人唱红球"


def answers(searcher: Searcher, query: str = QUERY) -> list[tuple[str, float]]:
    return [(result.item, round(result.score, 5)) for result in searcher.search(query, 100).results]


def test_ranks_are_those_of_the_tester(run: Path, index: Path, tiny_collection: Path) -> None:
    """Each query mixed with its translation, found at the rank that `nrccr test` gave it."""
    text = tiny_collection / "vatex" / "TextData"
    queries = dict(line.split(" ", 1) for line in (text / "vatextest_zh.caption.txt").read_text().splitlines())
    english = dict(
        line.split(" ", 1) for line in (text / "vatextest_google_zh2enc.caption.txt").read_text().splitlines()
    )
    pairs = {query: english[name.replace("#zh#", "#zh2enc#")] for name, query in queries.items()}
    searcher = Searcher(index, device="cpu", translate=pairs.__getitem__)
    with (run / "test" / "ranks.tsv").open(encoding="utf-8", newline="") as file:
        rows = [*csv.reader(file, delimiter="\t")]
    head, ranks = rows[0], rows[1:]
    assert len(ranks) == 16 and len(set(pairs)) > 10, head
    for row in ranks:
        found = [result.item for result in searcher.search(queries[row[0].replace("#zh2enc#", "#zh#")], 8).results]
        assert found.index(row[0].partition("#")[0]) + 1 == int(row[1]), (head, row)


def test_add_and_remove_equal_a_rebuilt_index(
    run: Path, features: Path, index: Path, tmp_path: Path, nrccr_command: Command
) -> None:
    half = part(features, tmp_path / "half", TESTED[:4])
    assert nrccr_command("index", run, "--features", half, "--out", tmp_path / "grown", "--device", "cpu").code == 0
    done = nrccr_command("index", run, "--features", features, "--out", tmp_path / "grown", "--add", "--device", "cpu")
    assert done.code == 0 and "4 items added" in done.out
    whole = Searcher(index, device="cpu")
    assert answers(Searcher(tmp_path / "grown", device="cpu")) == answers(whole)
    done = nrccr_command("index", "--out", index, "--remove", "test1", "--remove", "test6")
    assert done.code == 0 and "2 items removed" in done.out
    left = part(features, tmp_path / "left", [name for name in TESTED if name not in ("test1", "test6")])
    assert nrccr_command("index", run, "--features", left, "--out", tmp_path / "few", "--device", "cpu").code == 0
    assert answers(whole) == answers(Searcher(tmp_path / "few", device="cpu")) and len(answers(whole)) == 6


def test_a_reader_keeps_the_old_index_whole(index: Path) -> None:
    old = open_index(index)
    vector = np.random.default_rng(0).standard_normal(old.about.width).astype(np.float32)
    before = old.search(vector, 8)
    for name in ("test1", "test2", "test3"):
        build.remove(index, [name])
    assert old.search(vector, 8) == before and len(before) == 8
    assert len(open_index(index).search(vector, 8)) == 5
    assert len([*index.glob("generation-*")]) == 2


def test_bias_of_nnn(run: Path, features: Path, tiny_collection: Path, tmp_path: Path, nrccr_command: Command) -> None:
    made = nrccr_command("bank", run, "--root", tiny_collection, "--size", "10", "--device", "cpu")
    assert made.code == 0, made.err
    out = tmp_path / "hubs"
    options = ["--normalise", "nnn", "--k", "3", "--alpha", "0.6", "--device", "cpu"]
    done = nrccr_command("index", run, "--features", features, "--out", out, *options)
    assert done.code == 0, done.err
    model = nrccr.load(run)
    bigfile = build.BigFile(features)
    visual = np.concatenate([model.encode_video([bigfile.read([bigfile.rows(name)])[0][0]]) for name in TESTED])
    with np.load(run / "bank" / "bank.npz") as bank:
        weight = model.config.evaluation.target_weight
        queries = weight * bank["text_target"] + (1 - weight) * bank["text_source"]
    scores = normalise(
        model.encode_text([QUERY]) @ visual.T, queries @ visual.T, method="nnn", k=3, alpha=0.6, log=True
    )
    assert isinstance(scores, np.ndarray)
    found = dict(answers(Searcher(out, device="cpu")))
    assert [found[name] for name in TESTED] == pytest.approx(scores[0].tolist(), abs=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_of_every_kind(kind: Kind, tmp_path: Path) -> None:
    """Half of a set built, half added, a seventh removed: recall of the approximate kinds, equality of the exact."""
    faiss = pytest.importorskip("faiss", reason="needs the extra search")
    centres = np.random.default_rng(0).standard_normal((40, 32))
    noise = np.random.default_rng(1).standard_normal((12_000, 32))
    rows = (centres[np.arange(12_000) % 40] + 0.5 * noise).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    keys, shape = np.arange(12_000), Shape(kind, lists=32 if kind == "ivfpq" else 0, code_bytes=16)
    vectors = Vectors.build(rows[:10_000], keys[:10_000], shape)
    vectors.add(rows[10_000:], keys[10_000:])
    gone = keys[::7]
    vectors.remove(gone)
    _, found = vectors.search(rows[:50], 10, gone)
    scores = rows[:50] @ rows.T
    scores[:, gone] = -np.inf
    best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    recall = np.mean([len({*mine} & {*theirs}) for mine, theirs in zip(found, best, strict=True)]) / 10
    assert not np.isin(found, gone).any() and recall >= {"exact": 1.0, "hnsw": 0.95, "ivfpq": 0.5}[kind]
    assert faiss.__version__


def test_killed_while_it_is_written(run: Path, features: Path, tmp_path: Path, nrccr_command: Command) -> None:
    """A build that is killed leaves no index, an update the old one; the next command tidies up."""
    out = tmp_path / "killed"
    code = (
        "import sys, time; from pathlib import Path; import nrccr.search.store as store;"
        "from nrccr.search import build;"
        "from nrccr.search.vectors import Shape; import nrccr;"
        "store._write_items = lambda path, draft:"
        "(path.write_bytes(b'half'), print('now', flush=True), time.sleep(60));"
        "model = nrccr.load(sys.argv[1]) if sys.argv[4] == 'build' else None;"
        "build.build(model, Path(sys.argv[2]), Path(sys.argv[3]), (1.0, Shape()), None) if model else "
        "build.remove(Path(sys.argv[3]), ['test0'])"
    )
    arguments = ["index", run, "--features", features, "--out", out, "--device", "cpu"]
    for what in ("build", "remove"):
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(run), str(features), str(out), what], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None and child.stdout.readline() == "now\n"
        busy = nrccr_command(*arguments)
        assert busy.code == 2 and "another process is writing it" in busy.err
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        if what == "build":
            with pytest.raises(UserError, match="no index there"):
                open_index(out)
            assert nrccr_command(*arguments).code == 0
        assert open_index(out).count == 8
    build.remove(out, ["test0"])
    assert open_index(out).count == 7 and len([*out.glob("generation-*")]) == 2


def damage(generation: Path, how: str) -> None:
    """Spoil one of the files of a generation."""
    vectors, items = generation / "vectors.faiss", generation / "items.sqlite"
    if how == "cut":
        vectors.write_bytes(vectors.read_bytes()[:200])
    elif how == "huge":
        content = bytearray(vectors.read_bytes())
        content[8:16] = (1 << 40).to_bytes(8, "little")
        vectors.write_bytes(content)
    elif how == "link":
        vectors.rename(generation.parent.parent / "elsewhere")
        vectors.symlink_to(generation.parent.parent / "elsewhere")
    elif how == "pipe":
        items.unlink()
        os.mkfifo(items)
    elif how == "noise":
        items.write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 40)
    else:
        with sqlite3.connect(items) as opened:
            opened.execute(how)
        opened.close()


@pytest.mark.parametrize(
    "how",
    [
        *("cut", "huge", "link", "pipe", "noise"),
        "DELETE FROM items WHERE key = 3",
        "CREATE TRIGGER t AFTER INSERT ON items BEGIN DELETE FROM items; END",
        "CREATE VIEW v AS SELECT 1",
        "UPDATE about SET value = '[]'",
        "UPDATE about SET value = replace(value, '\"exact\"', '\"other\"')",
        "UPDATE about SET value = replace(value, '\"fps\": 1.0', '\"fps\": 0')",
        "DROP TABLE gone",
    ],
)
def test_damaged_or_malicious_files(index: Path, nrccr_command: Command, how: str) -> None:
    damage(next(index.glob("generation-*")), how)
    done = nrccr_command("search", index, QUERY, "--device", "cpu")
    assert done.code == 2 and done.err.count("\n") == 1 and "build the index again" in done.err, done.err


def test_another_model_is_refused(index: Path, trained: Path, run: Path, nrccr_command: Command) -> None:
    done = nrccr_command("search", index, QUERY, "--run", trained, "--device", "cpu")
    assert done.code == 2 and "made with another model" in done.err
    weights = run / "model.safetensors"
    moved = run.rename(run.with_name("moved"))
    assert weights.exists() is False
    assert nrccr_command("search", index, QUERY, "--run", moved, "--device", "cpu").code == 0


def test_search_and_moments_on_the_command_line(run: Path, index: Path, features: Path, nrccr_command: Command) -> None:
    done = nrccr_command("search", index, QUERY, "--json", "--top", "3", "--device", "cpu")
    found = json.loads(done.out)
    assert done.code == 0 and found[0]["query"] == QUERY and len(found[0]["results"]) == 3
    done = nrccr_command("moments", index, "test6", QUERY, "--window", "2", "--json", "--device", "cpu")
    moments = json.loads(done.out)
    model, bigfile = nrccr.load(run), build.BigFile(features)
    frames = bigfile.read([bigfile.rows("test6")])[0][0]
    clips = [frames[start : start + 2] for start in range(len(frames) - 1)]
    scores = [float((model.encode_video([clip]) @ model.encode_text([QUERY]).T)[0, 0]) for clip in clips]
    assert moments["seconds"] == len(frames) >= 4
    assert [window["score"] for window in moments["curve"]] == pytest.approx(scores, abs=1e-5)
    assert moments["best"][0]["start"] == int(np.argmax(scores))
    for arguments, says in (
        (["search", index, ""], "caption 0 is empty"),
        (["search", index, "x" * 1001], "at most 1000"),
        (["search", index, QUERY, "--effort", "3"], "--effort"),
        (["search", index.parent, QUERY], "no index there"),
        (["moments", index, "nobody", QUERY], "nobody is not in the index"),
        (["index", "--out", index, "--remove", "nobody"], "nothing was removed"),
        (["index", run, "--features", features, "--out", index], "holds an index already"),
        (["index", run, "--features", features, "--out", features], "no part of an index"),
        (["index", run, "--features", features, "--out", index.parent / "n", "--kind", "ivfpq"], "too few"),
        (["index", run, "--features", features, "--out", index.parent / "n", "--links", "8"], "--links is of no use"),
        (["index", "--out", index], "or --remove"),
    ):
        done = nrccr_command(*arguments)
        assert done.code == 2 and says in done.err and done.err.count("\n") == 1, done.err
    assert open_index(index).count == 8


def test_windows_that_do_not_overlap() -> None:
    windows = [Window(start, start + 2.0, score) for start, score in enumerate([0.1, 0.9, 0.8, 0.7, 0.2])]
    assert apart(windows, 5) == [windows[1], windows[3]]
    assert apart(windows, 1) == [windows[1]]
