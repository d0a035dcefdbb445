"""Only regular files are read; other sizes than a file declares: tests/hostile."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nrccr.data.bigfile import BigFile, write_bigfile
from nrccr.data.captions import read_captions
from nrccr.data.images import Vectors
from nrccr.data.tokens import CaptionTokenizer
from nrccr.errors import UserError
from nrccr.evaluation.compare import read_outcome
from nrccr.files import read_json
from nrccr.models.backbone import backbone_config
from nrccr.models.image import image_config
from nrccr.sizes import regular_bytes, require_model_files
from nrccr.systems.c2kd.data import read_words

SPECIAL: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": Path.mkdir,
}


@pytest.fixture(params=SPECIAL)
def put(request: pytest.FixtureRequest) -> Callable[[Path], Path]:
    """A function that puts what is no regular file in a place."""

    def make(path: Path) -> Path:
        path.unlink(missing_ok=True)
        SPECIAL[request.param](path)
        return path

    return make


READERS: dict[str, Callable[[Path], object]] = {
    "captions.txt": read_captions,
    "words.txt": read_words,
    "vectors.npy": lambda path: Vectors(path, path),
    "run.json": lambda path: read_json(path, "put it back"),
    "ranks.tsv": lambda path: read_outcome(path.parent, "test"),
}


@pytest.mark.parametrize("name", READERS)
def test_what_is_no_regular_file_is_not_opened(name: str, put: Callable[[Path], Path], tmp_path: Path) -> None:
    path = put(tmp_path / name)
    with pytest.raises(OSError, match="not a regular file"):
        regular_bytes(path)
    with pytest.raises(UserError, match=name):
        READERS[name](path)


@pytest.mark.parametrize("name", ["shape.txt", "id.txt", "feature.bin", "video2frames.txt"])
def test_features_are_regular_files(name: str, put: Callable[[Path], Path], tmp_path: Path) -> None:
    write_bigfile(tmp_path / "f", [("a", [[1.0, 2.0]])])  # type: ignore[list-item]
    put(tmp_path / "f" / name)
    with pytest.raises(UserError, match=f"{name}: .*not a regular file"):
        BigFile(tmp_path / "f")


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "tokenizer.json", "model.safetensors"])
def test_encoders_are_regular_files(name: str, put: Callable[[Path], Path], tiny_bert: Path, tmp_path: Path) -> None:
    for path in tiny_bert.iterdir():
        (tmp_path / path.name).symlink_to(path)  # as in the cache of a hub
    require_model_files(str(tmp_path))
    (tmp_path / "1_Pooling").mkdir()
    require_model_files(str(tmp_path))
    require_model_files("a-name/of-a-hub")
    put(tmp_path / name)
    for read in (lambda model: backbone_config(model, {}), image_config, lambda model: CaptionTokenizer(model, 60)):
        with pytest.raises(UserError, match="not a regular file"):
            read(str(tmp_path))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("text", ["1_0 16", "+1 2", "²  2", "1 2 3", "0 4", "-1 4"])
def test_sizes_are_plain_digits(text: str, tmp_path: Path) -> None:
    write_bigfile(tmp_path / "f", [("a", [[1.0, 2.0]])])  # type: ignore[list-item]
    (tmp_path / "f" / "shape.txt").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match="two positive integers"):
        BigFile(tmp_path / "f")
