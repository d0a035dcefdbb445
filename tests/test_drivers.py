"""The drivers' command lines, seen by a stand-in for python that prints what it is asked to run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
Drive = Callable[..., subprocess.CompletedProcess[str]]
COLLECTIONS = ("vatex", "msrvttcn")
SCRIPTS = sorted([*CHECKOUT.glob("*.sh"), *CHECKOUT.glob("scripts/**/*.sh"), CHECKOUT / ".ci/run"])


@pytest.fixture
def drive(tmp_path: Path) -> Drive:
    """Runs a driver from an unrelated folder; returns the process, whose output has one argument a line."""
    fake = tmp_path / "bin" / "python3"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexit ${FAKE_EXIT:-0}\n')
    fake.chmod(0o755)

    def run(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        base = {key: value for key, value in os.environ.items() if key not in ("CONFIG", "OUT", "CONDA_PREFIX")}
        path = f"{fake.parent}{os.pathsep}{base['PATH']}"
        return subprocess.run(
            [str(CHECKOUT / name), *arguments],
            cwd=tmp_path,
            env={**base, "PATH": path, "VIRTUAL_ENV": str(tmp_path), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def arguments(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize("collection", [*COLLECTIONS, "mscoco"])
def test_do_all(drive: Drive, collection: str) -> None:
    config = str(CHECKOUT / f"configs/nrccr/{collection}.yaml")
    start = ["-m", "nrccr", "train", config, "--root", "my data", "--device"]
    name = f"do_all_{collection}.sh"
    assert arguments(drive(name, "my data", "cpu")) == [*start, "cpu", "--test"]
    assert arguments(drive(name, "my data", "0,1,3")) == [*start, "0,1,3", "--test"]
    assert arguments(drive(name, "my data", "1", "--resume", "seed=2", "text.model=a b")) == [
        *start, "cuda:1", "--test", "--resume", "seed=2", "text.model=a b"
    ]  # fmt: skip


def test_do_all_takes_another_config_and_run_folder(drive: Drive) -> None:
    done = drive("do_all_vatex.sh", "root", "cpu", "seed=1", CONFIG="my own.yaml", OUT="runs/my run")
    assert arguments(done) == [
        "-m", "nrccr", "train", "my own.yaml", "--root", "root", "--device", "cpu", "--test",
        "--out", "runs/my run", "seed=1",
    ]  # fmt: skip


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_do_test(drive: Drive, collection: str) -> None:
    done = drive(f"do_test_{collection}.sh", "root", "runs/a b", "0", "evaluation.batch_size=16")
    assert arguments(done) == [
        "-m", "nrccr", "test", "runs/a b", "--root", "root", "--device", "cuda:0",
        f"data.collection={collection}", "evaluation.batch_size=16",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("do_all_vatex.sh", (), "usage"),
        ("do_all_vatex.sh", ("root",), "usage"),
        ("do_all_msrvttcn.sh", ("root",), "usage"),
        ("do_test_vatex.sh", ("root", "model"), "usage"),
        ("do_test_msrvttcn.sh", ("root", "model"), "usage"),
        ("do_all_vatex.sh", ("root", "0,,1"), "'0,,1'"),
        ("do_test_vatex.sh", ("root", "model", "0,1,"), "'0,1,'"),
        ("do_all_vatex.sh", ("root", "gpu"), "'gpu'"),
        ("do_all_vatex.sh", ("root", ""), "''"),
        ("do_all_vatex.sh", ("root", "seed=1"), "'seed=1'"),
        ("do_all_multi30k.sh", (), "usage"),
        ("do_all_multi30k.sh", ("root",), "usage"),
        ("do_all_multi30k.sh", ("root", "seed=1"), "usage"),
        ("do_all_multi30k.sh", ("root", "1", "0", "2"), "usage"),
        ("do_all_multi30k.sh", ("root", "3", "0"), "'3'"),
        ("do_all_multi30k.sh", ("root", "1", "0", "data.task=2"), "contradict"),
        ("do_all_mscoco.sh", ("root",), "usage"),
        ("do_test_multi30k.sh", ("root", "model", "cpu"), "usage"),
        ("do_test_mscoco.sh", ("root", "model", "None"), "usage"),
        ("do_test_mscoco.sh", ("root", "model", "None", "gpu"), "'gpu'"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_2(drive: Drive, name: str, given: tuple[str, ...], says: str) -> None:
    done = drive(name, *given)
    assert done.returncode == 2 and done.stdout == ""
    assert says in done.stderr and len(done.stderr.splitlines()) == 1


MULTI30K = ["-m", "nrccr", "train", str(CHECKOUT / "configs/nrccr/multi30k.yaml"), "--root", "my=data", "--device"]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (("cpu",), ["cpu", "--test"]),
        (("1",), ["cuda:1", "--test"]),
        (("2", "0"), ["cuda:0", "--test", "data.task=2"]),
        (("1", "cpu", "--resume", "seed=2"), ["cpu", "--test", "--resume", "seed=2", "data.task=1"]),
        (("1", "seed=2"), ["cuda:1", "--test", "seed=2"]),
        (("cpu", "data.task=2"), ["cpu", "--test", "data.task=2"]),
        (("2", "cpu", "data.task=2"), ["cpu", "--test", "data.task=2", "data.task=2"]),
    ],
)
def test_do_all_multi30k_counts_its_arguments(drive: Drive, given: tuple[str, ...], wanted: list[str]) -> None:
    assert arguments(drive("do_all_multi30k.sh", "my=data", *given)) == [*MULTI30K, *wanted]


def test_do_all_multi30k_takes_another_config_and_run_folder(drive: Drive) -> None:
    done = drive("do_all_multi30k.sh", "root", "2", "cpu", "seed=1", CONFIG="my own.yaml", OUT="runs/my run")
    assert arguments(done) == [
        "-m", "nrccr", "train", "my own.yaml", "--root", "root", "--device", "cpu", "--test",
        "--out", "runs/my run", "seed=1", "data.task=2",
    ]  # fmt: skip


@pytest.mark.parametrize("collection", ["multi30k", "mscoco"])
@pytest.mark.parametrize(
    ("images", "key"), [("None", []), ("my pics", ["image.path='my pics'"]), ("it's", ["image.path='it''s'"])]
)
def test_do_test_of_images(drive: Drive, collection: str, images: str, key: list[str]) -> None:
    done = drive(f"do_test_{collection}.sh", "root", "runs/a b", images, "0", "--split", "val", "seed=3")
    assert arguments(done) == [
        "-m", "nrccr", "test", "runs/a b", "--root", "root", "--device", "cuda:0", f"data.collection={collection}",
        "--split", "val", "seed=3", *key,
    ]  # fmt: skip


def test_exit_code_is_that_of_the_run(drive: Drive) -> None:
    assert drive("do_all_vatex.sh", "root", "cpu", FAKE_EXIT="7").returncode == 7


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: str(script.relative_to(CHECKOUT)))
def test_scripts_parse(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    sourced = script.name == "driver.sh"
    assert os.access(script, os.X_OK) is not sourced, "run scripts are executable, the sourced one is not"


RUN = [script for script in SCRIPTS if script.name != "driver.sh"]


@pytest.mark.parametrize("script", RUN, ids=lambda script: str(script.relative_to(CHECKOUT)))
def test_scripts_find_bash_and_their_own_place(script: Path) -> None:
    """Begun as `sh SCRIPT` or through a link; two of them are begun below."""
    lines = script.read_text().splitlines()
    bash = next(
        number for number, line in enumerate(lines) if line.startswith('[ -n "${BASH_VERSION:-}" ] || exec bash')
    )
    assert all(line.startswith("#") for line in lines[:bash]), "sh stops at what comes before"
    assert all("readlink -f" in line for line in lines if "dirname" in line)


@pytest.mark.parametrize("name", ["do_all_vatex.sh", "scripts/c2kd/test.sh"])
def test_through_sh_and_a_link(drive: Drive, name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.sh").symlink_to(CHECKOUT / name)
    given = ("root", "cpu") if name == "do_all_vatex.sh" else ("msrvtt", "root", "run", "cpu")
    straight = arguments(drive(name, *given))
    assert straight[:2] == ["-m", "nrccr"]
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    environment |= {"VIRTUAL_ENV": str(tmp_path)}
    for shell in (["sh"], ["bash"], []):
        for script in (str(tmp_path / "mine.sh"), str(CHECKOUT / name)):
            done = subprocess.run(
                [*shell, script, *given], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            assert arguments(done) == straight


def mlcmr(config: str, scenario: str, weight: str, target: str, *options: str) -> list[str]:
    """The arguments that MLCMR's driver is expected to pass on."""
    return [
        "-m", "nrccr", "train", config, "--root", "my root", *options, "data.collection=vatex",
        "data.feature=i3d_kinetics", f"data.scenario={scenario}", f"data.target={target}",
        f"evaluation.target_weight={weight}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "labels", "target", "scenario", "weight"),
    [
        ("parallel", "human_label", "zh", "parallel", "0.85"),
        ("parallel", "translate", "en", "translate", "0.55"),
        ("unparallel", "human_label", "zh", "unparallel", "0.55"),
    ],
)
def test_mlcmr_do_all(drive: Drive, mode: str, labels: str, target: str, scenario: str, weight: str) -> None:
    given = ("scripts/mlcmr/do_all.sh", "vatex", "i3d_kinetics", mode, labels, target, "my root")
    config = str(CHECKOUT / f"configs/mlcmr/vatex-{scenario}-{target}.yaml")
    folder = f"runs/vatex-{scenario}-{target}"
    wanted = mlcmr(config, scenario, weight, target, "--test", "--out", f"{folder}-s0")
    assert arguments(drive(*given)) == wanted  # no GPU named: the program chooses
    wanted = mlcmr(config, scenario, weight, target, "--device", "cuda:1", "--test", "--out", f"{folder}-s2")
    assert arguments(drive(*given, "1", "--resume", "seed=2")) == [*wanted, "--resume", "seed=2"]


def test_mlcmr_scenarios_of_one_config_have_folders_of_their_own(drive: Drive) -> None:
    given = ("scripts/mlcmr/do_all.sh", "vatex", "i3d_kinetics", "unparallel", "human_label", "zh", "my root", "cpu")
    small = str(CHECKOUT / "configs/mlcmr/vatex-small.yaml")
    wanted = mlcmr(small, "unparallel", "0.55", "zh", "--device", "cpu", "--test", "--out")
    at = wanted.index("--out") + 1
    for environment, folder in (({}, "runs/vatex-small-unparallel-zh-s1"), ({"OUT": "runs/my run"}, "runs/my run")):
        found = arguments(drive(*given, "seed=1", CONFIG=small, **environment))
        assert found == [*wanted[:at], folder, *wanted[at:], "seed=1"]


def test_mlcmr_knows_msrvtt_by_both_names(drive: Drive) -> None:
    for name in ("msrvtt10k", "msrvtt10kyu"):
        done = drive(
            "scripts/mlcmr/do_all.sh", name, "resnext101-resnet152", "parallel", "translate", "zh", "root", "cpu"
        )
        assert str(CHECKOUT / "configs/mlcmr/msrvtt10kyu-translate-zh.yaml") in arguments(done)
        assert "data.collection=msrvtt10kyu" in arguments(done)


def test_mlcmr_do_test(drive: Drive) -> None:
    done = drive("scripts/mlcmr/do_test.sh", "vatex", "root", "runs/a b", "0", "--split", "val", "a=1")
    assert arguments(done) == [
        "-m", "nrccr", "test", "runs/a b", "--root", "root", "--device", "cuda:0", "data.collection=vatex",
        "--split", "val", "a=1",
    ]  # fmt: skip
    assert "--device" not in arguments(drive("scripts/mlcmr/do_test.sh", "vatex", "root", "model"))


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("do_all.sh", ("vatex", "i3d_kinetics", "parallel", "human_label", "zh"), "usage"),
        ("do_all.sh", ("vatex", "i3d_kinetics", "parallel", "human", "zh", "root"), "'parallel human'"),
        ("do_all.sh", ("vatex", "i3d_kinetics", "unparallel", "translate", "zh", "root"), "'unparallel translate'"),
        ("do_all.sh", ("msrvtt10k", "f", "parallel", "human_label", "zh", "root"), "no such configuration"),
        ("do_all.sh", ("vatex", "i3d_kinetics", "parallel", "human_label", "zh", "root", "gpu"), "'gpu'"),
        ("do_test.sh", ("vatex", "root"), "usage"),
        ("do_test.sh", ("vatex", "root", "model", ",1"), "',1'"),
    ],
)
def test_mlcmr_wrong_arguments(drive: Drive, name: str, given: tuple[str, ...], says: str) -> None:
    done = drive(f"scripts/mlcmr/{name}", *given)
    assert done.returncode == 2 and done.stdout == ""
    assert says in done.stderr and len(done.stderr.splitlines()) == 1


C2KD = CHECKOUT / "configs" / "c2kd"


@pytest.mark.parametrize("stage", ["student", "zero_shot", "translate_train"])
def test_c2kd_stages(drive: Drive, stage: str) -> None:
    config = C2KD / f"msrvtt-{stage.replace('_', '-')}.yaml"
    done = drive(f"scripts/c2kd/{stage}.sh", "msrvtt", "my data", "1", "--resume", "seed=2", "c2kd.teachers=[a b]")
    assert arguments(done) == [
        "-m", "nrccr", "train", str(config), "--root", "my data", "--device", "cuda:1", "--test", "--resume", "seed=2",
        "c2kd.teachers=[a b]",
    ]  # fmt: skip
    done = drive(f"scripts/c2kd/{stage}.sh", "multi30k-small", "root", "cpu", CONFIG="my own.yaml", OUT="my run")
    assert arguments(done)[2:] == [
        "train", "my own.yaml", "--root", "root", "--device", "cpu", "--test", "--out", "my run"
    ]  # fmt: skip


def test_c2kd_teachers_one_after_the_other(drive: Drive) -> None:
    def start(name: str) -> list[str]:
        return ["-m", "nrccr", "train", str(C2KD / f"vatex-teacher-{name}.yaml"), "--root", "my data", "--device"]

    done = drive("scripts/c2kd/teachers.sh", "vatex", "my data", "cpu", "seed=1")
    names = ("distil", "mbert", "xlmr")
    assert arguments(done) == [word for name in names for word in (*start(name), "cpu", "--test", "seed=1")]
    done = drive("scripts/c2kd/teachers.sh", "vatex", "my data", "0", OUT="my runs", TEACHERS="xlmr distil")
    wanted = [
        (*start(name), "cuda:0", "--test", "--out", f"my runs/vatex-teacher-{name}") for name in ("xlmr", "distil")
    ]
    assert arguments(done) == [word for line in wanted for word in line]
    done = drive("scripts/c2kd/teachers.sh", "vatex", "root", "cpu", FAKE_EXIT="7")
    assert done.returncode == 7 and done.stdout.count("train") == 1  # the first failure ends it


@pytest.mark.parametrize("out", [None, "my runs"])
def test_c2kd_teachers_go_on_where_they_were_begun(drive: Drive, tmp_path: Path, out: str | None) -> None:
    begun = tmp_path / ("runs/vatex-teacher-mbert-s1" if out is None else f"{out}/vatex-teacher-mbert")
    begun.mkdir(parents=True)
    (begun / "config.yaml").touch()
    given = {} if out is None else {"OUT": out}
    done = drive("scripts/c2kd/teachers.sh", "vatex", "root", "cpu", "--resume", "seed=1", **given)
    runs = " ".join(arguments(done)).split("-m nrccr train")[1:]
    assert [("mbert" in run.split()[0], "--resume" in run) for run in runs] == [
        (False, False),
        (True, True),
        (False, False),
    ]
    assert all(run.endswith("seed=1") or run.endswith("seed=1 ") for run in runs)


@pytest.mark.parametrize(("dataset", "collection"), [("rudder", "multi_rudder"), ("multi30k-small", "multi30k")])
def test_c2kd_test(drive: Drive, dataset: str, collection: str) -> None:
    assert arguments(drive("scripts/c2kd/test.sh", dataset, "root", "runs/a b", "0", "--split", "val", "seed=3")) == [
        "-m", "nrccr", "test", "runs/a b", "--root", "root", "--device", "cuda:0", f"data.collection={collection}",
        "--split", "val", "seed=3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("student", (), "usage"),
        ("teachers", ("vatex", "root"), "usage"),
        ("test", ("vatex", "root", "model"), "usage"),
        ("student", ("coco", "root", "cpu"), "DATASET must be"),
        ("teachers", ("coco", "root", "cpu"), "DATASET must be"),
        ("test", ("coco", "root", "model", "cpu"), "DATASET must be"),
        ("zero_shot", ("vatex", "root", "gpu"), "'gpu'"),
        ("translate_train", ("vatex", "root", "0,cpu"), "'0,cpu'"),
    ],
)
def test_c2kd_wrong_arguments(drive: Drive, name: str, given: tuple[str, ...], says: str) -> None:
    done = drive(f"scripts/c2kd/{name}.sh", *given)
    assert done.returncode == 2 and done.stdout == "", done.stdout
    assert says in done.stderr and len(done.stderr.splitlines()) == 1


def test_c2kd_teachers_that_are_not_there(drive: Drive) -> None:
    done = drive("scripts/c2kd/teachers.sh", "vatex", "root", "cpu", TEACHERS="xlmr other")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "teachers.sh: no teacher 'other' of vatex; choose from distil mbert xlmr\n"
    done = drive("scripts/c2kd/teachers.sh", "vatex", "root", "cpu", CONFIG="mine.yaml")
    assert done.returncode == 2 and "CONFIG is not used here" in done.stderr
