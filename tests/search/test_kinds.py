"""Every kind of index, and images, through a whole folder: built, mapped, searched, added to, items removed."""

from __future__ import annotations

import csv
import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from nrccr.data.bigfile import write_bigfile
from nrccr.errors import UserError
from nrccr.search import vectors
from nrccr.search.query import Searcher
from nrccr.search.store import About, Draft, Item, open_index, write_generation, writing
from nrccr.search.vectors import KINDS
from tests.conftest import FEATURE_WIDTH, IMAGES, VECTOR_NAMES, Command
from tests.hostile import samples
from tests.search.conftest import part

pytest.importorskip("faiss", reason="needs the extra search")
QUERIES = ["人唱红球", "女狗跑", "红水的", "在水里"]
COUNT = 300  # more than the 256 centres of a code's byte
OPTIONS: dict[str, list[str]] = {
    "exact": [],
    # 24 dimensions, which codes of 5 bytes do not divide
    "ivfpq": ["--kind", "ivfpq", "--lists", "4", "--code-bytes", "5"],
    "hnsw": ["--kind", "hnsw", "--links", "8"],
}


def finds(found: set[str], wanted: set[str], kind: str) -> bool:
    """Whether all items are found, and no others; a graph need not reach every one."""
    return found == wanted or (kind == "hnsw" and found < wanted and len(found) >= 0.95 * len(wanted))


def test_every_kind_of_index(
    run: Path, tmp_path: Path, nrccr_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Approximate indexes find nearly what the exact one does, after the same changes; removed items never."""
    monkeypatch.setattr(vectors, "LEAST_TRAINING", 256)
    random, names = np.random.default_rng(3), [f"v{number}" for number in range(COUNT)]
    write_bigfile(tmp_path / "all", ((name, random.standard_normal((2, FEATURE_WIDTH))) for name in names))
    most = part(tmp_path / "all", tmp_path / "most", names[:-20])
    gone = names[5:400:40] + names[-1:]
    found: dict[str, list[list[str]]] = {}
    for kind in KINDS:
        index = tmp_path / kind
        done = nrccr_command("index", run, "--features", most, "--out", index, "--device", "cpu", *OPTIONS[kind])
        assert done.code == 0 and f"{COUNT - 20} items in" in done.out, done.err
        searcher = Searcher(index, device="cpu")
        files = Path("/proc/self/maps")
        if files.exists():
            assert str(searcher.generation().folder / "vectors.faiss") in files.read_text(encoding="utf-8"), kind
        before = searcher.search(QUERIES[0], 300)
        assert finds({result.item for result in before.results}, {*names[:-20]}, kind), kind
        done = nrccr_command("index", run, "--features", tmp_path / "all", "--out", index, "--add", "--device", "cpu")
        assert done.code == 0 and "20 items added" in done.out, done.err
        done = nrccr_command("index", "--out", index, *(word for name in gone for word in ("--remove", name)))
        assert done.code == 0 and f"{len(gone)} items removed" in done.out, done.err
        for effort in (None, 4):
            if kind != "exact" or effort is None:
                best = [searcher.search(query, 300, effort=effort).results for query in QUERIES]
                listed = [[result.item for result in one] for one in best]
                # Of ivfpq 4 lists are all that there are; hnsw has as many candidates as are asked for.
                assert all(len(one) == len({*one}) for one in listed), (kind, effort)
                assert all(finds({*one}, {*names} - {*gone}, kind) for one in listed), (kind, effort)
                assert all(one == sorted(one, key=lambda result: -result.score) for one in best)
        found[kind] = [one[:10] for one in listed]
        again = nrccr_command("search", index, *QUERIES, "--json", "--device", "cpu")
        assert [[result["item"] for result in one["results"]] for one in json.loads(again.out)] == found[kind]
    recall = {
        kind: np.mean([len({*mine} & {*best}) for mine, best in zip(found[kind], found["exact"], strict=True)]) / 10
        for kind in KINDS
    }
    assert recall["hnsw"] >= 0.95 and recall["ivfpq"] >= 0.5, recall


def test_images(image_run: Command, tiny_images: Path, tmp_path: Path, nrccr_command: Command) -> None:
    """Images are found at the ranks of the tester's target queries, and have no moments."""
    run, collection = tmp_path / "run", tiny_images / "multi30k"
    options = ("reading=corrected", "switches.score=raw")
    done = image_run("train", "--out", run, *options)
    assert done.code == 0, done.err
    done = nrccr_command("test", run, "--root", tiny_images, "--device", "cpu", "evaluation.target_weight=1")
    assert done.code == 0, done.err
    rows = np.load(collection / "FeatureData" / "resnet_152" / f"{VECTOR_NAMES['test']}-resnet_152-avgpool.npy")
    names = [f"test{number}" for number in range(IMAGES["test"])]
    write_bigfile(tmp_path / "features", ((name, row[None]) for name, row in zip(names, rows, strict=True)))
    half = part(tmp_path / "features", tmp_path / "half", names[:4])
    for features, more in ((half, []), (tmp_path / "features", ["--add"])):
        done = nrccr_command("index", run, "--features", features, "--out", tmp_path / "i", "--device", "cpu", *more)
        assert done.code == 0 and "4 items" in done.out, done.err
    captions = (collection / "TextData" / "multi30ktest_de_2016_task1.caption.txt").read_text(encoding="utf-8")
    queries = dict(line.split(" ", 1) for line in captions.splitlines())
    searcher = Searcher(tmp_path / "i", device="cpu")
    with (run / "test" / "ranks.tsv").open(encoding="utf-8", newline="") as file:
        ranks = [*csv.reader(file, delimiter="\t")][1:]
    assert len(ranks) == 16
    for row in ranks:
        query = queries[row[0].replace("#de2enc#", "#de#")]
        listed = [result.item for result in searcher.search(query, 8).results]
        assert listed.index(row[0].partition("#")[0]) + 1 == int(row[1]), row
    done = nrccr_command("moments", tmp_path / "i", "test1", "ein hund", "--device", "cpu")
    assert done.code == 2 and "moments are of videos" in done.err
    assert nrccr_command("index", "--out", tmp_path / "i", "--remove", "test1").code == 0
    assert searcher.generation().find("test1") is None and searcher.generation().count == 7


def _hnsw(content: bytearray) -> dict[str, int]:
    """Where the parts of the small graph's file begin."""
    places, at = {}, 37
    for name, size in (("shares", 8), ("ends", 4), ("levels", 4), ("offsets", 8), ("links", 4)):
        places[name] = at + 8
        at += 8 + size * int(struct.unpack_from("<Q", content, at)[0])
    return places | {"entry": at, "top": at + 4}


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        ("links", 20, "out of the graph"),
        ("links", -2, "out of the graph"),
        ("entry", -1, "begin where nothing is"),
        ("entry", 20, "begin where nothing is"),
        ("top", 7, "begin where nothing is"),
        ("levels", 100, "a level that is not there"),
        ("levels", 0, "a level that is not there"),
        ("ends", 4, "numbers of links are none"),
        ("offsets", 1, "begin where they must not"),
        ("links-8", 1 << 30, "more than the file holds"),
    ],
)
def test_graphs_that_lead_elsewhere(tmp_path: Path, place: str, value: int, says: str) -> None:
    """A stranger's graph whose links, levels or sizes would make faiss read beyond its memory."""
    for name, content in samples.index("hnsw").items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert open_index(tmp_path).count == 20
    path = tmp_path / samples.GENERATION / "vectors.faiss"
    content = bytearray(path.read_bytes())
    name, _, before = place.partition("-")
    struct.pack_into("<i", content, _hnsw(content)[name] - int(before or 0), value)
    path.write_bytes(content)
    with pytest.raises(UserError, match=says):
        open_index(tmp_path)


def test_keys_of_a_graph_without_gaps(tmp_path: Path) -> None:
    """A stranger's items under other keys than the graph's: they are refused when opened, not when one is added."""
    keys = np.arange(6, dtype=np.int64)
    shape = vectors.Shape("hnsw")
    about = About("run", "f" * 32, "features", 1.0, 4, shape)
    built = vectors.Vectors.build(np.eye(6, 4, dtype=np.float32), keys, shape)
    items = {int(key): Item(f"v{key}", 1) for key in keys[:-1]}
    for gone, moved, fits in (([5], {}, True), ([5], {4: 7}, False), ([6], {}, False), ([3], {4: 5}, False)):
        index = tmp_path / f"{gone}{moved}"
        own = {moved.get(key, key): item for key, item in items.items()}
        with writing(index):
            write_generation(index, Draft(about, built, own, np.array(gone, dtype=np.int64), None))
        if fits:
            assert open_index(index).count == 5
            continue
        with pytest.raises(UserError, match="keys that the graph's vectors do not have"):
            open_index(index)


@pytest.mark.parametrize("kind", KINDS)
def test_no_byte_too_few_or_many(tmp_path: Path, kind: vectors.Kind) -> None:
    for changed in (lambda content: content[:-1], lambda content: content + b"\0", lambda content: content[:40]):
        shutil.rmtree(tmp_path)
        for name, content in samples.index(kind).items():
            (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
            (tmp_path / name).write_bytes(changed(content) if name.endswith("vectors.faiss") else content)
        with pytest.raises(UserError, match="vectors.faiss: damaged"):
            open_index(tmp_path)
