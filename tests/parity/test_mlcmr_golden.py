"""MLCMR's golden checkpoint: embeddings in evaluation and in training mode, both total losses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nrccr.data.batch import TextBatch, VideoBatch, ViewBatch
from nrccr.systems.loading import load_retriever
from nrccr.systems.mlcmr.network import MLCMR
from nrccr.systems.mlcmr.objective import MLCMRObjective, Scenario
from nrccr.training.task import total

TRAINED = ["video", "video_masked", "source", "source_masked", "target", "target_masked"]


@pytest.fixture
def golden(shared: Path) -> Path:
    return shared / "golden" / "mlcmr"


@pytest.fixture
def expected(golden: Path) -> dict[str, Any]:
    return json.loads((golden / "expected.json").read_text())


@pytest.fixture
def arrays(golden: Path) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in np.load(golden / "inputs.npz").items()}


@pytest.fixture
def embeddings(golden: Path) -> dict[str, Any]:
    return dict(np.load(golden / "expected.npz"))


@pytest.fixture
def network(golden: Path, expected: dict[str, Any], write_bert: Callable[[dict[str, Any]], Path]) -> MLCMR:
    path = golden / "mlcmr" / "model_best.pth.tar"
    model = load_retriever(path, [f"text.model={write_bert(expected['bert'])}"], "cpu")
    assert isinstance(model.network, MLCMR)
    return model.network


@pytest.fixture
def batch(arrays: dict[str, Tensor]) -> ViewBatch:
    a = arrays
    return ViewBatch(
        source=TextBatch(a["source_ids"], a["source_mask"]),
        target=TextBatch(a["target_ids"], a["target_mask"]),
        visual=VideoBatch(a["frames"], a["frame_mask"], a["frame_mean"]),
        masked_source=TextBatch(a["source_masked_ids"], a["source_mask"]),
        masked_target=TextBatch(a["target_masked_ids"], a["target_mask"]),
        masked_visual=VideoBatch(a["masked_frames"], a["masked_frame_mask"], a["masked_frame_mean"]),
        items=torch.arange(len(a["frames"])),
    )


@pytest.fixture
def training(network: MLCMR) -> MLCMR:
    """Batch normalisation in training mode, no dropout."""
    network.train()
    network.text.backbone.eval()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return network


def test_evaluation(network: MLCMR, batch: ViewBatch, embeddings: dict[str, Any]) -> None:
    assert batch.target is not None
    found = {
        "video": network.embed_visual(batch.visual),
        "source": network.embed_text(batch.source),
        "target": network.embed_text(batch.target),
    }
    for name, vectors in found.items():
        np.testing.assert_allclose(vectors.numpy(), embeddings[name], atol=1e-5, rtol=0, err_msg=name)


def test_training_mode(training: MLCMR, batch: ViewBatch, embeddings: dict[str, Any]) -> None:
    with torch.no_grad():
        out = training(batch)
    found = [out.visual, out.masked_visual, out.source, out.masked_source, out.target, out.masked_target]
    for name, vectors in zip(TRAINED, found, strict=True):
        wanted = embeddings[f"train_{name}"]
        np.testing.assert_allclose(vectors.numpy(), wanted, atol=1e-4, rtol=0, err_msg=name)


@pytest.mark.parametrize("scenario", ["parallel", "translate", "unparallel"])
def test_total_losses(training: MLCMR, batch: ViewBatch, expected: dict[str, Any], scenario: Scenario) -> None:
    if scenario == "unparallel":
        batch = ViewBatch(batch.source, None, batch.visual, batch.masked_source, None, batch.masked_visual, batch.items)
    losses = MLCMRObjective(scenario)(training(batch))
    wanted = expected["loss_unparallel" if scenario == "unparallel" else "loss_parallel"]
    assert total(losses).item() == pytest.approx(wanted, rel=1e-4)
