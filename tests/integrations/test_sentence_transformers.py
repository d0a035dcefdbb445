"""The text side in sentence-transformers: its `encode` gives our vectors, and what it saves is read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nrccr
from nrccr.errors import UserError

sentence_transformers: Any = pytest.importorskip(
    "sentence_transformers", reason="needs the extra sentence-transformers"
)
CAPTIONS = ["狗跑", "人唱水", "女在红球水", "狗", "人唱水在红球", "女"]
ENGLISH = ["A man, runs!", "the DOG sings in water", "red ball"]


def wrapped(retriever: Any, role: str = "target") -> Any:
    from nrccr.integrations.sentence_transformers import TextModule

    return sentence_transformers.SentenceTransformer(modules=[TextModule(retriever, role)], device="cpu")


def test_encode_gives_our_vectors(trained: Path) -> None:
    retriever = nrccr.load(trained, overrides=["reading=corrected"])
    model = wrapped(retriever)
    found = model.encode(CAPTIONS, batch_size=4)
    np.testing.assert_allclose(found, retriever.encode_text(CAPTIONS), atol=1e-6)
    assert model.get_embedding_dimension() == 24 and model.max_seq_length == retriever.tokenizer.max_tokens
    np.testing.assert_allclose(
        model.similarity(found[:2], found).numpy(), found[:2] @ found.T, atol=1e-6, err_msg="cosines of unit vectors"
    )
    source = wrapped(retriever, "source").encode(ENGLISH)
    np.testing.assert_allclose(source, retriever.encode_text(ENGLISH, role="source"), atol=1e-6)
    assert np.abs(source - model.encode(ENGLISH)).max() > 1e-3, "English is cleaned as source alone"
    prompted = model.encode(["狗"], prompt="人")
    np.testing.assert_allclose(prompted, retriever.encode_text(["人狗"]), atol=1e-6)


def test_the_released_reading_agrees_within_a_batch(trained: Path) -> None:
    retriever = nrccr.load(trained, overrides=["evaluation.batch_size=8"])
    np.testing.assert_allclose(wrapped(retriever).encode(CAPTIONS), retriever.encode_text(CAPTIONS), atol=1e-6)


def test_what_it_saves_is_read_again(trained: Path, tmp_path: Path) -> None:
    from nrccr.integrations.sentence_transformers import TextModule

    model = wrapped(nrccr.load(trained, overrides=["reading=corrected"]), "source")
    expected = model.encode(ENGLISH)
    model.save_pretrained(str(tmp_path / "st"), create_model_card=False)
    with pytest.raises(ValueError, match="trust_remote_code"):
        sentence_transformers.SentenceTransformer(str(tmp_path / "st"), device="cpu")
    (tmp_path / "st" / "0_TextModule").rename(tmp_path / "module")
    again = TextModule.load(str(tmp_path / "module"))
    assert again.role == "source"
    read = sentence_transformers.SentenceTransformer(modules=[again], device="cpu")
    np.testing.assert_allclose(read.encode(ENGLISH), expected, atol=1e-6)
    assert nrccr.load(tmp_path / "module" / "model").encode_video([np.ones((3, 16))]).shape == (1, 24)


def test_it_moves_and_cuts_as_it_is_told(trained: Path, tmp_path: Path) -> None:
    retriever = nrccr.load(trained, overrides=["reading=corrected"])
    model = wrapped(retriever)
    module = model[0]
    whole = model.encode(CAPTIONS)
    model.max_seq_length = 4
    assert model.tokenize(["狗跑人唱"])["input_ids"].shape == (1, 4) and model.max_seq_length == 4
    assert np.abs(model.encode(CAPTIONS) - whole).max() > 1e-3
    module.save(str(tmp_path / "cut"))
    again = type(module).load(str(tmp_path / "cut"))
    assert again.max_seq_length == 4 and again.longest == module.longest > 4
    settings = tmp_path / "cut" / "config.json"
    settings.write_text(settings.read_text("utf-8").replace('"max_seq_length": 4', '"max_seq_length": "x"'), "utf-8")
    with pytest.raises(UserError, match="max_seq_length=x: give 3 to"):
        type(module).load(str(tmp_path / "cut"))
    for wrong in (2, module.longest + 1, 4.5, None):
        with pytest.raises(ValueError, match="give 3 to"):
            model.max_seq_length = wrong
    np.testing.assert_allclose(retriever.encode_text(CAPTIONS), whole, atol=1e-6)  # it cuts as before
    model.to("meta")
    assert module.retriever.device.type == "meta" and module.retriever.network is module.network


def test_an_unknown_role_is_refused(trained: Path) -> None:
    with pytest.raises(UserError, match="role='back'"):
        wrapped(nrccr.load(trained), "back")
