"""What runs of every system were trained on, with their vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nrccr.data.captions import read_captions
from nrccr.report.finished import ReportRun
from nrccr.report.translations import Translations, read_translations
from nrccr.systems.loading import load_retriever
from nrccr.systems.retriever import Retriever

Command = Callable[..., Any]


def pairs_of(retriever: Retriever, root: Path) -> Translations:
    found = read_translations(retriever, root)
    assert found is not None and len(found) == len(found.sources) == len(found.targets) == len(found.known)
    return found


def test_nrccr_with_what_is_known(noisy: list[ReportRun]) -> None:
    run = noisy[1]
    found = pairs_of(run.retriever, run.root)
    text = run.root / "generated" / "TextData"
    english = read_captions(text / "generatedtrain.caption.txt")
    german = read_captions(text / "generatedtrain_noise40_enc2de.caption.txt")
    assert (found.source_language, found.language) == ("en", "de") and found.ids == english.ids
    assert found.sources == english.texts and found.targets == german.texts
    for known, sentence in zip(found.known, german.texts, strict=True):
        assert known is not None and {*known.fates_in(sentence, [(0, len(sentence))])} - {None}
    assert [found.split.visuals.ids[at] for at in found.item_of] == english.items


def test_vectors_are_each_pairs_own(noisy: list[ReportRun]) -> None:
    run = noisy[1]
    retriever, found = run.retriever, pairs_of(run.retriever, run.root)
    chosen = np.array([13, 2, 7, 3])
    vectors = found.embed(retriever, chosen)
    assert vectors.source is not None
    english = retriever.model.cleaning.of_training([found.sources[at] for at in chosen])
    for own, texts in ((vectors.source, english), (vectors.target, [found.targets[at] for at in chosen])):
        with torch.inference_mode():
            alone = [retriever.network.embed_text(retriever.tokenizer.encode([text]).batch([0]))[0] for text in texts]
        torch.testing.assert_close(own, torch.stack(alone), atol=1e-5, rtol=0)
    with torch.inference_mode():
        items = [retriever.network.embed_visual(found.split.visuals.batch([found.item_of[at]]))[0] for at in chosen]
    torch.testing.assert_close(vectors.visual, torch.stack(items), atol=1e-5, rtol=0)


def test_sample(noisy: list[ReportRun]) -> None:
    found = pairs_of(noisy[0].retriever, noisy[0].root)
    assert np.array_equal(found.sample(len(found), 0), np.arange(len(found)))
    drawn = found.sample(6, 1)
    assert len(set(drawn)) == 6 and sorted(drawn) == drawn.tolist() and np.array_equal(drawn, found.sample(6, 1))
    assert not np.array_equal(drawn, found.sample(6, 2))


@pytest.mark.parametrize(("target", "scenario"), [("zh", "translate"), ("en", "translate"), ("zh", "parallel")])
def test_mlcmr(
    target: str, scenario: str, nrccr_command: Command, mlcmr_config: Path, both_languages: Path, tmp_path: Path
) -> None:
    words = ("--root", both_languages, "--device", "cpu", "--out", tmp_path / "m", "train.epochs=1")
    done = nrccr_command("train", mlcmr_config, *words, f"data.target={target}", f"data.scenario={scenario}")
    assert done.code == 0, done.err
    found = pairs_of(load_retriever(tmp_path / "m", [], "cpu"), both_languages)
    files = {
        ("zh", "translate"): ("vatextrain", "vatextrain_google_enc2zh"),
        ("en", "translate"): ("vatextrain_zh", "vatextrain_google_zhc2en"),
        ("zh", "parallel"): ("vatextrain", "vatextrain_zh"),
    }[target, scenario]
    texts = [read_captions(both_languages / "vatex" / "TextData" / f"{name}.caption.txt").texts for name in files]
    assert [found.sources, found.targets] == texts and found.language == target and set(found.known) == {None}
    vectors = found.embed(load_retriever(tmp_path / "m", [], "cpu"), np.arange(5))
    assert vectors.source is not None and vectors.source.shape == vectors.target.shape == vectors.visual.shape


def test_mlcmr_without_translations(
    nrccr_command: Command, mlcmr_config: Path, both_languages: Path, tmp_path: Path
) -> None:
    words = ("--root", both_languages, "--device", "cpu", "--out", tmp_path / "m", "train.epochs=1")
    assert nrccr_command("train", mlcmr_config, *words, "data.scenario=unparallel").code == 0
    assert read_translations(load_retriever(tmp_path / "m", [], "cpu"), both_languages) is None


def test_c2kd_pairs_captions_of_one_number(
    nrccr_command: Command, c2kd_config: Path, tiny_languages: Path, tmp_path: Path
) -> None:
    words = ("--root", tiny_languages, "--device", "cpu", "--out", tmp_path / "c", "train.epochs=1")
    assert nrccr_command("train", c2kd_config, *words).code == 0
    retriever = load_retriever(tmp_path / "c", [], "cpu")
    found = pairs_of(retriever, tiny_languages)
    assert found.source_language == "en" and found.language in ("de", "zh")
    text = tiny_languages / "multi_msrvtt" / "TextData"
    english = read_captions(text / "multi_msrvtttrain_en.caption.txt")
    other = read_captions(text / f"multi_msrvtttrain_{found.language}.caption.txt")
    both = dict(zip(english.keys, english.texts, strict=True)), dict(zip(other.keys, other.texts, strict=True))
    keys = [key for key in english.keys if key in both[1]]
    assert [found.sources, found.targets] == [[own[key] for key in keys] for own in both]
    vectors = found.embed(retriever, np.arange(len(found)))
    assert vectors.source is not None
    direct = retriever.encode_text(found.targets[:3])
    np.testing.assert_allclose(vectors.target[:3].numpy(), direct, atol=1e-5)
