"""`nrccr test --tune`: what it chooses equals trying it by hand on validation, and no test query has a say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nrccr.data.queries import Split
from nrccr.evaluation import tune
from nrccr.evaluation.directions import Bank
from nrccr.evaluation.encode import EncodedQueries, encode_split
from nrccr.evaluation.normalise import Settings
from nrccr.evaluation.rule import Rule
from nrccr.evaluation.tune import WEIGHTS, choose_both, sum_of_recalls

Command = Callable[..., Any]
CPU = torch.device("cpu")


def metrics_of(folder: Path) -> Any:
    return json.loads((folder / "metrics.json").read_text())


def encoded_of(toy: Any, split: Split) -> EncodedQueries:
    return next(encode_split(toy, split, 8, CPU))[1]


def bank_of(encoded: EncodedQueries) -> Bank:
    return Bank(encoded.embeddings, [f"train{name}" for name in encoded.ids], "train", 0, transductive=False)


def test_weight_and_method_are_those_of_brute_force(run_test: Command, trained: Path, nrccr_command: Command,
                                                    tiny_collection: Path) -> None:  # fmt: skip
    done = run_test(trained, "--tune")
    assert done.code == 0 and done.err == "", done.err
    found = metrics_of(trained / "test-tuned")
    tuned, configured = found["tuned"], 0.8
    tried = {entry["target_weight"]: entry["SumR"] for entry in tuned["target_weight"]["tried"]}
    assert tuple(tried) == WEIGHTS and tuned["target_weight"]["configured"] == configured
    for weight in WEIGHTS:
        assert run_test(trained, "--split", "val", f"evaluation.target_weight={weight}").code == 0
        assert metrics_of(trained / "val")["SumR"] == tried[weight]
    best = [weight for weight, total in tried.items() if total == max(tried.values())]
    chosen = tuned["target_weight"]["chosen"]
    assert (
        chosen == min(best, key=lambda weight: (round(abs(weight - configured), 9), -weight)) == found["target_weight"]
    )

    assert nrccr_command("bank", trained, "--root", tiny_collection, "--device", "cpu", "--size", 24).code == 0
    methods = tuned["normalisation"]["tried"]
    first = tuned["normalisation"]["chosen"]
    assert len(methods) == 90 and methods[0] == {"method": "none", "SumR": tried[chosen]}
    assert {one["method"] for one in methods} == {"none", "is", "dis", "dual_is", "dual_dis", "csls", "nnn"}
    for entry in [next(one for one in methods if one["method"] == name) for name in ("dis", "dual_is", "csls", "nnn")]:
        given = [f"evaluation.{name}={value}" for name, value in entry.items() if name not in ("method", "SumR")]
        given += [f"evaluation.normalise={entry['method']}", f"evaluation.target_weight={chosen}"]
        assert run_test(trained, "--split", "val", *given).code == 0
        assert metrics_of(trained / "val")["SumR"] == pytest.approx(entry["SumR"])
    totals = [entry["SumR"] for entry in methods]
    assert {**first, "SumR": max(totals)} == methods[totals.index(max(totals))]


def test_the_test_is_that_of_the_choice(run_test: Command, trained: Path) -> None:
    assert run_test(trained, "--tune").code == 0
    found = metrics_of(trained / "test-tuned")
    assert run_test(trained).code == 0
    plain = metrics_of(trained / "test")
    assert found["untuned"] == {name: plain[name] for name in found["untuned"]}
    assert found["untuned"]["target_weight"] == 0.8 and found["untuned"]["SumR"] > 0
    assert found["normalisation"]["method"] == found["tuned"]["normalisation"]["chosen"]["method"]
    assert found["tuned"]["bank"] == {"split": "train", "size": 24, "seed": 0}
    written = {path.name: path.read_bytes() for path in (trained / "test-tuned").iterdir()}
    assert run_test(trained, "--tune").code == 0
    assert {path.name: path.read_bytes() for path in (trained / "test-tuned").iterdir()} == written


def test_no_test_query_has_a_say(run_test: Command, trained: Path, tiny_collection: Path) -> None:
    assert run_test(trained, "--tune").code == 0
    before = metrics_of(trained / "test-tuned")
    files = sorted((tiny_collection / "vatex" / "TextData").glob("vatextest*"))
    texts = [path.read_text("utf-8") for path in files]
    for path, text in zip(files, texts, strict=True):
        lines = [line.partition(" ") for line in text.splitlines()]
        path.write_text("".join(f"{name} {words[::-1]} 跑 red\n" for name, _, words in lines), "utf-8")
    assert run_test(trained, "--tune").code == 0
    after = metrics_of(trained / "test-tuned")
    assert after["tuned"] == before["tuned"] and after["text_to_visual"] != before["text_to_visual"]
    for path in files:
        path.unlink()
    shutil.rmtree(trained / "test-tuned")
    done = run_test(trained, "--tune")
    assert done.code == 2 and "vatextest" in done.err and len(done.err.splitlines()) == 1
    assert "chosen on validation: target weight" in done.out and not (trained / "test-tuned").exists()


def test_of_equals_the_plainest(toy: Any, toy_split: Callable[..., Split]) -> None:
    split = toy_split({"zh": 20}, 9, translated=True)
    encoded = encoded_of(toy, split)
    own = encoded.embeddings
    same = EncodedQueries(type(own)(own.target, own.target, own.visual), encoded.ids, encoded.item_of)
    rule = Rule(8, CPU, 0.33)
    choice = choose_both(same, rule, None, "val")  # any weight mixes the same twice
    assert choice.target_weight == 0.33 and len(choice.weights) == 22 and choice.settings is None
    unit = own.visual / own.visual.norm(dim=1, keepdim=True)
    queries = unit[torch.from_numpy(encoded.item_of)]
    perfect = EncodedQueries(type(own)(queries, queries, unit), encoded.ids, encoded.item_of)
    choice = choose_both(perfect, rule, bank_of(perfect), "val")  # nothing is better than all right
    assert choice.best == choice.before == 600 and choice.settings is None and choice.normalisation is None
    alone = EncodedQueries(type(own)(None, own.target, own.visual), encoded.ids, encoded.item_of)
    assert choose_both(alone, rule, None, "val").weights == [(0.33, sum_of_recalls(alone, rule, None)(1.0, None))]


def test_of_two_weights_as_near_the_larger_and_at_it_the_best_method(
    toy: Any, toy_split: Callable[..., Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = encoded_of(toy, toy_split({"zh": 20}, 9, translated=True))

    def total(weight: float, settings: Settings | None) -> float:
        gained = 0.5 if weight == 0.55 and settings == Settings("csls", k=5) else 0.0
        return float(weight in (0.3, 0.45, 0.55)) + gained

    monkeypatch.setattr(tune, "sum_of_recalls", lambda *_: total)
    choice = choose_both(encoded, Rule(8, CPU, 0.5), bank_of(encoded), "val")
    assert (choice.target_weight, choice.before, choice.at_weight, choice.best) == (0.55, 0, 1, 1.5)
    assert choice.settings == Settings("csls", k=5)


@pytest.mark.parametrize("options", [["--split", "val"], ["--split", "train", "--transductive"]])
def test_banks_of_other_than_training_queries_are_refused(
    options: list[str], run_test: Command, trained: Path, nrccr_command: Command, tiny_collection: Path
) -> None:
    where = ("--root", tiny_collection, "--device", "cpu")
    assert nrccr_command("bank", trained, *where, "--size", 5, *options).code == 0
    done = run_test(trained, "--tune")
    assert done.code == 2 and "--tune takes one of training queries" in done.err and len(done.err.splitlines()) == 1
    assert not (trained / "test-tuned").exists()


def test_a_training_query_that_is_tested_is_refused(
    run_test: Command, trained: Path, nrccr_command: Command, tiny_collection: Path
) -> None:
    where = ("--root", tiny_collection, "--device", "cpu")
    done = nrccr_command("bank", trained, *where, "--size", 5, "--split", "test", "--transductive")
    record = json.loads((trained / "bank" / "bank.json").read_text())
    (trained / "bank" / "bank.json").write_text(json.dumps(record | {"split": "train", "transductive": False}))
    done = run_test(trained, "--tune")
    assert done.code == 2 and "4 others are in split train and in test" in done.err, done.err
    assert not (trained / "test-tuned").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["evaluation.target_weight=0.5"], "--tune chooses evaluation.target_weight"),
        (["evaluation.beta=3"], "--tune chooses evaluation.beta"),
        (["evaluation.normalise=dis", "evaluation.k=3"], "--tune chooses evaluation.k"),
        (["--split", "val"], "chosen on val"),
        (["--task", "text-to-text"], "are not normalised"),
    ],
)
def test_what_does_not_go_with_it(options: list[str], words: str, run_test: Command, trained: Path) -> None:
    done = run_test(trained, "--tune", *options)
    assert done.code == 2 and words in done.err and len(done.err.splitlines()) == 1


def test_a_given_method_keeps_its_weight(run_test: Command, trained: Path) -> None:
    """Only its parameters are chosen then, with the run's own bank; none is drawn."""
    done = run_test(trained, "--tune", "evaluation.normalise=nnn")
    assert done.code == 2 and "no bank there" in done.err


def test_c2kd_draws_a_bank_for_each_language(
    nrccr_command: Command, c2kd_config: Path, tiny_languages: Path, tmp_path: Path
) -> None:
    where, run = ("--root", tiny_languages, "--device", "cpu"), tmp_path / "run"
    assert nrccr_command("train", c2kd_config, *where, "--out", run, "train.epochs=1").code == 0
    assert nrccr_command("test", run, *where).code == 0
    done = nrccr_command("test", run, *where, "--tune")
    assert done.code == 0 and done.out.count("chosen on validation, queries in") == 3, done.err
    plain, found = metrics_of(run / "test"), metrics_of(run / "test-tuned")
    assert found["untuned"]["mean"] == {name: plain["mean"][name] for name in found["untuned"]["mean"]}
    totals = []
    for language, own in found["languages"].items():
        # The captions of a training video are one query; one of the 12 has none in German.
        assert own["tuned"]["bank"]["size"] == (11 if language == "de" else 12)
        assert [entry["target_weight"] for entry in own["tuned"]["target_weight"]["tried"]] == [0.8]
        assert own["normalisation"]["method"] == own["tuned"]["normalisation"]["chosen"]["method"]
        untuned = found["untuned"]["languages"][language]
        assert untuned == {name: plain["languages"][language][name] for name in untuned}
        totals.append(own["SumR"])
    assert found["mean"]["SumR"] == pytest.approx(sum(totals) / 3)


@pytest.fixture
def other_systems(
    nrccr_command: Command, quartet_config: Path, mlcmr_config: Path, both_languages: Path, tmp_path: Path
) -> Callable[..., tuple[Path, Any]]:
    """A function of a system's name: its run after `nrccr test --tune`, and what that said."""
    text = both_languages / "vatex" / "TextData"
    chinese = (text / "vatexval_zh.caption.txt").read_text("utf-8")
    (text / "vatexval_google_enc2zh.caption.txt").write_text(chinese.replace("#zh#", "#enc2zh#"), "utf-8")

    def tuned(name: str, *options: str) -> tuple[Path, Any]:
        where, run = ("--root", both_languages, "--device", "cpu"), tmp_path / name
        config = {"quartet": quartet_config, "mlcmr": mlcmr_config}[name]
        assert nrccr_command("train", config, *where, "--out", run, "train.epochs=1", *options).code == 0
        return run, nrccr_command("test", run, *where, "--tune")

    return tuned


def test_quartet_and_mlcmr(other_systems: Callable[..., tuple[Path, Any]]) -> None:
    run, done = other_systems("quartet")
    assert done.code == 0, done.err
    assert metrics_of(run / "test-tuned")["tuned"]["bank"]["size"] == 24
    run, done = other_systems("mlcmr")
    assert done.code == 0, done.err
    each = [metrics_of(run / "test-tuned" / name) for name in ("", "en")]
    assert [one["queries_in"] for one in each] == ["zh", "en"] and done.out.count("chosen on validation, queries") == 2
    for one in each:
        assert one["target_weight"] == one["tuned"]["target_weight"]["chosen"]


def test_training_captions_without_translations_leave_the_weight(
    other_systems: Callable[..., tuple[Path, Any]],
) -> None:
    run, done = other_systems("mlcmr", "data.scenario=unparallel")
    assert done.code == 0 and done.out.count("no bank of training queries") == 2, done.err
    found = metrics_of(run / "test-tuned")
    assert found["tuned"]["bank"] is None and found["normalisation"]["method"] == "none"
    assert len(found["tuned"]["target_weight"]["tried"]) >= len(WEIGHTS)


def test_tables_have_both(trained: Path, run_test: Command, nrccr_command: Command) -> None:
    assert run_test(trained).code == 0 and run_test(trained, "--tune").code == 0
    done = nrccr_command("table", "--runs", trained)
    assert done.code == 0 and "evaluation.target_weight=tuned, normalisation.method=tuned" in done.out, done.err
    assert f"{metrics_of(trained / 'test')['SumR']:.1f}" in done.out
    assert f"{metrics_of(trained / 'test-tuned')['SumR']:.1f}" in done.out
    again = nrccr_command("compare", trained / "test", trained / "test-tuned", "--resamples", 100)
    assert again.code == 0 and "b = test-tuned" in again.out
