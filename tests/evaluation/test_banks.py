"""`nrccr bank` and normalised tests, on the tiny collection."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nrccr.evaluation.metrics import retrieval_metrics
from nrccr.evaluation.normalise import METHODS, TRANSDUCTIVE, normalise

Command = Callable[..., Any]
Array = npt.NDArray[Any]


@pytest.fixture
def make_bank(nrccr_command: Command, tiny_collection: Path, trained: Path) -> Command:
    """A function of options: `nrccr bank` for the trained run."""

    def make(*options: object) -> Any:
        return nrccr_command("bank", trained, "--root", tiny_collection, "--device", "cpu", *options)

    return make


def arrays_of(path: Path) -> dict[str, Array]:
    with np.load(path) as arrays:
        return dict(arrays)


def metrics_of(folder: Path) -> Any:
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_bank_holds_what_it_says(split: str, make_bank: Command, run_test: Command, trained: Path) -> None:
    done = make_bank("--split", split, "--size", 10)
    assert done.code == 0 and done.err == "", done.err
    record = json.loads((trained / "bank" / "bank.json").read_text())
    assert (record["split"], record["size"], record["seed"], record["transductive"]) == (split, 10, 0, False)
    bank = arrays_of(trained / "bank" / "bank.npz")
    assert len(set(bank["query_ids"])) == 10 and all(name.startswith(split) for name in bank["query_ids"])
    assert set(bank["item_ids"]) == {name.split("#")[0] for name in bank["query_ids"]}
    assert record["items"] == len(bank["item_ids"]) == len(bank["visual"])
    assert run_test(trained, "evaluation.save_scores=true").code == 0
    visual = arrays_of(trained / "test" / "scores.npz")["visual"]
    scores = arrays_of(trained / "bank" / "scores.npz")
    mixed = 0.8 * bank["text_target"] @ visual.T + 0.2 * bank["text_source"] @ visual.T
    np.testing.assert_allclose(scores["scores"], mixed, atol=1e-5)
    gallery = arrays_of(trained / "bank" / "gallery_scores.npz")
    np.testing.assert_allclose(gallery["scores"], bank["visual"] @ visual.T, atol=1e-5)
    before = (trained / "bank" / "bank.npz").read_bytes()
    make_bank("--split", split, "--size", 10)
    assert (trained / "bank" / "bank.npz").read_bytes() == before
    make_bank("--split", split, "--size", 10, "--seed", 1)
    assert (trained / "bank" / "bank.npz").read_bytes() != before


@pytest.mark.parametrize("memory", ["2000", "16"])
@pytest.mark.parametrize("method", METHODS)
def test_a_normalised_test(
    method: Any, memory: str, make_bank: Command, run_test: Command, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against `normalise` on the saved embeddings, whether the cosines are held or not."""
    if memory == "16":  # nothing fits
        monkeypatch.setattr("nrccr.evaluation.directions.fits", lambda shape, memory_mb: False)
    assert run_test(trained, "--out", trained / "plain", "evaluation.save_scores=true").code == 0
    if method not in TRANSDUCTIVE:
        assert make_bank("--size", 12).code == 0
    given = [f"evaluation.normalise={method}", "evaluation.beta=15", "evaluation.k=2", f"evaluation.memory_mb={memory}"]
    done = run_test(trained, *given)
    assert done.code == 0 and done.err == "" and f"normalised by {method}" in done.out, done.err
    metrics = metrics_of(trained / "test")
    record = metrics["normalisation"]
    assert (record["method"], record["scores"], record["minmax_skipped"]) == (method, "raw", True)
    assert record["beta"] == (None if method in ("csls", "nnn") else 15)
    assert record["k"] == (None if method in ("is", "dual_is", "dsl") else 2)
    expected = (None, None, True) if method in TRANSDUCTIVE else ("train", 12, False)
    assert (record["bank"], record["size"], record["transductive"]) == expected

    test = arrays_of(trained / "plain" / "scores.npz")
    bank = arrays_of(trained / "bank" / "bank.npz") if method not in TRANSDUCTIVE else None

    def mixed(texts: dict[str, Array], source: Array, target: Array, weight: float) -> Array:
        return weight * texts["text_target"] @ target.T + (1 - weight) * texts["text_source"] @ source.T

    def both(weight: float, settings: dict[str, Any]) -> tuple[Any, Any]:
        forward = mixed(test, test["visual"], test["visual"], weight)
        banks: list[Any] = [None] * 4
        if bank is not None:
            banks = [
                mixed(bank, test["visual"], test["visual"], weight),
                mixed(test, bank["visual"], bank["visual"], weight).T,
                bank["visual"] @ test["visual"].T,
                mixed(bank, test["text_source"], test["text_target"], weight),
            ]
        return (
            normalise(forward, banks[0], gallery_bank_scores=banks[2], **settings),
            normalise(forward.T, banks[1], gallery_bank_scores=banks[3], **settings),
        )

    owner = [test["item_ids"].tolist().index(name.split("#")[0]) for name in test["query_ids"]]
    captions = [[row for row, item in enumerate(owner) if item == column] for column in range(8)]
    settings = {"method": method, "beta": 15.0, "k": 2, "log": True, "rankable": True}
    for entry, weight in [(metrics, 0.8), *((one, 1 - one["source_weight"]) for one in metrics["sweep"])]:
        forward, backward = both(weight, settings)
        assert entry["text_to_visual"] == pytest.approx(retrieval_metrics(forward, owner))
        assert entry["visual_to_text"] == pytest.approx(retrieval_metrics(backward, captions))


def test_tuning_looks_at_validation(make_bank: Command, run_test: Command, trained: Path) -> None:
    assert make_bank("--size", 20).code == 0
    done = run_test(trained, "evaluation.normalise=dis", "--tune")
    assert done.code == 0 and "chosen on validation: beta=" in done.out, done.err
    record = metrics_of(trained / "test")["normalisation"]
    assert record["tuned_on"] == "val"
    again = run_test(trained, f"evaluation.beta={record['beta']}", f"evaluation.k={record['k']}",
                     "evaluation.normalise=dis", "--split", "val")  # fmt: skip
    assert again.code == 0
    reached = f"SumR {metrics_of(trained / 'val')['SumR']:.1f}"
    assert reached in done.out
    other = run_test(trained, "evaluation.normalise=dis", "evaluation.beta=1", "--split", "val")
    assert other.code == 0
    assert metrics_of(trained / "val")["SumR"] <= float(done.out.split("SumR ")[1].split()[0]) + 0.05


def test_test_queries_enter_no_bank(make_bank: Command, run_test: Command, trained: Path) -> None:
    done = make_bank("--split", "test", "--size", 5)
    assert done.code == 2 and "--transductive" in done.err and not (trained / "bank").exists()
    assert make_bank("--split", "val", "--size", 5).code == 0
    assert run_test(trained, "evaluation.normalise=dis").code == 0
    for options in (["--split", "val"], ["--tune"]):
        done = run_test(trained, "evaluation.normalise=dis", *options)
        assert done.code == 2 and "split val" in done.err and len(done.err.splitlines()) == 1
    assert make_bank("--split", "test", "--size", 16, "--transductive").code == 0
    assert run_test(trained, "evaluation.normalise=is").code == 0
    record = metrics_of(trained / "test")["normalisation"]
    assert (record["bank"], record["size"], record["transductive"]) == ("test", 16, True)


def test_a_renamed_split_does_not_let_them_in(make_bank: Command, run_test: Command, trained: Path) -> None:
    assert make_bank("--split", "test", "--size", 5, "--transductive").code == 0
    record = json.loads((trained / "bank" / "bank.json").read_text())
    (trained / "bank" / "bank.json").write_text(json.dumps(record | {"split": "train", "transductive": False}))
    done = run_test(trained, "evaluation.normalise=dis")
    assert done.code == 2 and "4 others are in it" in done.err


def test_scores_of_a_run_and_its_bank_go_into_qbnorm(
    make_bank: Command, run_test: Command, nrccr_command: Command, trained: Path
) -> None:
    assert make_bank("--size", 20).code == 0
    assert run_test(trained, "evaluation.save_scores=true").code == 0
    files = {"--sims_test_path": "test", "--sims_train_test_path": "bank"}
    arguments = [part for option, name in files.items() for part in (option, trained / name / "scores.npz")]
    done = nrccr_command("qbnorm", *arguments)
    assert done.code == 0 and "text to visual, after" in done.out, done.err


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: None, "no bank there; make one with `nrccr bank`"),
        (lambda folder: (folder / "bank.json").write_text("{"), "bank.json: cannot be read (Expecting"),
        (lambda folder: (folder / "bank.npz").write_bytes(b"no"), "cannot be read as a bank"),
    ],
)
def test_a_damaged_bank_is_one_line(
    damage: Any, words: str, make_bank: Command, run_test: Command, trained: Path
) -> None:
    if "no bank" not in words:
        assert make_bank("--size", 4).code == 0
    damage(trained / "bank")
    done = run_test(trained, "evaluation.normalise=nnn")
    assert done.code == 2 and words in done.err and len(done.err.splitlines()) == 1
    assert not (trained / "test").exists()


def test_other_weights_refuse_the_bank(make_bank: Command, run_test: Command, trained: Path) -> None:
    assert make_bank("--size", 4).code == 0
    record = json.loads((trained / "bank" / "bank.json").read_text())
    (trained / "bank" / "bank.json").write_text(json.dumps(record | {"sha256": "0" * 64}))
    done = run_test(trained, "evaluation.normalise=nnn")
    assert done.code == 2 and "other weights" in done.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--bank", "nowhere"], "--bank: no scores are normalised"),
        (["--bank", "nowhere", "evaluation.normalise=dsl"], "--bank: dsl uses no bank"),
        (["evaluation.normalise=softmax"], "evaluation.normalise"),
        (["evaluation.beta=0"], "evaluation.beta=0 is out of range"),
        (["evaluation.k=-1"], "evaluation.k=-1 is out of range"),
        (["evaluation.normalise=csls", "evaluation.k=0"], "1 or more for csls"),
        (["evaluation.memory_mb=1"], "16 or more"),
        (["evaluation.normalise=dsl", "--tune", "--split", "val"], "chosen on val"),
    ],
)
def test_bad_options_are_one_line(options: list[str], words: str, run_test: Command, trained: Path) -> None:
    done = run_test(trained, *options)
    assert done.code == 2 and words in done.err and len(done.err.splitlines()) == 1


def test_too_large_a_bank_is_refused(make_bank: Command, trained: Path) -> None:
    done = make_bank("--size", 25)
    assert done.code == 2 and "has 24 captions, not 25" in done.err and not (trained / "bank").exists()
    done = make_bank("--size", 5, "--split", "dev")
    assert done.code == 2 and "--split dev" in done.err


def test_scores_that_may_not_be_held_are_not_saved(
    run_test: Command, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nrccr.evaluation.evaluate.fits", lambda shape, memory_mb: False)
    done = run_test(trained, "evaluation.save_scores=true")
    assert done.code == 2 and "evaluation.memory_mb" in done.err


def test_memory_changes_nothing(run_test: Command, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain tests as well: metrics, ranks and the lists of the ten best."""
    assert run_test(trained, "--out", trained / "held").code == 0
    monkeypatch.setattr("nrccr.evaluation.blocks.LEAST_ROWS", 4)
    monkeypatch.setattr("nrccr.evaluation.directions.fits", lambda shape, memory_mb: False)
    monkeypatch.setattr("nrccr.evaluation.blocks.BYTES_PER_ENTRY", 2**20)
    assert run_test(trained, "--out", trained / "blocks", "evaluation.memory_mb=32").code == 0
    for name in ("ranks.tsv", "ranks_visual.tsv"):
        assert (trained / "held" / name).read_text() == (trained / "blocks" / name).read_text()
    assert metrics_of(trained / "held") == metrics_of(trained / "blocks")
