"""A run of every system: what `nrccr.load` gives of it, and its splits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nrccr
from nrccr.data.queries import Sample
from nrccr.errors import UserError
from nrccr.evaluation.evaluate import evaluate
from nrccr.evaluation.rule import Rule
from nrccr.systems.base import splits_of


@dataclass(frozen=True)
class Kind:
    """What the fixtures and splits of a system are called; queries by split's folder and language."""

    config: str
    root: str
    collection: str
    feature: str
    queries: dict[str, dict[str, int]]


KINDS = {
    "nrccr": Kind("tiny_config", "tiny_collection", "vatex", "i3d_kinetics", {"": {"zh": 16}}),
    "mlcmr": Kind("mlcmr_config", "both_languages", "vatex", "i3d_kinetics", {"": {"zh": 16}, "en": {"en": 16}}),
    "c2kd": Kind("c2kd_config", "tiny_languages", "multi_msrvtt", "clip", {"": {"en": 8, "de": 8, "zh": 7}}),
}


@dataclass(frozen=True)
class Run:
    """A trained run and the root of its data."""

    system: str
    path: Path
    root: Path


@pytest.fixture(params=list(KINDS))
def run(
    request: pytest.FixtureRequest,
    nrccr_command: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
) -> Run:
    """A tested run folder of each system, trained once for all tests."""
    system = str(request.param)
    kind = KINDS[system]
    config, root = request.getfixturevalue(kind.config), request.getfixturevalue(kind.root)
    kept = tmp_path_factory.getbasetemp() / f"splits_of_{system}"
    if not kept.exists():
        where = ("--root", root, "--out", kept, "--device", "cpu")
        done = nrccr_command("train", config, *where, "--test", "train.epochs=1")
        assert done.code == 0, done.err
    return Run(system, Path(shutil.copytree(kept, tmp_path / "run")), root)


def test_every_system_is_loaded_and_encodes(run: Run) -> None:
    model = nrccr.load(run.path)
    assert model.config.model == run.system and model.feature_width == 16 and not model.network.training
    assert model.checkpoint == run.path / "model.safetensors"
    texts = model.encode_text(["a man runs", "red ball", "dog"], role="source")
    videos = model.encode_video([np.ones((2, 16)), np.ones((5, 16))])
    assert texts.shape == (3, 24) and videos.shape == (2, 24)
    for vectors in (texts, videos):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", ["val", "test"])
def test_splits_are_those_of_a_test(run: Run, name: Any) -> None:
    kind, model = KINDS[run.system], nrccr.load(run.path)
    if run.system == "mlcmr" and name == "val":  # the tiny collection has no translations of English validation queries
        with pytest.raises(UserError, match="vatexval_google_enc2zh"):
            list(splits_of(model, run.root, name))
        return
    splits = list(splits_of(model, run.root, name))
    assert [split.folder for split in splits] == list(kind.queries)
    for split in splits:
        assert (split.name, split.collection) == (name, kind.collection)
        assert split.visuals.ids == [f"{name}{video}" for video in range(8)]
        wanted = kind.queries[split.folder]
        if name == "val" and run.system == "c2kd":  # nothing lacks there
            wanted = dict.fromkeys(wanted, 8)
        assert {language: len(own.ids) for language, own in split.queries.items()} == wanted
        assert (split.language, split.headline) == next(iter(split.queries.items()))
        for queries in split.queries.values():
            assert [split.visuals.ids[item] for item in queries.item_of] == [one.split("#")[0] for one in queries.ids]


def test_evaluating_its_splits_gives_the_metrics_of_its_test(run: Run) -> None:
    model = nrccr.load(run.path)
    rule = Rule.of(model.config, model.device)
    for split in list(splits_of(model, run.root, "test")):
        found = evaluate(model.network, split, rule)
        written = json.loads((run.path / "test" / split.folder / "metrics.json").read_text())
        if not split.by_language:
            assert {name: written[name] for name in found} == found
            continue
        for language, own in found["languages"].items():
            assert {name: written["languages"][language][name] for name in own} == own
        assert {name: written["mean"][name] for name in found["mean"]} == found["mean"]


def test_samples(run: Run) -> None:
    model = nrccr.load(run.path)
    if run.system == "c2kd":  # five items of each language, with all their captions: these are averaged
        for seed in (0, 1):
            (whole,) = splits_of(model, run.root, "train")
            (split,) = splits_of(model, run.root, "train", Sample(5, seed))
            assert split.queries.keys() == whole.queries.keys()
            for language, queries in split.queries.items():
                items = {name.split("#")[0] for name in queries.ids}
                every = [name for name in whole.queries[language].ids if name.split("#")[0] in items]
                assert len(items) == 5 and queries.ids == every and items <= set(split.visuals.ids)
                assert [split.visuals.ids[item] for item in queries.item_of] == [one.split("#")[0] for one in every]
    for seed in (0, 1):
        for split in splits_of(model, run.root, "train", Sample(5, seed)) if run.system != "c2kd" else ():
            items = [name.split("#")[0] for name in split.headline.ids]
            assert len(items) == 5 and split.visuals.ids == list(dict.fromkeys(items))
    drawn = [list(splits_of(model, run.root, "train", Sample(5, seed)))[0].headline.ids for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_features_of_another_width_are_one_line(run: Run) -> None:
    kind = KINDS[run.system]
    folder = run.root / kind.collection / "FeatureData" / kind.feature
    wide = Path(shutil.copytree(folder, folder.with_name("wide")))
    matrix = np.fromfile(wide / "feature.bin", dtype="<f4").reshape(-1, 16)
    np.hstack([matrix, matrix]).astype("<f4").tofile(wide / "feature.bin")
    (wide / "shape.txt").write_text(f"{len(matrix)} 32\n")
    model = nrccr.load(run.path, overrides=["data.feature=wide"])
    with pytest.raises(UserError) as caught:
        list(splits_of(model, run.root, "test"))
    message = str(caught.value)
    assert message.startswith(str(wide)) and "\n" not in message
    assert "32 wide" in message and "on 16; give the features it was trained on as data.feature=NAME" in message
