"""Odd folders, names and disks: an index that works, or one line; nothing half-made stays."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from nrccr.errors import UserError
from nrccr.search import build
from nrccr.search.query import Searcher
from nrccr.search.store import open_index
from tests.conftest import Command, FullDisk
from tests.search.conftest import TESTED, part

QUERY = "人唱红球"


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_queries_that_look_like_markup(index: Path, nrccr_command: Command) -> None:
    done = nrccr_command("search", index, "[/b] [red]人", "--device", "cpu")
    assert done.code == 0 and "[/b] [red]人" in done.out
    done = nrccr_command("moments", index, "test6", "[/b]", "--device", "cpu")
    assert done.code == 0 and "[/b]" in done.out


@pytest.mark.parametrize(
    ("said", "rate"),
    [
        ('"30000/1001"', 30000 / 1001), ('"12.5"', 12.5), ("25", 25.0), ('"0"', 1.0), ('"-3"', 1.0), ('"1e999"', 1.0),
        ('"1e999999999"', 1.0), ("1e5", 1.0), ('"1/0"', 1.0), ("NaN", 1.0), ("[]", 1.0), ('"100000"', 1.0),
    ],
)  # fmt: skip
def test_frames_a_second_that_a_fingerprint_says(said: str, rate: float, tmp_path: Path) -> None:
    """What no extraction writes is as if nothing were said; a million digits are not worked out."""
    (tmp_path / "fingerprint.json").write_text(f'{{"fps": {said}}}')
    assert build.fps_of(tmp_path, None) == rate


def test_adding_from_a_folder_that_does_not_say_its_rate(
    run: Path, features: Path, tmp_path: Path, nrccr_command: Command
) -> None:
    half, out = part(features, tmp_path / "half", TESTED[:4]), tmp_path / "out"
    for folder, said in ((half, '"30000/1001"'), (features, '"none"')):
        (folder / "fingerprint.json").write_text(f'{{"fps": {said}}}')
    made = ("--out", out, "--device", "cpu")
    assert nrccr_command("index", run, "--features", half, *made, "--fps", "29.97003").code == 0
    done = nrccr_command("index", run, "--features", half, *made, "--add")
    assert done.code == 0 and "0 items added" in done.out, done.err
    done = nrccr_command("index", run, "--features", features, *made, "--add")
    assert done.code == 0 and "4 items added" in done.out, done.err
    (features / "fingerprint.json").write_text('{"fps": "2"}')
    done = nrccr_command("index", run, "--features", features, *made, "--add")
    assert done.code == 2 and "other frames a second than the index, 29.97" in done.err


def test_weights_that_are_a_link(run: Path, features: Path, tmp_path: Path, nrccr_command: Command) -> None:
    """As those in the cache of a hub: the index names the folder that they are in."""
    (run / "model.safetensors").rename(tmp_path / "blob")
    (run / "model.safetensors").symlink_to(tmp_path / "blob")
    done = nrccr_command("index", run, "--features", features, "--out", tmp_path / "out", "--device", "cpu")
    assert done.code == 0, done.err
    assert len(Searcher(tmp_path / "out", device="cpu").search(QUERY).results) == 8


def test_a_refused_command_leaves_no_folder(run: Path, index: Path, tmp_path: Path, nrccr_command: Command) -> None:
    new, file = tmp_path / "new" / "index", tmp_path / "file"
    file.write_text("mine")
    narrow = tmp_path / "narrow"
    narrow.mkdir()
    for arguments, says in (
        (["--out", new, "--remove", "test0"], "no index there"),
        ([run, "--features", narrow, "--out", new, "--device", "cpu"], "shape.txt"),
        ([run, "--features", narrow, "--out", new, "--add", "--device", "cpu"], "no index there"),
        (["--out", file, "--remove", "test0"], "is a file; give a folder"),
        (["--out", index, "--remove", "test0", "--device", "cuda:9"], "--remove takes only --out"),
        ([run, "--features", narrow, "--out", new, "--normalise", "nnn", "--alpha", "nan"], "--alpha nan: give a"),
    ):
        done = nrccr_command("index", *arguments)
        assert done.code == 2 and says in done.err and done.err.count("\n") == 1, done.err
        assert not new.parent.exists() and file.read_text() == "mine"
    assert open_index(index).count == 8


@pytest.mark.parametrize("limit", [100, 8000])  # bytes of a file: the vectors do not fit, the items do not
def test_a_disk_that_is_full(index: Path, no_file_longer_than: FullDisk, limit: int) -> None:
    before, vectors = files_of(index), next(index.glob("generation-*/vectors.faiss"))
    assert 100 < vectors.stat().st_size < 8000
    made = open_index(index, mapped=False).vectors
    with no_file_longer_than(limit):
        with pytest.raises(OSError, match="File too large") if limit == 100 else nullcontext():
            made.write(index.with_name("vectors"))
        with pytest.raises(UserError, match="index: cannot be written"):
            build.remove(index, ["test0"])
    assert files_of(index) == before and open_index(index).count == 8


def test_a_host_that_no_name_can_be(index: Path, nrccr_command: Command) -> None:
    done = nrccr_command("serve", index, "--host", "é" * 80)
    assert done.code == 2 and "cannot listen there" in done.err and done.err.count("\n") == 1


def test_what_the_page_says_of_odd_requests(index: Path, features: Path, tmp_path: Path) -> None:
    """An empty field, a file that is a link to itself, a name longer than any file's."""
    pytest.importorskip("gradio", reason="needs the extra serve")
    from nrccr.search.page import looked_for
    from nrccr.search.service import Service

    long = "a" * 300
    longer = part(features, tmp_path / "renamed", TESTED[:1])
    told = longer / "video2frames.txt"
    told.write_text(told.read_text().replace("'test0'", f"'{long}'"))
    searcher, media = Searcher(index, device="cpu"), tmp_path / "media"
    build.add(searcher.retriever, longer, index)
    media.mkdir()
    (media / "test6.mp4").symlink_to("test6.mp4")
    (media / "test6.jpg").write_bytes(b"a picture")
    service = Service(searcher, media)
    assert service.file_of(long) is None and service.file_of("test6") == media / "test6.jpg"
    assert looked_for(service, "test6", QUERY, None, english=False) == "<p>say how many seconds a clip has</p>"
    assert looked_for(service, "test6", QUERY, -1, english=False) == "<p>a value is out of range</p>"
    assert "data-start" in looked_for(service, "test6", QUERY, 2, english=False)


@pytest.mark.parametrize(
    ("suffix", "kind"), [(".webp", "image/webp"), (".m4v", "video/mp4"), (".jpeg", "image/jpeg"), (".mp4", "video/mp4")]
)
def test_types_of_media_are_not_the_systems(
    index: Path, tmp_path: Path, suffix: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system without a list of types would call them text, which a browser is told to believe."""
    pytest.importorskip("gradio", reason="needs the extra serve")
    from starlette import responses
    from starlette.testclient import TestClient

    from nrccr.search.page import results_html
    from nrccr.search.query import Found, Result
    from nrccr.search.service import Service, application

    monkeypatch.setattr(responses, "guess_type", lambda *_: (None, None))
    (tmp_path / f"test1{suffix}").write_bytes(b"content")
    service = Service(Searcher(index, device="cpu"), tmp_path)
    answer = TestClient(application(service)).get("/media/test1")
    assert answer.content == b"content" and answer.headers["content-type"] == kind
    shown = results_html(service, Found(None, [Result("test1", 0.5, 3)]))
    assert ("<img" in shown) == kind.startswith("image/") and ("<video" in shown) == kind.startswith("video/")


def test_moments_of_images_are_refused_as_such(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault is not the server's, whose files can be read."""
    pytest.importorskip("gradio", reason="needs the extra serve")
    from nrccr.search.service import MomentsRequest, RequestError, Service

    searcher = Searcher(index, device="cpu")
    config = searcher.retriever.config
    images = config.model_copy(update={"visual": config.visual.model_copy(update={"kind": "vectors"})})
    monkeypatch.setattr(searcher, "retriever", replace(searcher.retriever, config=images))
    with pytest.raises(RequestError, match="this index is of images") as caught:
        Service(searcher).moments(MomentsRequest(video="test1", query=QUERY))
    assert caught.value.status == 400
