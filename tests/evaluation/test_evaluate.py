"""The one evaluation, of an encoder made by hand against a brute-force twin, in each of its uses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from nrccr.config.choices import ScoreKind
from nrccr.data.queries import Split, among_texts
from nrccr.errors import UserError
from nrccr.evaluation.evaluate import SWEEP, evaluate
from nrccr.evaluation.rule import Rule

Array = npt.NDArray[np.float32]
Brute = Callable[..., dict[str, dict[str, float]]]
MakeSplit = Callable[..., Split]
CPU = torch.device("cpu")
DIRECTIONS = ("text_to_visual", "visual_to_text")


def images_of(split: Split) -> Array:
    return split.visuals.batch(range(len(split.gallery))).pixels_or_vectors.numpy()  # type: ignore[union-attr]


def mixed_scores(toy: Any, split: Split, kind: ScoreKind, target_weight: float) -> Array:
    """Scores of the only language, in numpy: (Q, N)."""
    sides = []
    assert split.headline.translations is not None
    for captions in (split.headline.translations, split.headline.tokens):
        cosines = toy.alone(captions) @ images_of(split).T
        sides.append((cosines - cosines.min()) / np.ptp(cosines) if kind == "minmax" else cosines)
    return (1 - target_weight) * sides[0] + target_weight * sides[1]


def assert_metrics(found: dict[str, Any], wanted: dict[str, dict[str, float]], geometric: bool = False) -> None:
    """Both directions, and SumR, the sum of their recalls."""
    for name, values in wanted.items():
        own = {key: value for key, value in values.items() if geometric or key != "geometric_mean"}
        assert found[name] == pytest.approx(own), name
    recalls = [values[f"R@{k}"] for values in wanted.values() for k in (1, 5, 10)]
    assert found["SumR"] == pytest.approx(sum(recalls))
    if not geometric:
        assert found["mean_recall"] == pytest.approx(sum(recalls) / 6)


@pytest.mark.parametrize("kind", ["raw", "minmax"])
def test_one_language_with_translations(
    kind: ScoreKind, toy: Any, toy_split: MakeSplit, brute: Brute, tmp_path: Path
) -> None:
    split = toy_split({"zh": 43}, 14, translated=True)
    rule = Rule(7, CPU, 0.7, kind, save_scores=True, by_length=True)
    folder = tmp_path / "test"
    made = evaluate(toy, split, rule, folder, {"collection": "toys"})
    assert json.loads((folder / "metrics.json").read_text()) == made and next(iter(made)) == "collection"
    assert (made["queries"], made["items"], made["target_weight"], made["batch_size"]) == (43, 14, 0.7, 7)
    assert made["normalisation"] == {"method": "none", "scores": kind}
    item_of = split.headline.item_of
    scores = mixed_scores(toy, split, kind, 0.7)
    assert_metrics(made, brute(scores, item_of))
    assert [entry["source_weight"] for entry in made["sweep"]] == list(SWEEP)
    for entry in made["sweep"]:
        assert_metrics(entry, brute(mixed_scores(toy, split, kind, 1 - entry["source_weight"]), item_of))
    assert sum(entry["queries"] for entry in made["by_length"]) == 43

    with np.load(folder / "scores.npz") as arrays:
        np.testing.assert_allclose(arrays["scores"], scores, atol=1e-5)
        assert arrays["query_ids"].tolist() == split.headline.ids
        assert arrays["item_ids"].tolist() == split.visuals.ids
        np.testing.assert_allclose(arrays["text_target"], toy.alone(split.headline.tokens), atol=1e-5)
        np.testing.assert_array_equal(arrays["visual"], images_of(split))
    order = np.argsort(-scores, axis=1, kind="stable")
    lines = (folder / "ranks.tsv").read_text().splitlines()
    assert lines[0] == "query\trank\ttop" and len(lines) == 44
    for query, line in enumerate(lines[1:]):
        rank = 1 + order[query].tolist().index(item_of[query])
        assert line == f"{split.headline.ids[query]}\t{rank}\t{' '.join(f'item{item}' for item in order[query][:10])}"
    back = (folder / "ranks_visual.tsv").read_text().splitlines()[1:]
    asking = sorted(set(item_of.tolist()))
    assert [line.split("\t")[0] for line in back] == [f"item{item}" for item in asking] and len(asking) <= 12
    for item, line in zip(asking, back, strict=True):
        first = np.argsort(-scores[:, item], kind="stable")[:10]
        assert line.split("\t")[3].split() == [split.headline.ids[query] for query in first]


def test_validation_writes_nothing_and_has_the_headline_alone(
    toy: Any, toy_split: MakeSplit, brute: Brute, tmp_path: Path
) -> None:
    split = toy_split({"zh": 43}, 14, translated=True)
    before = set(tmp_path.iterdir())
    for kind in ("raw", "minmax"):
        found = evaluate(toy, split, Rule(5, CPU, 0.3, kind))  # type: ignore[arg-type]
        assert_metrics(found, brute(mixed_scores(toy, split, kind, 0.3), split.headline.item_of))  # type: ignore[arg-type]
        assert "sweep" not in found and "by_length" not in found
    several = toy_split({"en": 20, "de": 30}, 14, by_language=True)
    found = evaluate(toy, several, Rule(5, CPU))
    assert set(found) == {"mean", "languages"} and "optimistic" not in found["languages"]["en"]
    assert set(tmp_path.iterdir()) == before


def test_queries_without_translations(toy: Any, toy_split: MakeSplit, brute: Brute, tmp_path: Path) -> None:
    """They are scored as they are, whatever the weight of translations; there is nothing to sweep."""
    split = toy_split({"en": 30}, 9)
    scores = toy.alone(split.headline.tokens) @ images_of(split).T
    for weight in (1.0, 0.4):
        made = evaluate(toy, split, Rule(4, CPU, weight, save_scores=True), tmp_path / "test")
        assert_metrics(made, brute(scores, split.headline.item_of))
        assert "sweep" not in made
    with np.load(tmp_path / "test" / "scores.npz") as arrays:
        assert "text_source" not in arrays


def queries_of(toy: Any, split: Split, language: str) -> tuple[Array, npt.NDArray[np.int64]]:
    """Vectors of a language's queries, and their items; captions of an item as one query if the split says so."""
    own = split.queries[language]
    vectors = toy.alone(own.tokens)
    if not split.averaged:
        return vectors, own.item_of
    items = sorted(set(own.item_of.tolist()))
    means = np.stack([np.mean([vectors[row] for row in np.flatnonzero(own.item_of == item)], axis=0) for item in items])
    return means / np.linalg.norm(means, axis=1, keepdims=True), np.array(items)


@pytest.mark.parametrize("averaged", [True, False])
def test_by_language(averaged: bool, toy: Any, toy_split: MakeSplit, brute: Brute, tmp_path: Path) -> None:
    split = toy_split({"en": 12, "de": 26, "zh": 19}, 15, by_language=True, averaged=averaged)
    made = evaluate(toy, split, Rule(4, CPU, by_length=not averaged), tmp_path / "test", {"model": "toy"})
    assert json.loads((tmp_path / "test" / "metrics.json").read_text()) == made
    assert (made["model"], made["items"], made["batch_size"], made["captions_averaged"]) == ("toy", 15, 4, averaged)
    assert list(made["languages"]) == ["en", "de", "zh"]
    for language, own in made["languages"].items():
        vectors, item_of = queries_of(toy, split, language)
        assert own["queries"] == len(vectors)
        scores = vectors @ images_of(split).T
        assert_metrics(own, brute(scores, item_of), geometric=True)
        assert_metrics(own["optimistic"], brute(scores, item_of, "optimistic"), geometric=True)
        ids = split.queries[language].ids
        wanted = [ids[split.queries[language].item_of.tolist().index(item)] for item in item_of] if averaged else ids
        lines = (tmp_path / "test" / language / "ranks.tsv").read_text().splitlines()[1:]
        assert [line.split("\t")[0] for line in lines] == wanted
        if not averaged:
            assert sum(entry["queries"] for entry in own["by_length"]) == len(vectors)
    for found, each in (
        (made["mean"], list(made["languages"].values())),
        (made["mean"]["optimistic"], [own["optimistic"] for own in made["languages"].values()]),
    ):
        for name in DIRECTIONS:
            for key in each[0][name]:
                assert found[name][key] == pytest.approx(sum(own[name][key] for own in each) / 3)
        assert found["SumR"] == pytest.approx(sum(own["SumR"] for own in each) / 3)
    # The variance of the ranks that items with one query in every language have, over the languages.
    ranks: dict[str, dict[int, int]] = {}
    for language in split.queries:
        vectors, item_of = queries_of(toy, split, language)
        order = np.argsort(-(vectors @ images_of(split).T), axis=1, kind="stable").tolist()
        alone = [query for query, item in enumerate(item_of) if (item_of == item).sum() == 1]
        ranks[language] = {int(item_of[query]): order[query].index(item_of[query]) for query in alone}
    common = set.intersection(*map(set, ranks.values()))
    assert made["rank_variance_items"] == len(common) > 0
    apart = [np.var([own[item] for own in ranks.values()]) for item in common]
    assert made["rank_variance"] == pytest.approx(np.mean(apart))


def test_a_later_test_in_fewer_languages_leaves_no_stale_files(toy: Any, toy_split: MakeSplit, tmp_path: Path) -> None:
    folder = tmp_path / "test"
    evaluate(toy, toy_split({"en": 12, "de": 26}, 9, by_language=True), Rule(4, CPU), folder)
    (folder / "de" / "mine.txt").touch()
    evaluate(toy, toy_split({"en": 12}, 9, by_language=True), Rule(4, CPU), folder)
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == [
        "metrics.json", "mine.txt", "ranks.tsv", "ranks_visual.tsv",
    ]  # fmt: skip
    assert (folder / "en" / "ranks.tsv").is_file()


def test_among_texts(toy: Any, toy_split: MakeSplit, brute: Brute, tmp_path: Path) -> None:
    """Against each query its own translation alone is relevant, and no scaling or weight has a part in it."""
    split = toy_split({"zh": 31}, 12, translated=True)
    assert split.headline.translations is not None
    scores = toy.alone(split.headline.tokens) @ toy.alone(split.headline.translations).T
    wanted = brute(scores, np.arange(31))
    made = evaluate(toy, among_texts(split), Rule(6, CPU, 0.3, "minmax", by_length=True), tmp_path / "texts")
    assert json.loads((tmp_path / "texts" / "metrics.json").read_text()) == made
    assert (made["task"], made["queries"]) == ("text-to-text", 31)
    for name, direction in (("target_to_source", "text_to_visual"), ("source_to_target", "visual_to_text")):
        values = {key: value for key, value in wanted[direction].items() if key != "geometric_mean"}
        assert made[name] == pytest.approx(values)
    assert not {"sweep", "normalisation", "target_weight", "SumR", *DIRECTIONS} & set(made)
    assert sum(entry["queries"] for entry in made["by_length"]) == 31
    assert [path.name for path in (tmp_path / "texts").iterdir()] == ["metrics.json"]


def test_what_a_split_does_not_offer_is_refused_before_encoding(toy_split: MakeSplit, tmp_path: Path) -> None:
    averaged = toy_split({"en": 12}, 9, by_language=True, averaged=True)
    with pytest.raises(UserError, match="--by-length: the captions of an item of toys are averaged"):
        evaluate(None, averaged, Rule(4, CPU, by_length=True), tmp_path / "test")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"evaluation\.save_scores: 12 x 9 scores need more than evaluation\.memory_mb"):
        rule = Rule(4, CPU, memory_mb=0.001, save_scores=True)
        evaluate(None, toy_split({"en": 12}, 9), rule, tmp_path / "test")  # type: ignore[arg-type]
    assert not (tmp_path / "test").exists()


def test_nan_is_told_with_its_query(toy: Any, toy_split: MakeSplit) -> None:
    split = toy_split({"en": 12}, 9)
    spoiled = type(toy)(toy.words.clone())
    spoiled.words[split.headline.tokens.batch([3]).tokens[0, 0]] = torch.nan
    bad = np.flatnonzero(np.isnan(spoiled.alone(split.headline.tokens)).any(axis=1))
    said = f"the embedding of {split.headline.ids[bad[0]]} and {len(bad) - 1} others is not finite"
    with pytest.raises(UserError, match=said):
        evaluate(spoiled, split, Rule(4, CPU))


def test_a_test_that_fails_leaves_the_earlier_one(toy: Any, toy_split: MakeSplit, tmp_path: Path) -> None:
    for split in (toy_split({"zh": 9}, 4, translated=True), toy_split({"en": 9, "de": 9}, 4)):
        folder = tmp_path / str(split.by_language)
        evaluate(toy, split, Rule(5, CPU), folder)
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

        class Broken:
            independent = True
            embed_text = staticmethod(lambda text: toy.embed_text(text) * float("nan"))
            embed_visual = staticmethod(toy.embed_visual)

        with pytest.raises(UserError, match="not finite"):
            evaluate(Broken(), split, Rule(5, CPU), folder)
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
