"""What C2KD refuses: configurations, teachers, and what a test or a bank cannot give of several languages."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Command = Callable[..., Any]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["c2kd.stage=distill"], "give run folders or published checkpoints as c2kd.teachers"),
        (
            ["c2kd.stage=distill", "c2kd.teachers=[nowhere]"],
            "c2kd.teachers: nowhere: no such run folder or checkpoint; train it first (scripts/c2kd/teachers.sh)",
        ),
        (["c2kd.stage=distill", "c2kd.teachers=['']"], "c2kd.teachers holds an empty name"),
        (["c2kd.labse=./no/where"], "c2kd.labse=./no/where is not used by c2kd.teachers=[] where switches.pool_mask"),
        (["c2kd.stage=distill", "c2kd.teachers=[a,b]", "c2kd.teacher_models=[x]"], "1 encoders for 2 teachers"),
        (["c2kd.teachers=[a]"], "is not used by c2kd.stage=translate_train"),
        (["c2kd.pooling=mean"], "c2kd.pooling=mean is not used by c2kd.stage=translate_train"),
        (["c2kd.stage=distill", "c2kd.mixing_learning_rate=1"], "is not used by c2kd.pooling=maximum"),
        (
            ["c2kd.stage=distill", "c2kd.distillation=smooth_l1", "c2kd.distill_temperature=1"],
            "is not used by c2kd.distillation=smooth_l1",
        ),
        (["c2kd.temperature=0"], "c2kd.temperature=0 is out of range"),
        (["c2kd.query_tokens=2"], "c2kd.query_tokens=2 is out of range"),
        (["c2kd.words=''"], "c2kd.words is empty"),
        (["c2kd.words=nowhere.txt"], "nowhere.txt: cannot be read"),
        (["c2kd.pooling=max"], "c2kd.pooling"),
        (["loss.target=0.3"], "loss.target=0.3 is not used by model=c2kd"),
        (["data.task=2"], "data.task=2 is not used by model=c2kd"),
        (["data.languages=[de,zh]"], "training needs English captions; add en"),
        (["data.languages=[en,it]"], "multi_msrvtt has no 'it'"),
        (["data.languages=[en,sw]"], "no file multi_msrvtttrain_sw.caption.txt"),
        (["data.collection=mscoco"], "cannot be read by language"),
        (["data.translator=other"], "has one text only"),
        (["visual.kind=vectors"], "holds videos; set visual.kind=video"),
        (["visual.heads=3"], "visual.heads=3 must divide visual.width=16"),
        (["data.feature=s3d"], "no such feature folder"),
        (["switches.pool_mask=labse", "c2kd.labse=./no/where"], "c2kd.labse=./no/where: no tokeniser there"),
        (["model=nrccr"], "is not used by model=nrccr"),
    ],
)
def test_refusals(learn: Command, tmp_path: Path, options: list[str], says: str) -> None:
    done = learn(tmp_path / "run", *options)
    assert done.code == 2 and len(done.err.splitlines()) == 1 and says in done.err, done.err
    assert not (tmp_path / "run").exists()


def test_teachers_that_do_not_fit(
    learn: Command, teachers: list[Path], trained: Path, tiny_languages: Path, tmp_path: Path
) -> None:
    done = learn(tmp_path / "student", "c2kd.stage=distill", f"c2kd.teachers=[{trained}]")
    assert done.code == 2 and "is a model of nrccr; teachers are C2KD's" in done.err
    wide = tiny_languages / "multi_msrvtt" / "FeatureData" / "wide"
    shutil.copytree(wide.with_name("clip"), wide)
    matrix = np.fromfile(wide / "feature.bin", dtype="<f4").reshape(-1, 16)
    np.hstack([matrix, matrix]).astype("<f4").tofile(wide / "feature.bin")
    (wide / "shape.txt").write_text(f"{len(matrix)} 32\n")
    done = learn(tmp_path / "student", "c2kd.stage=distill", f"c2kd.teachers=[{teachers[0]}]", "data.feature=wide")
    assert done.code == 2 and "was trained on features 16 wide, these are 32" in done.err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--by-length"], "--by-length: the captions of an item of multi_msrvtt are averaged into one query; leave it"),
        (["--bank", "bank"], "--bank: scores of model=c2kd are not normalised by it; leave it out"),
        (["--task=text-to-text"], "--task text-to-text: these queries have no translations to be ranked; leave it out"),
        (["evaluation.normalise=dis"], "evaluation.normalise=dis is not used by model=c2kd"),
    ],
)
def test_what_this_system_does_not_offer(
    nrccr_command: Command, teachers: list[Path], tiny_languages: Path, options: list[str], says: str
) -> None:
    done = nrccr_command("test", teachers[0], "--root", tiny_languages, "--device", "cpu", *options)
    assert done.code == 2 and len(done.err.splitlines()) == 1 and says in done.err, done.err
    assert not [path for path in teachers[0].glob("test*/**/*") if path.is_file()]


@pytest.mark.parametrize("split", ["train", "val"])
def test_there_is_no_bank_of_several_languages(
    nrccr_command: Command, teachers: list[Path], tiny_languages: Path, split: str
) -> None:
    where = ("--root", tiny_languages, "--device", "cpu")
    done = nrccr_command("bank", teachers[0], *where, "--size", 5, "--split", split)
    assert done.code == 2 and len(done.err.splitlines()) == 1, done.err
    assert "model=c2kd: its queries are in several languages" in done.err
    assert not (teachers[0] / "bank").exists()
