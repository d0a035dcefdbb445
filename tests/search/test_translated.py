"""Queries mixed with what a translation model makes of them: command line, API and tester agree."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
import torch

from nrccr.errors import UserError
from nrccr.search.query import Searcher, translation_by
from nrccr.systems.model import Model
from nrccr.systems.retriever import Retriever
from nrccr.systems.settings import load_config
from tests.conftest import Command
from tests.search.serving import post, served

pytest.importorskip("sentencepiece", reason="needs the extra translate")
from tests.translation.conftest import marian as marian  # noqa: E402 - after the extra is there

QUERY = "人唱红球"


def test_ranks_are_those_of_the_tester(
    run: Path, index: Path, tiny_collection: Path, marian: Path, tmp_path: Path, nrccr_command: Command
) -> None:
    """Queries that `nrccr translate` translates for `nrccr test`, and those that search translates itself."""
    collection = tiny_collection / "vatex"
    made = nrccr_command(
        *("translate", collection, "--to", "zh", "--back-model", marian, "--translator", "tiny", "--splits", "test"),
        *("--batch-size", "1", "--device", "cpu"),
    )
    assert made.code == 0, made.err
    options = ("--root", tiny_collection, "--out", tmp_path / "tested", "--device", "cpu", "data.translator=tiny")
    done = nrccr_command("test", run, *options)
    assert done.code == 0, done.err
    with (tmp_path / "tested" / "ranks.tsv").open(encoding="utf-8", newline="") as file:
        ranks = {row[0].replace("#zh2enc#", "#zh#"): int(row[1]) for row in [*csv.reader(file, delimiter="\t")][1:]}
    lines = (collection / "TextData" / "vatextest_zh.caption.txt").read_text(encoding="utf-8").splitlines()
    queries = dict(line.split(" ", 1) for line in lines)
    assert queries.keys() == ranks.keys()
    found = {}
    for translator in ((), ("--translator", marian)):
        done = nrccr_command("search", index, *queries.values(), "--json", "--device", "cpu", *translator)
        assert done.code == 0, done.err
        found[bool(translator)] = json.loads(done.out)
    moved = 0
    for name, mixed, alone in zip(queries, found[True], found[False], strict=True):
        places = [[result["item"] for result in one["results"]].index(name.partition("#")[0]) for one in (mixed, alone)]
        assert places[0] + 1 == ranks[name], name
        moved += places[0] != places[1]
        assert mixed["translation"] and alone["translation"] is None
        assert mixed["results"][0]["score"] != pytest.approx(alone["results"][0]["score"], abs=1e-6)
    assert moved  # the translations count


def test_an_empty_translation_is_the_query_itself(index: Path) -> None:
    own = Searcher(index, device="cpu", translate=lambda query: query).search(QUERY)
    assert Searcher(index, device="cpu", translate=lambda query: " \n").search(QUERY) == own
    assert own.translation == QUERY and own != Searcher(index, device="cpu").search(QUERY)


def test_moments_and_the_api_say_the_translation(index: Path, marian: Path, nrccr_command: Command) -> None:
    done = nrccr_command("moments", index, "test6", QUERY, "--json", "--device", "cpu", "--translator", marian)
    moments = json.loads(done.out)
    assert done.code == 0 and moments["translation"], done.err
    shown = nrccr_command("search", index, QUERY, "--device", "cpu", "--translator", marian)
    title = "".join(shown.out.split())  # it may be folded
    assert title.startswith(f"{QUERY}({''.join(moments['translation'].split())})"), shown.out
    with served(index, "--translator", marian) as (port, _):
        status, found = post(port, "/api/search", {"query": QUERY})
        assert status == 200 and found["translation"] == moments["translation"]
        status, english = post(port, "/api/search", {"query": "a man runs", "english": True})
        assert status == 200 and english["translation"] is None
        status, served_moments = post(port, "/api/moments", {"video": "test6", "query": QUERY})
        assert status == 200 and served_moments["translation"] == moments["translation"]
        assert [clip["score"] for clip in served_moments["curve"]] == pytest.approx(
            [clip["score"] for clip in moments["curve"]], abs=1e-5
        )


def test_what_cannot_be_translated(index: Path, c2kd_config: Path, nrccr_command: Command) -> None:
    for options, says in (
        (["--translator", index / "nowhere"], "--translator"),
        (["--translator", "x", "--english"], "English queries are not translated"),
    ):
        done = nrccr_command("search", index, QUERY, "--device", "cpu", *options)
        assert done.code == 2 and says in done.err and done.err.count("\n") == 1, done.err
    cpu, nothing = torch.device("cpu"), Model(None, None, None)  # type: ignore[arg-type]  # it is refused before
    with pytest.raises(UserError, match="ranks by the query alone"):
        translation_by("x", Retriever(nothing, load_config(c2kd_config), cpu, c2kd_config))


def test_queries_in_other_bytes(index: Path, nrccr_command: Command) -> None:
    """Chinese in the bytes of GBK is refused; in UTF-8 it is read in a locale of ASCII, too."""
    gbk = os.fsdecode("人唱".encode("gbk"))
    for arguments in (("search", index, QUERY, gbk), ("moments", index, "test6", gbk)):
        done = nrccr_command(*arguments, "--device", "cpu")
        assert done.code == 2 and "is no UTF-8" in done.err and done.err.count("\n") == 1, done.err
    done = nrccr_command("moments", index, gbk, QUERY, "--device", "cpu")
    assert done.code == 2 and "is not in the index" in done.err and done.err.count("\n") == 1, done.err
    in_ascii = QUERY.encode().decode("ascii", "surrogateescape")
    done = nrccr_command("search", index, in_ascii, "--json", "--device", "cpu")
    assert done.code == 0 and json.loads(done.out)[0]["query"] == QUERY, done.err
