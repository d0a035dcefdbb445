"""MLCMR's query banks, normalised tests, recalls by length and text to text, in both languages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nrccr.evaluation.metrics import retrieval_metrics
from nrccr.evaluation.normalise import TRANSDUCTIVE, normalise

Command = Callable[..., Any]
Array = npt.NDArray[Any]
FOLDERS = {"zh": "", "en": "en"}  # of each query language within a test's or a bank's folder
RECALLS = ("R@1", "R@5", "R@10")


@pytest.fixture
def root(both_languages: Path) -> Path:
    """The tiny collection, with translations of English validation queries too."""
    text = both_languages / "vatex" / "TextData"
    chinese = (text / "vatexval_zh.caption.txt").read_text("utf-8")
    (text / "vatexval_google_enc2zh.caption.txt").write_text(chinese.replace("#zh#", "#enc2zh#"), "utf-8")
    return both_languages


@pytest.fixture
def run(
    mlcmr_config: Path, root: Path, nrccr_command: Command, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> Path:
    """A run folder of the test's own, trained once for all tests."""
    kept = tmp_path_factory.getbasetemp() / "mlcmr_trained_once"
    if not kept.exists():
        done = nrccr_command("train", mlcmr_config, "--root", root, "--out", kept, "--device", "cpu")
        assert done.code == 0, done.err
    return Path(shutil.copytree(kept, tmp_path / "run"))


@pytest.fixture
def call(nrccr_command: Command, run: Path, root: Path) -> Command:
    """A function of a command's name and options: on the run."""

    def call(name: str, *options: object) -> Any:
        return nrccr_command(name, run, "--root", root, "--device", "cpu", *options)

    return call


def arrays_of(path: Path) -> dict[str, Array]:
    with np.load(path) as arrays:
        return dict(arrays)


def metrics_of(folder: Path) -> Any:
    return json.loads((folder / "metrics.json").read_text())


def refused(done: Any, *says: object) -> None:
    assert done.code == 2 and len(done.err.splitlines()) == 1, done.err
    assert all(str(part) in done.err for part in says), done.err


def test_a_bank_of_each_language_holds_what_it_says(call: Command, run: Path) -> None:
    done = call("bank", "--size", 10)
    assert done.code == 0 and done.err == "" and all(f"queries in {one}: 10 captions" in done.out for one in FOLDERS)
    assert call("test", "evaluation.save_scores=true").code == 0
    tags = {"zh": "enc", "en": "zh"}  # queries have the ids of their translations: human in the parallel scenario
    for language, name in FOLDERS.items():
        folder = run / "bank" / name
        record, bank = json.loads((folder / "bank.json").read_text()), arrays_of(folder / "bank.npz")
        assert (record["split"], record["size"], record["seed"], record["transductive"]) == ("train", 10, 0, False)
        assert len(set(bank["query_ids"])) == 10
        assert all(query.startswith("train") and f"#{tags[language]}#" in query for query in bank["query_ids"])
        assert set(bank["item_ids"]) == {query.split("#")[0] for query in bank["query_ids"]}
        assert record["items"] == len(bank["item_ids"]) == len(bank["visual"])
        visual, weight = arrays_of(run / "test" / name / "scores.npz")["visual"], record["target_weight"]
        mixed = weight * bank["text_target"] @ visual.T + (1 - weight) * bank["text_source"] @ visual.T
        np.testing.assert_allclose(arrays_of(folder / "scores.npz")["scores"], mixed, atol=1e-5)
        gallery = arrays_of(folder / "gallery_scores.npz")["scores"]
        np.testing.assert_allclose(gallery, bank["visual"] @ visual.T, atol=1e-5)
    # The same captions are drawn, each side once the query and once the translation.
    chinese, english = (arrays_of(run / "bank" / name / "bank.npz") for name in FOLDERS.values())
    assert [query.split("#")[::2] for query in chinese["query_ids"]] == [
        query.split("#")[::2] for query in english["query_ids"]
    ]


@pytest.mark.parametrize("method", ["dis", "dual_dis", "dsl"])
def test_a_normalised_test(method: Any, call: Command, run: Path) -> None:
    """Against `normalise` on the saved embeddings, language by language."""
    assert call("test", "--out", run / "plain", "evaluation.save_scores=true").code == 0
    if method not in TRANSDUCTIVE:
        assert call("bank", "--size", 12).code == 0
    done = call("test", f"evaluation.normalise={method}", "evaluation.beta=15", "evaluation.k=2")
    assert done.code == 0 and done.err == "" and done.out.count(f"normalised by {method}") == 2, done.err
    changed = []
    for language, name in FOLDERS.items():
        metrics = metrics_of(run / "test" / name)
        record = metrics["normalisation"]
        assert (metrics["queries_in"], record["method"], record["minmax_skipped"]) == (language, method, False)
        assert (record["bank"], record["size"]) == ((None, None) if method in TRANSDUCTIVE else ("train", 12))
        test = arrays_of(run / "plain" / name / "scores.npz")
        bank = None if method in TRANSDUCTIVE else arrays_of(run / "bank" / name / "bank.npz")
        owner = [test["item_ids"].tolist().index(query.split("#")[0]) for query in test["query_ids"]]
        captions = [[row for row, item in enumerate(owner) if item == column] for column in range(8)]
        for entry, weight in [
            (metrics, metrics["target_weight"]),
            *((one, 1 - one["source_weight"]) for one in metrics["sweep"]),
        ]:
            forward, backward = normalised(method, test, bank, weight)
            assert entry["text_to_visual"] == pytest.approx(retrieval_metrics(forward, owner))
            assert entry["visual_to_text"] == pytest.approx(retrieval_metrics(backward, captions))
        changed.append(metrics["text_to_visual"] != metrics_of(run / "plain" / name)["text_to_visual"])
    assert any(changed)


def normalised(method: Any, test: dict[str, Array], bank: dict[str, Array] | None, weight: float) -> tuple[Any, Any]:
    """Scores of both directions, from saved embeddings."""

    def mixed(texts: dict[str, Array], source: Array, target: Array) -> Array:
        return weight * texts["text_target"] @ target.T + (1 - weight) * texts["text_source"] @ source.T

    settings = {"method": method, "beta": 15.0, "k": 2, "log": True, "rankable": True}
    forward = mixed(test, test["visual"], test["visual"])
    if bank is None:
        return normalise(forward, None, **settings), normalise(forward.T, None, **settings)
    of_queries = mixed(bank, test["visual"], test["visual"])
    of_items = mixed(test, bank["visual"], bank["visual"]).T
    galleries = bank["visual"] @ test["visual"].T, mixed(bank, test["text_source"], test["text_target"])
    return (
        normalise(forward, of_queries, gallery_bank_scores=galleries[0], **settings),
        normalise(forward.T, of_items, gallery_bank_scores=galleries[1], **settings),
    )


def test_tuning_looks_at_each_languages_validation(call: Command, run: Path) -> None:
    assert call("bank", "--size", 20).code == 0
    done = call("test", "evaluation.normalise=dis", "--tune")
    assert done.code == 0, done.err
    told = [line for line in done.out.splitlines() if line.startswith("chosen on validation: beta=")]
    records = [metrics_of(run / "test" / name)["normalisation"] for name in FOLDERS.values()]
    assert len(told) == 2 and [record["tuned_on"] for record in records] == ["val", "val"]
    for name, record, line in zip(FOLDERS.values(), records, told, strict=True):
        given = (f"evaluation.beta={record['beta']}", f"evaluation.k={record['k']}")
        assert call("test", "evaluation.normalise=dis", *given, "--split", "val").code == 0
        assert line.endswith(f"SumR {metrics_of(run / 'val' / name)['SumR']:.1f}")
        assert call("test", "evaluation.normalise=dis", "evaluation.beta=1", "--split", "val").code == 0
        assert metrics_of(run / "val" / name)["SumR"] <= float(line.split("SumR ")[1]) + 0.05


def test_banks_that_are_refused(call: Command, run: Path) -> None:
    refused(call("test", "evaluation.normalise=dis"), f"{run}/bank/bank.json: no bank there; make one with")
    assert not (run / "test").exists()
    refused(call("bank", "--size", 25), "has 24 captions, not 25")
    refused(call("bank", "--size", 5, "--split", "test"), "--transductive")
    assert not (run / "bank").exists()
    assert call("bank", "--size", 5, "--split", "val").code == 0
    for options in (["--split", "val"], ["--tune"]):
        refused(call("test", "evaluation.normalise=dis", *options), "split val")
    assert call("bank", "--size", 16, "--split", "test", "--transductive").code == 0
    assert call("test", "evaluation.normalise=is").code == 0
    for name in FOLDERS.values():
        record = metrics_of(run / "test" / name)["normalisation"]
        assert (record["bank"], record["size"], record["transductive"]) == ("test", 16, True)
    shutil.rmtree(run / "bank" / "en")
    refused(call("test", "evaluation.normalise=dis"), f"{run}/bank/en/bank.json: no bank there; make one with")


def test_the_unparallel_scenario_draws_from_validation(call: Command, run: Path) -> None:
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("scenario: parallel", "scenario: unparallel"))
    refused(call("bank", "--size", 5), "data.scenario=unparallel", "draw from val")
    assert not (run / "bank").exists()
    assert call("bank", "--size", 5, "--split", "val").code == 0
    assert call("test", "evaluation.normalise=dis").code == 0


def test_recalls_by_length_in_both_languages(call: Command, run: Path, root: Path) -> None:
    text = root / "vatex" / "TextData"
    for name, word in (("vatextest_zh", "人"), ("vatextest", " dog")):
        path = text / f"{name}.caption.txt"
        first, *rest = path.read_text("utf-8").splitlines()
        path.write_text("\n".join([first + word * 10, *rest]) + "\n", "utf-8")
    done = call("test", "--by-length")
    assert done.code == 0 and done.out.count("by length of the query") == 2, done.err
    for name in FOLDERS.values():
        found = metrics_of(run / "test" / name)
        assert [entry["queries"] for entry in found["by_length"]] == [15, 1]
        ranks = [int(line.split("\t")[1]) for line in (run / "test" / name / "ranks.tsv").read_text().splitlines()[1:]]
        for entry, own in zip(found["by_length"], (ranks[1:], ranks[:1]), strict=True):
            for recall in RECALLS:
                assert entry[recall] == pytest.approx(100 * np.mean([rank <= int(recall[2:]) for rank in own]))


def test_text_to_text_equals_the_embeddings_of_the_usual_test(call: Command, run: Path) -> None:
    assert call("test", "evaluation.save_scores=true").code == 0
    before = (run / "test" / "metrics.json").read_bytes()
    done = call("test", "--task", "text-to-text")
    assert done.code == 0 and done.err == "", done.err
    assert "query to its translation" in done.out and "paper" not in done.out  # the figures there are, are NRCCR's
    assert (run / "test" / "metrics.json").read_bytes() == before
    for language, name in FOLDERS.items():
        saved = arrays_of(run / "test" / name / "scores.npz")
        source, target = saved["text_source"], saved["text_target"]
        found = metrics_of(run / "test-text-to-text" / name)
        assert (found["task"], found["queries_in"], found["queries"]) == ("text-to-text", language, 16)
        for direction, (queries, items) in {
            "target_to_source": (target, source),
            "source_to_target": (source, target),
        }.items():
            order = np.argsort(-(queries @ items.T), axis=1, kind="stable")
            places = 1 + np.argmax(order == np.arange(16)[:, None], axis=1)  # brute force: one relevant each
            assert found[direction]["mAP"] == pytest.approx(100 * np.mean(1 / places))
            assert found[direction]["MeanR"] == pytest.approx(places.mean())
            assert found[direction]["R@5"] == pytest.approx(100 * np.mean(places <= 5))
