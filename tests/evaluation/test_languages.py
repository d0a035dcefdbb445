"""Several languages together: the mean of their metrics, the variance of ranks, a whole split of C2KD."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nrccr.data.languages import locate_languages
from nrccr.data.tokens import CaptionTokenizer
from nrccr.evaluation.blocks import DenseScores, Transposed
from nrccr.evaluation.compare import DIRECTIONS, common_ranks, rank_variance, read_outcome
from nrccr.evaluation.evaluate import evaluate
from nrccr.evaluation.languages import mean_metrics, variance_across, write_together
from nrccr.evaluation.outputs import TOGETHER
from nrccr.evaluation.ranked import Scored
from nrccr.evaluation.rule import Rule
from nrccr.models.backbone import backbone_config, build_backbone
from nrccr.systems.c2kd.data import LanguageReader
from nrccr.systems.c2kd.network import C2KD

CPU = torch.device("cpu")


def test_variance_across_languages() -> None:
    ranks = {"en": np.array([1.0, 3.0, 9.0, 2.0]), "de": np.array([5.0, 1.0, 4.0, 8.0])}
    items = {"en": np.array([0, 1, 2, 2]), "de": np.array([1, 0, 2, 3])}
    # Item 0: ranks 1 and 1. Item 1: ranks 3 and 5. Item 2 has two captions in English, item 3 none.
    assert variance_across(ranks, items) == (pytest.approx((0 + 1) / 2), 2)
    assert variance_across({"en": ranks["en"]}, {"en": items["en"]}) == (None, 0)  # nothing to lie apart
    apart = {"en": np.array([0, 0, 1, 1]), "de": items["de"]}
    assert variance_across(ranks, apart) == (None, 0)


def test_the_mean_over_languages() -> None:
    metrics = {}
    for seed, name in enumerate(("en", "de", "fr"), start=1):
        scores = DenseScores(np.random.default_rng(seed).integers(-4, 5, (9, 9)))
        metrics[name] = Scored.of((scores, Transposed(scores)), np.arange(9)).ranked().language_metrics()
    mean = mean_metrics(metrics)
    for name in ("R@1", "MedR", "mAP", "geometric_mean"):
        wanted = sum(own["text_to_visual"][name] for own in metrics.values()) / 3
        assert mean["text_to_visual"][name] == pytest.approx(wanted)
    assert mean["SumR"] == pytest.approx(sum(own["SumR"] for own in metrics.values()) / 3)


def test_languages_without_a_common_query_have_no_variance(tmp_path: Path) -> None:
    metrics: dict[str, dict[str, Any]] = {}
    for language in ("en", "de"):
        (tmp_path / language).mkdir()
        (tmp_path / language / "ranks.tsv").write_text(f"query\trank\nof {language}#{language}#0\t1\n")
        (tmp_path / language / "ranks_visual.tsv").write_text(f"item\trank\tprecision\nof {language}\t1\t1\n")
        directions = {direction: {"R@1": 100.0} for direction in DIRECTIONS}
        metrics[language] = {"collection": "x", "split": "test", "SumR": 300.0, **directions}
    made = write_together(tmp_path, metrics, [tmp_path / language for language in metrics])
    assert (made["rank_variance"], made["rank_variance_queries"], made["mean"]["SumR"]) == (None, 0, 300)
    assert json.loads((tmp_path / TOGETHER).read_text()) == made


def test_a_whole_split(
    tiny_bert: Path, tiny_languages: Path, tmp_path: Path, brute: Callable[..., dict[str, Any]]
) -> None:
    torch.manual_seed(0)
    network = C2KD(
        build_backbone(backbone_config(str(tiny_bert), {}), pretrained=None), 16, 12, width=8, heads=2, layers=1
    )
    reader = LanguageReader.open(locate_languages(tiny_languages, "multi_msrvtt"), 30, "first")
    split = reader.split("test", CaptionTokenizer(str(tiny_bert), 40))
    made = evaluate(network, split, Rule(3, CPU), tmp_path, {"collection": "x"})
    metrics: dict[str, Any] = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics == made and metrics["items"] == 8 and metrics["collection"] == "x" and metrics["captions_averaged"]
    assert {language: own["queries"] for language, own in metrics["languages"].items()} == {"en": 8, "de": 8, "zh": 7}
    visual = network.embed_visual(split.visuals.batch(range(8)))
    for language, own in metrics["languages"].items():
        query = split.queries[language]
        scores = network.embed_text(query.tokens.batch(range(len(query.ids)))) @ visual.T
        for ties, found in (("index", own), ("optimistic", own["optimistic"])):
            for direction, values in brute(scores.numpy(), query.item_of, ties).items():
                assert found[direction] == pytest.approx(values)
    validated = evaluate(network, split, Rule(5, CPU))
    assert validated["mean"]["text_to_visual"] == pytest.approx(metrics["mean"]["text_to_visual"])
    # The files of a language are those of a test, which `nrccr compare` reads.
    outcomes = [read_outcome(tmp_path / language, "test") for language in ("en", "de", "zh")]
    assert len(outcomes[2].query_ids) == len(outcomes[2].item_ids) == 7
    assert metrics["rank_variance_items"] == 7
    assert metrics["rank_variance"] == pytest.approx(rank_variance(common_ranks(outcomes)))
