"""The numbers behind the curves and lists of distrusted translations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nrccr.data.generated.errors import spelt
from nrccr.evaluation.detection import detect
from nrccr.report import distrust
from nrccr.report.finished import ReportRun, read

Command = Callable[..., Any]


def doubts(run: ReportRun) -> distrust.Doubts:
    translations = distrust.read_translations(run.retriever, run.root)
    assert translations is not None
    return distrust.doubts_of(run.label, run.retriever, translations)


def test_doubts_are_those_of_the_captions(noisy: list[ReportRun]) -> None:
    run = noisy[1]
    found, retriever = doubts(run), run.retriever
    translations = found.translations
    english = retriever.model.cleaning.of_training(translations.sources)
    source = retriever.encode_text(english, role="source").astype(float)
    for values, texts in (
        (found.doubt, translations.targets),
        (found.spelt[0] if found.spelt else None, [spelt(own.noisy, "de") for own in translations.known if own]),
        (found.spelt[1] if found.spelt else None, [spelt(own.clean, "de") for own in translations.known if own]),
    ):
        target = retriever.encode_text(texts).astype(float)
        np.testing.assert_allclose(values, [1 - a @ b for a, b in zip(source, target, strict=True)], atol=1e-5)
    assert found.lost is not None
    for own, lost in zip(translations.known, found.lost, strict=True):
        assert own is not None
        there = list(own.noisy)
        gone = [word for word in own.clean if word not in there or there.remove(word)]
        assert lost == pytest.approx(len(gone) / len(own.clean))


def test_parts_of_two_runs(noisy: list[ReportRun]) -> None:
    made = {part.name: part for part in distrust.parts(noisy)}
    assert list(made) == ["distrust", "distrust-numbers", "distrusted", "distrusted-2"]
    rows = made["distrust-numbers"].rows
    for run in noisy:
        found = doubts(run)
        assert found.worse is not None and found.spelt is not None
        (mixed,) = (row for row in rows if row["run"] == run.label and row["finding"] == distrust.MIXED)
        (worse,) = (row for row in rows if row["run"] == run.label and row["finding"] == distrust.WORSE)
        assert mixed["wrong %"] == 50 and mixed["ranked"] == 2 * len(found.chosen)
        preferred = [noise > clean for noise, clean in zip(*found.spelt, strict=True)]
        assert mixed["clean sentence preferred %"] == pytest.approx(100 * np.mean(preferred))
        assert worse["average precision %"] == pytest.approx(100 * detect(found.doubt, found.worse).average_precision)
        assert worse["wrong %"] == pytest.approx(100 * np.mean(found.worse)) and found.worse.mean() <= 0.5
        curve = [row for row in made["distrust"].rows if row["run"] == run.label and row["finding"] == distrust.WORSE]
        order = np.argsort(-found.doubt)
        for row in curve:
            first = found.worse[order[: int(str(row["looked at"]))]]
            assert row["precision %"] == pytest.approx(100 * first.mean())
            assert row["recall %"] == pytest.approx(100 * first.sum() / found.worse.sum())
        assert curve[-1]["recall %"] == 100 and curve[-1]["looked at"] == len(found.chosen)
        shown = made["distrusted" if run is noisy[0] else "distrusted-2"]
        assert shown.shown and shown.languages == {"source": "en", "translation": "de", "clean sentence": "de"}
        worst = [found.translations.ids[at] for at in order[: distrust.TOP]]
        assert [row["caption"] for row in shown.rows] == worst
        assert shown.rows[0]["translation"] == found.translations.targets[order[0]]


def test_unknown_clean_sentences(trained: Path, tiny_collection: Path) -> None:
    (part,) = distrust.parts(read([trained], tiny_collection, "cpu"))
    assert part.name == "distrusted" and len(part.rows) == distrust.TOP
    assert "clean sentence" not in part.rows[0] and part.languages == {"source": "en", "translation": "zh"}
    values = [float(str(row["disagreement"])) for row in part.rows]
    assert values == sorted(values, reverse=True)


def test_both_other_systems(
    nrccr_command: Command, mlcmr_config: Path, both_languages: Path, c2kd_config: Path, tiny_languages: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    for name, config, root in (("m", mlcmr_config, both_languages), ("c", c2kd_config, tiny_languages)):
        words = ("--root", root, "--device", "cpu", "--out", tmp_path / name, "train.epochs=1")
        assert nrccr_command("train", config, *words).code == 0
        (part,) = distrust.parts(read([tmp_path / name], root, "cpu"))
        assert part.rows and all(0 <= float(str(row["disagreement"])) <= 2 for row in part.rows)


def test_nothing_to_distrust(nrccr_command: Command, mlcmr_config: Path, both_languages: Path, tmp_path: Path) -> None:
    words = ("--root", both_languages, "--device", "cpu", "--out", tmp_path / "m", "train.epochs=1")
    assert nrccr_command("train", mlcmr_config, *words, "data.scenario=unparallel").code == 0
    (part,) = distrust.parts(read([tmp_path / "m"], both_languages, "cpu"))
    assert not part.rows and "Trained without translations: m." in part.text
