"""The golden C2KD checkpoint: embeddings, distillation, contrast, and metrics with optimistic ties."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nrccr.data.batch import PooledTextBatch, VideoBatch
from nrccr.evaluation.metrics import ranks, retrieval_metrics
from nrccr.losses.similarity import similarity
from nrccr.systems.c2kd.batch import MultilingualBatch
from nrccr.systems.c2kd.network import C2KD
from nrccr.systems.c2kd.objective import C2KDObjective
from nrccr.systems.c2kd.settings import C2KDSection
from nrccr.systems.loading import load_retriever

LANGUAGES = ("en", "de", "zh")


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    return shared / "golden" / "c2kd"


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "expected.json").read_text())
    return loaded


@pytest.fixture(scope="module")
def inputs(folder: Path) -> dict[str, Tensor]:
    with np.load(folder / "inputs.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.fixture(scope="module")
def embeddings(folder: Path) -> dict[str, Tensor]:
    """Published embeddings, before they are brought to unit length."""
    with np.load(folder / "expected.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.fixture(scope="module")
def network(folder: Path, expected: dict[str, Any], write_bert: Callable[[dict[str, Any]], Path]) -> C2KD:
    bert = write_bert(expected["bert"])
    model = load_retriever(folder / "latest_model.pth", [f"text.model={bert}", f"c2kd.labse={bert}"], "cpu")
    assert isinstance(model.network, C2KD)
    return model.network


def texts(inputs: dict[str, Tensor], language: str) -> PooledTextBatch:
    mask = inputs[f"{language}_attention_mask"]  # the checkpoint is a LaBSE student: its mask is its own
    return PooledTextBatch(inputs[f"{language}_input_ids"], mask, mask)


def videos(inputs: dict[str, Tensor]) -> VideoBatch:
    return VideoBatch(inputs["video"], inputs["video_mask"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_texts(network: C2KD, inputs: dict[str, Tensor], embeddings: dict[str, Tensor], language: str) -> None:
    wanted = embeddings[f"text_{language}"]
    batch = texts(inputs, language)
    with torch.no_grad():
        torch.testing.assert_close(network.text(batch), wanted, atol=1e-5, rtol=0)
    found = network.embed_text(batch)
    torch.testing.assert_close(found, functional.normalize(wanted, dim=1), atol=1e-5, rtol=0)


def test_videos_and_the_empty_one(network: C2KD, inputs: dict[str, Tensor], embeddings: dict[str, Tensor]) -> None:
    assert inputs["video_mask"][4].sum() == 0
    with torch.no_grad():
        torch.testing.assert_close(network.video(videos(inputs)), embeddings["video"], atol=1e-5, rtol=0)
    found = network.embed_visual(videos(inputs))
    torch.testing.assert_close(found, functional.normalize(embeddings["video"], dim=1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("published", "ours"), [("code_max", "minimum"), ("code_min", "maximum"), ("mean", "mean")])
def test_distillation_by_its_true_name(
    inputs: dict[str, Tensor],
    embeddings: dict[str, Tensor],
    expected: dict[str, Any],
    published: str,
    ours: Any,
) -> None:
    german, visual = (functional.normalize(embeddings[name], dim=1) for name in ("text_de", "video"))
    objective = C2KDObjective(C2KDSection(pooling=ours, distill_temperature=0.1, balance=0.0), count=3)
    (pooled,), student = objective.targets(inputs["teachers"]), similarity(german, visual)
    wanted = expected["loss"][published]
    found = {"row": objective.distill.rows(pooled, student), "column": objective.distill.rows(pooled.T, student.T)}
    assert {name: value.item() for name, value in found.items()} == pytest.approx(wanted, rel=1e-4)
    assert objective.distilled(inputs["teachers"], student).item() == pytest.approx(sum(wanted.values()), rel=1e-4)


def test_the_whole_objective_from_the_checkpoint(
    network: C2KD, inputs: dict[str, Tensor], expected: dict[str, Any]
) -> None:
    wanted = expected["loss"]
    every = torch.arange(6)
    batch = MultilingualBatch.of(
        {language: texts(inputs, language) for language in LANGUAGES}, dict.fromkeys(LANGUAGES, every), videos(inputs)
    )
    objective = C2KDObjective(C2KDSection(temperature=wanted["temperature"], balance=0.3), count=3)
    with torch.no_grad():
        losses = {name: value.item() for name, value in objective(network(batch), inputs["teachers"]).items()}
    contrast = {language: wanted[f"contrastive_{language}"] for language in ("en", "de")}
    assert losses["english_loss"] == pytest.approx(0.3 * contrast["en"], rel=1e-4)
    assert losses["contrastive_en_loss"] == pytest.approx(0.3 * contrast["en"], rel=1e-4)
    assert losses["contrastive_de_loss"] == pytest.approx(0.3 * contrast["de"], rel=1e-4)
    assert losses["distill_de_loss"] == pytest.approx(0.7 * sum(wanted["code_min"].values()), rel=1e-4)


def test_metrics(inputs: dict[str, Tensor], expected: dict[str, Any]) -> None:
    scores, own = inputs["sims_for_metrics"], list(range(20))
    found = retrieval_metrics(scores, own, "optimistic")
    wanted = expected["loss"]["metrics_optimistic"]
    for theirs, ours in (("R1", "R@1"), ("R5", "R@5"), ("R10", "R@10"), ("MedR", "MedR"), ("MeanR", "MeanR")):
        assert found[ours] == pytest.approx(wanted[theirs], rel=1e-9)
    recalls = [100 * float(np.mean(ranks(scores, own, "optimistic") <= k)) for k in (1, 5, 10)]
    assert np.prod(recalls) ** (1 / 3) == pytest.approx(wanted["geometric_mean_R1-R5-R10"], rel=1e-9)
