"""The golden checkpoints, read the way a user would read them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nrccr.systems.loading import load_retriever
from nrccr.systems.retriever import Retriever

WriteBert = Callable[[dict[str, Any]], Path]


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    """Folder of the golden video collection and checkpoint."""
    return shared / "golden" / "nrccr_video"


@pytest.fixture
def published(golden: Path) -> Retriever:
    """The golden video checkpoint."""
    return load_retriever(golden / "runs_0" / "model_best.pth.tar", [f"text.model={golden / 'bert'}"], "cpu")


@pytest.fixture(scope="session")
def write_bert(tmp_path_factory: pytest.TempPathFactory) -> WriteBert:
    """A function of sizes: the folder of a BERT that has them; its vocabulary is never used."""

    def write(sizes: dict[str, Any]) -> Path:
        folder = tmp_path_factory.mktemp("golden_bert")
        (folder / "config.json").write_text(json.dumps({"model_type": "bert"} | sizes))
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(sizes["vocab_size"] - 5))]
        (folder / "vocab.txt").write_text("\n".join(words) + "\n")
        return folder

    return write
