"""Encoding, scoring and the numbers made from both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nrccr.config.schema import Config
from nrccr.data.tokens import CaptionTokenizer
from nrccr.evaluation.encode import encode_texts, encode_videos
from nrccr.evaluation.evaluate import both_directions, encode, score, validate
from nrccr.evaluation.score import mix, normalise_minmax
from nrccr.models.backbone import backbone_config, build_backbone
from nrccr.systems.nrccr.data import Queries, Reader
from nrccr.systems.nrccr.network import NRCCR, build_nrccr
from nrccr.systems.settings import load_config

CPU = torch.device("cpu")


def made(config_path: Path, root: Path, *overrides: str) -> tuple[Config, NRCCR, Queries]:
    config = load_config(config_path, overrides)
    reader = Reader.open(config, root, CaptionTokenizer(config.text.model, config.text.max_tokens))
    torch.manual_seed(0)
    backbone = build_backbone(backbone_config(config.text.model, config.text.backbone), pretrained=None)
    return config, build_nrccr(config, backbone, reader.features.width).eval(), reader.queries("test")


def test_corrected_embeddings_are_the_same_in_any_batch(tiny_config: Path, tiny_collection: Path) -> None:
    _, network, queries = made(tiny_config, tiny_collection, "reading=corrected")
    one = torch.cat([network.embed_text(queries.target.batch([i])) for i in range(len(queries.query_ids))])
    for size in (1, 3, 100):
        torch.testing.assert_close(encode_texts(network, queries.target, size, CPU), one, atol=1e-6, rtol=0)
    videos = torch.cat([network.embed_visual(queries.videos.batch([i])) for i in range(len(queries.videos))])
    torch.testing.assert_close(encode_videos(network, queries.videos, 3, CPU), videos, atol=1e-6, rtol=0)


def test_released_batches_are_cut_in_file_order(tiny_config: Path, tiny_collection: Path) -> None:
    _, network, queries = made(tiny_config, tiny_collection)
    count = len(queries.query_ids)
    batches = [range(start, min(start + 5, count)) for start in range(0, count, 5)]
    byhand = torch.cat([network.embed_text(queries.target.batch(batch)) for batch in batches])
    assert torch.equal(encode_texts(network, queries.target, 5, CPU), byhand)
    assert not torch.allclose(encode_texts(network, queries.target, 1, CPU), byhand, atol=1e-5)  # padding counts


def test_minmax_and_mix_by_hand() -> None:
    scores = torch.tensor([[0.2, -0.3], [0.7, 0.1]])
    torch.testing.assert_close(normalise_minmax(scores), torch.tensor([[0.5, 0.0], [1.0, 0.4]]))
    assert normalise_minmax(torch.full((2, 2), 3.0)).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    mixed = mix(torch.tensor([[1.0]]), torch.tensor([[2.0]]), target_weight=0.8)
    assert mixed.item() == pytest.approx(0.8 * 2 + 0.2 * 1)


def test_directions_by_hand() -> None:
    # Captions 0 and 1 describe item 0, caption 2 item 1.
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.3], [0.8, 0.4]])
    metrics = both_directions(scores, np.array([0, 0, 1]))
    assert metrics["text_to_visual"]["R@1"] == pytest.approx(100 / 3)
    assert metrics["text_to_visual"]["MeanR"] == pytest.approx(5 / 3)
    assert metrics["visual_to_text"]["R@1"] == 100.0  # items 0 and 1 both find a caption of theirs first
    first = (1 / 1 + 2 / 3) / 2  # item 0: captions 0, 2, 1
    assert metrics["visual_to_text"]["mAP"] == pytest.approx(100 * (first + 1.0) / 2)
    recalls = [metrics[d][f"R@{k}"] for d in ("text_to_visual", "visual_to_text") for k in (1, 5, 10)]
    assert metrics["SumR"] == pytest.approx(sum(recalls))


def test_validation_uses_the_reading(tiny_config: Path, tiny_collection: Path) -> None:
    config, network, queries = made(tiny_config, tiny_collection)
    embeddings = encode(network, queries, config.evaluation.batch_size, CPU)
    raw = score(embeddings, "raw")
    prepared = score(embeddings, "minmax")
    torch.testing.assert_close(prepared[0], normalise_minmax(raw[0]))
    for kind, (source, target) in (("raw", raw), ("minmax", prepared)):
        metrics = validate(network, queries, batch_size=5, target_weight=0.3, kind=kind, device=CPU)  # type: ignore[arg-type]
        assert metrics == both_directions(0.3 * target + 0.7 * source, queries.item_of)
