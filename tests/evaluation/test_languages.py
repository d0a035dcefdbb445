"""Evaluation by language against a brute-force twin and the golden metrics: ties, averages, missing captions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nrccr.data.languages import locate_languages
from nrccr.data.tokens import CaptionTokenizer, TokenTable
from nrccr.errors import UserError
from nrccr.evaluation.blocks import DenseScores, Transposed
from nrccr.evaluation.compare import common_ranks, rank_variance, read_outcome
from nrccr.evaluation.languages import (
    Asked,
    Scored,
    averaged,
    encode_languages,
    evaluate_languages,
    geometric_mean,
    language_metrics,
    mean_metrics,
    score_language,
    validate_by_language,
    variance_across,
)
from nrccr.evaluation.metrics import Ties
from nrccr.models.backbone import backbone_config, build_backbone
from nrccr.systems.c2kd.data import LanguageQuery, LanguageReader
from nrccr.systems.c2kd.network import C2KD

CPU = torch.device("cpu")


def whole_numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    """Vectors whose products are exact, with many ties."""
    return torch.from_numpy(np.random.default_rng(seed).integers(-1, 2, shape)).float()


def brute(scores: np.ndarray, item_of: np.ndarray, ties: Ties) -> dict[str, dict[str, float]]:
    """Both directions by sorting rows in Python; items without a query rank nothing."""

    def direction(matrix: np.ndarray, relevant: list[list[int]]) -> dict[str, float]:
        best, precisions = [], []
        for row, wanted in zip(matrix, relevant, strict=True):
            if ties == "index":
                order = sorted(range(len(row)), key=lambda column: (-row[column], column))
                places = sorted(order.index(column) + 1 for column in wanted)
                precisions.append(np.mean([(n + 1) / place for n, place in enumerate(places)]))
            else:
                ahead = {column: 1 + sum(other > row[column] for other in row) for column in wanted}
                among = {column: 1 + sum(row[other] > row[column] for other in wanted) for column in wanted}
                places = list(ahead.values())
                precisions.append(np.mean([among[column] / ahead[column] for column in wanted]))
            best.append(min(places))
        recalls = {f"R@{k}": 100 * float(np.mean([place <= k for place in best])) for k in (1, 5, 10)}
        mean = float(np.prod(list(recalls.values())) ** (1 / 3))
        return recalls | {
            "MedR": float(np.median(best)), "MeanR": float(np.mean(best)), "mAP": 100 * float(np.mean(precisions)),
            "geometric_mean": mean,
        }  # fmt: skip

    asking = sorted(set(item_of.tolist()))
    captions_of = [[query for query, item in enumerate(item_of) if item == own] for own in asking]
    return {
        "text_to_visual": direction(scores, [[item] for item in item_of.tolist()]),
        "visual_to_text": direction(scores.T[asking], captions_of),
    }


@pytest.mark.parametrize("ties", ["index", "optimistic"])
@pytest.mark.parametrize("memory_mb", [2000.0, 16.0])
def test_against_a_brute_force_twin(ties: Ties, memory_mb: float) -> None:
    queries, items = (23, 11) if memory_mb > 16 else (700, 900)
    texts, visual = whole_numbers(queries, 6), whole_numbers(items, 6, seed=1)
    item_of = np.random.default_rng(2).integers(0, items - 2, queries)
    scored = score_language(Asked(texts, [""] * queries, item_of), visual, memory_mb)
    assert scored.asking.tolist() == sorted(set(item_of.tolist()))
    found = language_metrics(scored.ranked(ties, memory_mb))
    wanted = brute((texts @ visual.T).numpy(), item_of, ties)
    for direction, values in wanted.items():
        assert found[direction] == pytest.approx(values), direction
    recalls = [found[direction][f"R@{k}"] for direction in wanted for k in (1, 5, 10)]
    assert found["SumR"] == pytest.approx(sum(recalls))


def test_golden_metrics(shared: Path) -> None:
    folder = shared / "golden" / "c2kd"
    wanted = json.loads((folder / "expected.json").read_text())["loss"]["metrics_optimistic"]
    with np.load(folder / "inputs.npz") as arrays:
        scores = torch.from_numpy(arrays["sims_for_metrics"])
    item_of, forward = np.arange(20), DenseScores(scores)
    scored = Scored(forward, Transposed(forward), item_of, item_of)
    found = language_metrics(scored.ranked("optimistic"))["text_to_visual"]
    names = {"R1": "R@1", "R5": "R@5", "R10": "R@10", "MedR": "MedR", "MeanR": "MeanR"}
    for theirs, ours in (names | {"geometric_mean_R1-R5-R10": "geometric_mean"}).items():
        assert found[ours] == pytest.approx(wanted[theirs], rel=1e-9)
    assert found != language_metrics(scored.ranked("index"))["text_to_visual"]
    assert geometric_mean({"R@1": 0.0, "R@5": 50.0, "R@10": 50.0}) == 0


def test_captions_of_an_item_are_averaged_before_unit_length() -> None:
    vectors = torch.tensor([[3.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    query = LanguageQuery(TokenTable([[1]] * 4, 0), ["b#de#0", "a#de#0", "b#de#1", "b#de#2"], np.array([5, 2, 5, 5]))
    found = averaged(query, vectors)
    assert found.ids == ["a#de#0", "b#de#0"] and found.item_of.tolist() == [2, 5]
    mean = torch.tensor([4 / 3, 1 / 3])
    torch.testing.assert_close(found.vectors, torch.stack([torch.tensor([0.0, 1.0]), mean / mean.norm()]))


def test_variance_across_languages() -> None:
    ranks = {"en": np.array([1.0, 3.0, 9.0, 2.0]), "de": np.array([5.0, 1.0, 4.0, 8.0])}
    items = {"en": np.array([0, 1, 2, 2]), "de": np.array([1, 0, 2, 3])}
    # Item 0: ranks 1 and 1. Item 1: ranks 3 and 5. Item 2 has two captions in English, item 3 none.
    assert variance_across(ranks, items) == (pytest.approx((0 + 1) / 2), 2)
    assert variance_across({"en": ranks["en"]}, {"en": items["en"]}) == (None, 0)  # nothing to lie apart
    apart = {"en": np.array([0, 0, 1, 1]), "de": items["de"]}
    assert variance_across(ranks, apart) == (None, 0)


def test_the_mean_over_languages() -> None:
    visual, metrics = whole_numbers(9, 4), {}
    for seed, name in enumerate(("en", "de", "fr"), start=1):
        asked = Asked(whole_numbers(9, 4, seed=seed), [""] * 9, np.arange(9))
        metrics[name] = language_metrics(score_language(asked, visual).ranked("index"))
    mean = mean_metrics(metrics)
    for name in ("R@1", "MedR", "mAP", "geometric_mean"):
        wanted = sum(own["text_to_visual"][name] for own in metrics.values()) / 3
        assert mean["text_to_visual"][name] == pytest.approx(wanted)
    assert mean["SumR"] == pytest.approx(sum(own["SumR"] for own in metrics.values()) / 3)


@pytest.fixture
def network(tiny_bert: Path) -> C2KD:
    torch.manual_seed(0)
    backbone = build_backbone(backbone_config(str(tiny_bert), {}), pretrained=None)
    return C2KD(backbone, 16, 12, width=8, heads=2, layers=1)


@pytest.fixture
def reader(tiny_languages: Path) -> LanguageReader:
    return LanguageReader.open(locate_languages(tiny_languages, "multi_msrvtt"), 30, "first")


def test_a_whole_split(network: C2KD, reader: LanguageReader, tiny_bert: Path, tmp_path: Path) -> None:
    queries = reader.queries("test", CaptionTokenizer(str(tiny_bert), 40))
    made = evaluate_languages(network, queries, batch_size=3, device=CPU, header={"collection": "x"}, folder=tmp_path)
    metrics: dict[str, Any] = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics == made and metrics["items"] == 8 and metrics["collection"] == "x" and metrics["captions_averaged"]
    assert {language: own["queries"] for language, own in metrics["languages"].items()} == {"en": 8, "de": 8, "zh": 7}
    visual = network.embed_visual(queries.videos.batch(range(8)))
    for language, own in metrics["languages"].items():
        query = queries.queries[language]
        scores = network.embed_text(query.tokens.batch(range(len(query.ids)))) @ visual.T
        for ties, found in (("index", own), ("optimistic", own["optimistic"])):
            for direction, values in brute(scores.numpy(), query.item_of, ties).items():
                assert found[direction] == pytest.approx(values)
    score, validated = validate_by_language(network, queries, batch_size=5, device=CPU)
    assert validated["mean"]["text_to_visual"] == pytest.approx(metrics["mean"]["text_to_visual"])
    assert score == pytest.approx(sum(metrics["mean"]["text_to_visual"][f"R@{k}"] for k in (1, 5, 10)))
    # The files of a language are those of a test, which `nrccr compare` reads.
    outcomes = [read_outcome(tmp_path / language, "test") for language in ("en", "de", "zh")]
    assert len(outcomes[2].query_ids) == len(outcomes[2].item_ids) == 7
    assert metrics["rank_variance_items"] == 7
    assert metrics["rank_variance"] == pytest.approx(rank_variance(common_ranks(outcomes)))


def test_averaging_is_the_layouts(network: C2KD, reader: LanguageReader, tiny_bert: Path) -> None:
    queries = reader.queries("test", CaptionTokenizer(str(tiny_bert), 40))
    asked, visual = encode_languages(network, queries, 3, CPU)
    torch.testing.assert_close(asked["de"].vectors.norm(dim=1), torch.ones(8))
    torch.testing.assert_close(visual.norm(dim=1), torch.ones(8))
    query = queries.queries["de"]
    torch.testing.assert_close(asked["de"].vectors, network.embed_text(query.tokens.batch(range(8))))


def test_nan_is_told_with_its_caption(network: C2KD, reader: LanguageReader, tiny_bert: Path) -> None:
    network.text.project.linear.bias.data[0] = torch.nan
    queries = reader.queries("val", CaptionTokenizer(str(tiny_bert), 40))
    with pytest.raises(UserError, match="the embedding of val0#en#0 and 7 others is not finite"):
        validate_by_language(network, queries, batch_size=4, device=CPU)
