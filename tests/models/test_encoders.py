"""The table of text encoders, and what a null key takes from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nrccr.models.encoders import CONVENTIONS, Convention, convention_of, with_encoder
from nrccr.systems.quartet.settings import QuartetSection
from nrccr.systems.settings import build_config

E5, FIRST = Convention("query: ", "mean"), Convention("", "first")
QUARTET = ["model=quartet", "loss.similarity=0", "loss.feature=0", "loss.cycle=0", "loss.adversary=0"]
NULL = ["text.prefix=null", "quartet.pooling=null", *QUARTET]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("intfloat/multilingual-e5-small", E5),
        ("folder/multilingual-e5-large", E5),
        ("sentence-transformers/LaBSE", FIRST),
        ("bert-base-multilingual-cased", Convention()),
        ("sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2", Convention()),
        ("/cache/models--intfloat--multilingual-e5-base/snapshots/0123", E5),
        ("intfloat/multilingual-e5-large-instruct", None),  # takes an instruction, no prefix
        ("someone/backbone", None),
    ],
)
def test_encoders_are_known_by_name(name: str, wanted: Convention | None) -> None:
    assert convention_of(name) == wanted
    assert all(key == key.lower() for key in CONVENTIONS)


def test_a_folder_may_say_what_it_is(tmp_path: Path) -> None:
    assert convention_of(str(tmp_path)) is None
    for named, wanted in (("intfloat/multilingual-e5-small", E5), ("", None), (3, None)):
        (tmp_path / "config.json").write_text(json.dumps({"_name_or_path": named}))
        assert convention_of(str(tmp_path)) == wanted
    (tmp_path / "config.json").write_text("{")
    assert convention_of(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("overrides", "prefix", "pooling", "noted"),
    [
        (["text.model=intfloat/multilingual-e5-small", *NULL], "query: ", "mean", False),
        (["text.model=LaBSE", *NULL], "", "first", False),
        (["text.model=LaBSE", NULL[0], *QUARTET], "", "mean", False),
        (["text.model=nobody/knows", *NULL], "", "mean", True),
        (["text.model=nobody/knows", *QUARTET], "", "mean", False),
        (["text.model=LaBSE", "text.pretrained=false", *NULL], "", "mean", False),  # of random weights
        (["text.model=intfloat/multilingual-e5-small", *NULL, "text.prefix='passage: '"], "passage: ", "mean", False),
    ],
)
def test_null_takes_what_the_encoder_was_trained_with(
    overrides: list[str], prefix: str, pooling: str, noted: bool
) -> None:
    config, note = with_encoder(build_config([], overrides))
    assert (config.text.prefix, config.section(QuartetSection).pooling) == (prefix, pooling)
    assert bool(note) == noted and ("nobody/knows" in note) == noted and "\n" not in note
    assert with_encoder(config) == (config, "")


def test_a_folder_under_the_root_is_asked(tmp_path: Path) -> None:
    (tmp_path / "backbone").mkdir()
    (tmp_path / "backbone" / "config.json").write_text(json.dumps({"_name_or_path": "multilingual-e5-small"}))
    config, note = with_encoder(build_config([], ["text.model=backbone", *NULL]), tmp_path)
    assert config.text.prefix == "query: " and config.text.model == "backbone" and not note
