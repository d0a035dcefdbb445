"""The numbers of hubness, confused languages and rank differences, for every system; against brute force."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nrccr.data.queries import Sample
from nrccr.errors import UserError
from nrccr.evaluation.normalise import normalise
from nrccr.report import confused, hubs, mixing, retrieved
from nrccr.report.finished import ReportRun, Searched, read
from nrccr.report.hubs import NAMES, PLAIN, TRIED, banks_of
from nrccr.systems.base import splits_of

Command = Callable[..., Any]
Array = npt.NDArray[Any]


@pytest.fixture
def run(trained: Path, tiny_collection: Path) -> ReportRun:
    return read([trained], tiny_collection, "cpu")[0]


def best(scores: Array, k: int) -> list[list[int]]:
    """The k best columns of every row, by sorting."""
    return [sorted(range(len(row)), key=lambda column: (-row[column], column))[:k] for row in scores]


def rank_of(row: Array, item: int) -> int:
    return sorted(range(len(row)), key=lambda column: (-row[column], column)).index(item) + 1


def counted(scores: Array, item_of: Sequence[int]) -> tuple[list[int], list[int], dict[str, float]]:
    """k-occurrences, how many are right, and what the table says of them; k is 4 among 8 items."""
    counts, right = [0] * 8, [0] * 8
    for item, row in zip(item_of, best(scores, 4), strict=True):
        for column in row:
            counts[column] += 1
            right[column] += column == item
    mean = sum(counts) / 8
    second, third = (sum((count - mean) ** power for count in counts) / 8 for power in (2, 3))
    first = [rank_of(row, item) == 1 for row, item in zip(scores, item_of, strict=True)]
    return counts, right, {
        "mean k-occurrence": mean,
        "skewness": third / second**1.5,
        "never in a top k (%)": 100 * counts.count(0) / 8,
        "largest k-occurrence": max(counts),
        "R@1, text to visual (%)": 100 * sum(first) / len(first),
    }  # fmt: skip


def mixed(searched: Searched, rows: tuple[Array | None, Array], columns: Array) -> Array:
    source, target = rows
    weight = searched.run.rule.target_weight
    assert source is not None
    scores: Array = weight * target @ columns.T + (1 - weight) * source @ columns.T
    return scores


def test_hubness_of_plain_and_normalised_scores(run: ReportRun) -> None:
    found, worst = hubs.of_hubs([run])
    searched, (bank,) = run.headline, banks_of(run)
    assert set(bank.query_ids).isdisjoint(searched.queries.ids) and len(bank.query_ids) == 24  # all there are
    assert all(name.startswith("train") for name in bank.query_ids) and not bank.transductive
    own, item_of = searched.encoded.embeddings, searched.encoded.item_of.tolist()
    assert own.source is not None and bank.embeddings.source is not None
    visual = own.visual.numpy()
    raw = mixed(searched, (own.source.numpy(), own.target.numpy()), visual)
    of_bank = mixed(searched, (bank.embeddings.source.numpy(), bank.embeddings.target.numpy()), visual)
    expected = {PLAIN: searched.scores()}
    for settings in TRIED:
        values = {"beta": settings.beta, "k": settings.k, "alpha": settings.alpha}
        expected[NAMES[settings.method]] = np.asarray(
            normalise(raw.astype(np.float64), of_bank, method=settings.method, rankable=True, **values)
        )
    rows = {str(row["scores"]): row for row in found.rows}
    assert list(rows) == list(expected)
    counts = {}
    for name, scores in expected.items():
        counts[name], right, numbers = counted(scores, item_of)
        assert {key: rows[name][key] for key in numbers} == pytest.approx(numbers), name
        assert (rows[name]["k"], rows[name]["items"]) == (4, 8)
        if name == PLAIN:
            right_of = dict(zip(searched.item_ids, right, strict=True))
    order = sorted(range(8), key=lambda item: (-counts[PLAIN][item], item))
    for row, item in zip(worst.rows, order, strict=False):
        assert (row["item"], row["queries"]) == (searched.item_ids[item], counts[PLAIN][item])
        assert row["right for"] == right_of[searched.item_ids[item]]
        assert {name: row[f"after {name}"] for name in expected if name != PLAIN} == {
            name: own[item] for name, own in counts.items() if name != PLAIN
        }
    assert len(worst.rows) == 5 and found.figure is not None
    lines = found.figure.axes[0].lines
    assert [line.get_ydata().tolist() for line in lines[:-1]] == [sorted(own)[::-1] for own in counts.values()]


def test_captions_without_translations_make_no_bank(run: ReportRun) -> None:
    data = run.config.data.model_copy(update={"scenario": "unparallel"})
    (bank,) = banks_of(replace(run, config=run.config.model_copy(update={"data": data})))
    assert bank.split == "val" and all(name.startswith("val") for name in bank.query_ids)


def test_a_sample_takes_all_where_there_are_fewer(run: ReportRun) -> None:
    few = next(splits_of(run.retriever, run.root, "train", Sample(25, 0, at_most=True)))
    assert len(few.headline.ids) == 24
    with pytest.raises(UserError, match="24 captions, not 25"):
        next(splits_of(run.retriever, run.root, "train", Sample(25, 0)))


def test_training_captions_that_are_test_queries_are_refused(trained: Path, tiny_collection: Path) -> None:
    text = tiny_collection / "vatex" / "TextData"
    for name in ("vatextrain", "vatextrain_google_enc2zh", "vatextrain_google_enc2zh2enc"):
        path = text / f"{name}.caption.txt"
        lines = path.read_text("utf-8").splitlines()
        lines[0] = f"test0#{'zh2enc' if name == 'vatextrain' else 'x'}#0 {lines[0].split(maxsplit=1)[1]}"
        path.write_text("\n".join(lines) + "\n", "utf-8")
    (copied,) = read([trained], tiny_collection, "cpu")
    with pytest.raises(UserError, match="test0#zh2enc#0 and 0 others are in split train and in test"):
        banks_of(copied)


def test_rank_differences(run: ReportRun) -> None:
    (part,) = mixing.parts([run])
    searched = run.headline
    item_of = searched.encoded.item_of.tolist()
    weights = {"translations": 0.0, "queries": 1.0, "mixed 0.2 : 0.8": 0.8}
    ranks = {
        name: [rank_of(row, item) for row, item in zip(searched.scores(weight), item_of, strict=True)]
        for name, weight in weights.items()
    }
    pairs = [(str(row["before"]), str(row["after"])) for row in part.rows]
    assert pairs == [("translations", "queries"), *((name, "mixed 0.2 : 0.8") for name in ("translations", "queries"))]
    for row, (before, after) in zip(part.rows, pairs, strict=True):
        gains = [one - other for one, other in zip(ranks[before], ranks[after], strict=True)]
        assert row["median gain (places)"] == np.median(gains)
        shares = [row[f"{name} (%)"] for name in ("better", "same", "worse")]
        signs = [sum(np.sign(gains) == sign) for sign in (1, 0, -1)]
        assert shares == pytest.approx([100 * count / 16 for count in signs])
        assert row["better by 1-9 (%)"] == pytest.approx(shares[0])  # of eight places none is larger
        metrics = searched.scored(weights[after]).ranked().metrics()
        assert row["SumR after"] == metrics["SumR"]
    assert part.figure is not None
    (axes,) = part.figure.axes
    drawn = np.array([bar.get_width() for bar in axes.patches]).reshape(3, -1)  # a bar's segments
    np.testing.assert_allclose(drawn.sum(axis=1), 100)
    np.testing.assert_allclose(drawn[:, 3], [row["same (%)"] for row in part.rows])


def test_languages_of_nearest_captions(run: ReportRun) -> None:
    (part,) = confused.parts([run])
    own = run.headline.encoded.embeddings
    assert own.source is not None
    pool = np.concatenate([own.target.numpy(), own.source.numpy()])
    names = ["zh"] * 16 + ["en, translated"] * 16
    items = [*run.headline.encoded.item_of.tolist()] * 2
    scores = pool @ pool.T
    np.fill_diagonal(scores, -np.inf)
    nearest = [best(row[None], 1)[0][0] for row in scores]
    of_items = [best(row[None], 1)[0][0] for row in own.visual.numpy() @ pool.T]
    searching = {"zh": (nearest[:16], items[:16]), "en, translated": (nearest[16:], items[16:])}
    searching["items"] = of_items, list(range(8))
    assert len(part.rows) == 6
    for row in part.rows:
        found, wanted = searching[str(row["query"])]
        there = [(at, item) for at, item in zip(found, wanted, strict=True) if names[at] == row["nearest caption in"]]
        assert row["share (%)"] == pytest.approx(100 * len(there) / len(found))
        right = [items[at] == item for at, item in there]
        assert row["of the same item (%)"] == (pytest.approx(100 * sum(right) / len(right)) if right else None)
    assert part.figure is not None
    words = [text.get_text() for text in part.figure.axes[0].texts]
    assert words == [f"{row['share (%)']:.0f}" for row in part.rows] + ["50", "50"]


def test_languages_of_several_runs_each_have_a_table(run: ReportRun) -> None:
    (part,) = confused.parts([replace(run, label=name) for name in "abcd"])
    assert part.figure is not None
    assert [axes.get_title() for axes in part.figure.axes if axes.axison] == ["a", "b", "c", "d"]


def all_parts(folder: Path, root: Path) -> dict[str, Any]:
    runs = read([folder], root, "cpu")
    made = [part for module in (retrieved, hubs) for part in module.parts(runs)]
    return {part.name: part for part in made}


def test_mlcmr(mlcmr_config: Path, both_languages: Path, tmp_path: Path, nrccr_command: Command) -> None:
    done = nrccr_command(
        "train", mlcmr_config, "--root", both_languages, "--out", tmp_path / "run", "--device", "cpu", "train.epochs=1"
    )
    assert done.code == 0, done.err
    parts = all_parts(tmp_path / "run", both_languages)
    assert list(parts) == [
        *("retrieved-random", "retrieved-worst", "hubness", "worst-hubs", "languages", "rank-differences")
    ]
    panels = list(dict.fromkeys(row["run"] for row in parts["hubness"].rows))
    assert panels == ["run, zh", "run, en"] and len(parts["hubness"].rows) == 2 * (1 + len(TRIED))
    assert [row["queries in"] for row in parts["worst-hubs"].rows] == ["zh"] * 5 + ["en"] * 5
    shares = [row for row in parts["languages"].rows if row["query"] == "en"]
    assert {row["nearest caption in"] for row in shares} == {"zh", "en"}
    assert sum(float(row["share (%)"]) for row in shares) == pytest.approx(100)
    assert len(parts["rank-differences"].rows) == 6


def test_c2kd(c2kd_config: Path, tiny_languages: Path, tmp_path: Path, nrccr_command: Command) -> None:
    done = nrccr_command(
        "train", c2kd_config, "--root", tiny_languages, "--out", tmp_path / "run", "--device", "cpu", "train.epochs=1"
    )
    assert done.code == 0, done.err
    parts = all_parts(tmp_path / "run", tiny_languages)
    assert list(parts) == ["retrieved-random", "retrieved-worst", "hubness", "worst-hubs", "languages"]
    languages = [row["scores"] for row in parts["hubness"].rows]
    assert languages == list(dict.fromkeys(row["queries in"] for row in parts["worst-hubs"].rows))
    assert set(languages) == {"en", "de", "zh"}
    assert {row["nearest caption in"] for row in parts["languages"].rows} == set(languages)
    assert parts["retrieved-worst"].rows[0]["translation"] == ""
