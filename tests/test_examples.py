"""The examples in the docstrings where a user starts: each is executed as it is written."""

from __future__ import annotations

import doctest
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import nrccr
from nrccr.evaluation.metrics import retrieval_metrics
from nrccr.evaluation.normalise import normalise
from nrccr.systems.retriever import Retriever

Command = Callable[..., Any]


def execute(documented: Callable[..., Any]) -> None:
    """Run a docstring's example, with nothing but what it imports itself; it must be there and print what it says."""
    (example,) = doctest.DocTestFinder(recurse=False).find(documented, documented.__qualname__, module=False, globs={})
    assert example.examples, f"{documented.__qualname__} has no example"
    printed: list[str] = []
    outcome = doctest.DocTestRunner(verbose=False).run(example, out=printed.append)
    assert outcome.failed == 0, "".join(printed)


@pytest.mark.parametrize("documented", [retrieval_metrics, normalise])
def test_examples_of_functions(documented: Callable[..., Any]) -> None:
    execute(documented)


def test_examples_of_a_model_of_videos(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.move(trained, tmp_path / "runs" / "vatex-s0")
    monkeypatch.chdir(tmp_path)
    for documented in (nrccr.load, Retriever.encode_text, Retriever.encode_video, Retriever.save_pretrained):
        execute(documented)


@pytest.mark.parametrize("module", ["sentence_transformers", "mteb"])
def test_examples_of_other_packages(
    module: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(module, reason=f"needs the extra {module}")
    shutil.move(trained, tmp_path / "runs" / "vatex-s0")
    monkeypatch.chdir(tmp_path)
    ours = import_module(f"nrccr.integrations.{module}")
    execute(ours.TextModule if module == "sentence_transformers" else ours.Encoder)


def test_example_of_a_model_of_images(image_run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = image_run("train", "--out", tmp_path / "runs" / "multi30k-s0", "train.epochs=1")
    assert done.code == 0, done.err
    execute(Retriever.encode_image)


def test_an_example_that_is_wrong_or_missing_fails() -> None:
    def wrong() -> None:
        """>>> 1 + 1
        3
        """

    def without() -> None:
        """Nothing to run."""

    for documented in (wrong, without):
        with pytest.raises(AssertionError):
            execute(documented)
