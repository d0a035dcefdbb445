"""Every file under configs/: its model can be built, and its header keeps its promise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nrccr.systems.base import system_of
from nrccr.systems.nrccr.network import build_discriminator
from nrccr.systems.settings import load_config

CHECKOUT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((CHECKOUT / "configs").rglob("*.yaml"))
# The tiny backbone of the tests, and widths to match; what the file says of readings, losses and collections stays.
TINY = {
    "nrccr": ["text.width=32", "visual.width=32"],
    "mlcmr": ["visual.gru=8", "visual.maps=6"],
    "c2kd": ["visual.width=32"],
    "quartet": [],
    "baseline": ["baseline.map=ridge"],  # the tiny backbone is no CLIP
}
FITTED = "baseline"  # by a command, without a driver
DRIVERS = {
    "nrccr": r"\./(do_all_\w+\.sh) (.*)",
    "mlcmr": r"(scripts/mlcmr/do_all\.sh) (.*)",
    "c2kd": r"(scripts/c2kd/\w+\.sh) (.*)",
    "quartet": r"(scripts/quartet/do_all\.sh) (.*)",
}
# Where an MLCMR configuration stands, by what its driver is given.
SCENARIOS = {
    "parallel human_label": "parallel",
    "parallel translate": "translate",
    "unparallel human_label": "unparallel",
}


def usual_config(model: str, driver: str, arguments: str) -> str:
    """The configuration that a driver takes by itself."""
    if model == "nrccr":
        return f"configs/nrccr/{driver[7:-3]}.yaml"
    if model == "c2kd":
        stage = Path(driver).stem.replace("_", "-")
        return f"configs/c2kd/{arguments.split()[0]}-{'teacher' if stage == 'teachers' else stage}"
    if model == "quartet":
        return f"configs/quartet/{arguments.split()[0]}.yaml"
    collection, _, mode, labels, target = arguments.split()[:5]
    return f"configs/mlcmr/{collection}-{SCENARIOS[f'{mode} {labels}']}-{target}.yaml"


of_each_config = pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)


def is_table_row(path: Path) -> bool:
    return path.stem != "base" and not any(word in path.stem for word in ("small", "generated", "own"))


@of_each_config
def test_model_can_be_built(path: Path, tiny_bert: Path, tiny_clip: Path) -> None:
    config = load_config(path)
    shared = ["text.pretrained=false", "text.backbone={}", "text.trainable_layers=[1]", f"text.model={tiny_bert}"]
    raw = config.visual.kind == "clip"
    encoders = [f"image.model={tiny_clip}", "image.pretrained=false"] if raw else []
    encoders += [f"c2kd.labse={tiny_bert}"] if config.model == "c2kd" and config.switch("pool_mask") == "labse" else []
    joint_width = [] if config.model == FITTED else ["joint.width=24"]
    shared = [one for one in shared if config.model != FITTED or "trainable" not in one]
    config = load_config(path, [*shared, *joint_width, *encoders, *TINY[config.model]])
    made = system_of(config.model).network(config, None if raw else 16)
    if config.model == FITTED:
        assert made.network.map.out_features == made.network.feature_width == (24 if raw else 16)
        return
    joint = made.network.text.project if config.model == "c2kd" else made.network.map_text
    assert joint.linear.out_features == 24
    assert made.network.feature_width == (24 if raw else 16) and (made.preprocess is not None) == raw
    if config.model == "nrccr":
        assert (build_discriminator(config, 32) is None) == (config.loss.adversary == 0)


@of_each_config
def test_header_says_how_to_run_it_and_what_to_expect(path: Path) -> None:
    if path.stem == "base":
        return
    header = "".join(line for line in path.read_text(encoding="utf-8").splitlines(True) if line.startswith("#"))
    (run,) = re.findall(r"^#   run    (.+)$", header, re.MULTILINE)
    model = load_config(path).model
    if model == FITTED:
        assert re.fullmatch(rf"nrccr baseline {path.parent.name}/{path.stem} --root ROOTPATH( \[\S.*\])?", run)
        assert re.search(r"^#   paper  none      ours  not run", header, re.MULTILINE)
        return
    driver = re.search(DRIVERS[model], run)
    assert driver is not None and (CHECKOUT / driver[1]).is_file()
    named = re.search(r"CONFIG=(\S+)", run)
    usual = str(CHECKOUT / (named[1] if named else usual_config(model, driver[1], driver[2])))
    if model == "c2kd":  # one driver for all teachers of a collection
        assert path.stem.startswith(Path(usual).name) and path.parent == Path(usual).parent
    else:
        assert usual == str(path)
    assert re.search(r"^#   paper  \S", header, re.MULTILINE)
    if is_table_row(path):
        assert re.search(r"      ours  (not run|SumR \d+\.\d)", header)


# What the published commands ran: epochs, learning rate, pooling, balance, the students' temperature, the teachers' and
# the baselines', longest captions of students, of teachers and of queries.
C2KD_RUNS = {
    "msrvtt": (20, 1e-4, "maximum", 0.5, 0.1, 0.05, 0.1, 35, 40, 40),
    "youcook2": (10, 1e-4, "maximum", 0.1, 0.05, 0.05, 0.1, 35, 35, 40),
    "vatex": (30, 1e-4, "minimum", 0.1, 0.05, 0.05, 0.05, 40, 40, 40),
    "rudder": (20, 5e-5, "mean", 0.1, 0.05, 0.05, 0.05, 40, 40, 40),
}


C2KD_FILES = CHECKOUT / "configs" / "c2kd"


@pytest.mark.parametrize("collection", list(C2KD_RUNS))
def test_c2kd_runs_what_was_published(collection: str) -> None:
    epochs, rate, pooling, balance, student_t, teacher_t, baseline_t, longest, teachers_longest, query = C2KD_RUNS[
        collection
    ]
    names = {path.stem.removeprefix(f"{collection}-"): path for path in C2KD_FILES.glob(f"{collection}-*.yaml")}
    found = {name: load_config(path) for name, path in names.items() if not name.startswith(("small-", "e5-"))}
    teachers = [name for name in found if name.startswith("teacher-")]
    assert sorted(found) == sorted([*teachers, "student", "translate-train", "zero-shot"]) and len(teachers) == 3
    student = found["student"]
    assert (student.c2kd.stage, student.c2kd.pooling, student.c2kd.balance) == ("distill", pooling, balance)
    assert student.c2kd.distill_temperature == 0.1
    assert sorted(student.c2kd.teachers) == [f"runs/{collection}-{name}-s0" for name in sorted(teachers)]
    for name, config in found.items():
        own = teacher_t if name in teachers else student_t if name == "student" else baseline_t
        assert config.c2kd.temperature == own, name
        assert config.text.max_tokens == (teachers_longest if name in teachers else longest), name
        assert (config.model, config.data.collection, config.reading) == ("c2kd", f"multi_{collection}", "released")
        assert (config.data.max_frames, config.text.freeze, config.c2kd.query_tokens) == (30, "none", query)
        assert config.switch("pool_mask") == "labse" and config.joint.width == (
            1024 if collection == "youcook2" else 512
        )
        assert (config.visual.width, config.visual.heads, config.visual.layers) == (512, 4, 2)
        train = config.train
        assert (train.epochs, train.batch_size, train.learning_rate_decay) == (epochs, 64, 0.9)
        faster = collection == "rudder" and name == "teacher-distil"
        assert train.learning_rate == (1e-4 if faster else rate) and train.drop_last and train.precision == "bf16"
        assert train.halve_after is train.patience is train.grad_clip is None
