"""The configuration: files that extend each other, overrides, types, ranges, and what each reading means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from nrccr.config.schema import plain, resolved_switches, to_yaml
from nrccr.config.sections import Switches
from nrccr.config.yaml import parse_yaml
from nrccr.errors import UserError
from nrccr.systems.settings import config_type, load_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

# Spec section 4; corrected is released with masked pooling and key-padding masks.
READINGS = {  # switch: released, paper, corrected
    "pooling": ("padded", "masked", "masked"),
    "attention_mask": ("outer", "key", "key"),
    "teacher": ("cross_and_target", "cross", "cross_and_target"),
    "feed_forward": (False, True, False),
    "attention_scale": ("value_width", "key_width", "value_width"),
    "similarity": ("soft_cross_entropy", "kl", "soft_cross_entropy"),
    "feature": ("smooth_l1", "l1", "smooth_l1"),
    "adversary": ("non_saturating", "minimax", "non_saturating"),
    "score": ("minmax", "raw", "minmax"),
    "english_cleaning": ("source", "all", "source"),
    "frames": ("first", "uniform", "first"),
    "pixels": ("stored", "stored", "shown"),
}


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def complaint(path: Path, *overrides: str) -> str:
    """The one line of the UserError that loading must raise."""
    with pytest.raises(UserError) as caught:
        load_config(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    return written(tmp_path / "empty.yaml", "# nothing\n")


def test_base_holds_every_key_with_its_default() -> None:
    written_down = parse_yaml((CONFIGS / "base.yaml").read_text(encoding="utf-8"), "base.yaml")
    assert written_down == plain(config_type()())
    assert load_config(CONFIGS / "base.yaml") == config_type()()


def test_base_comments_every_key() -> None:
    for line in (CONFIGS / "base.yaml").read_text(encoding="utf-8").splitlines():
        assert "# " in line or not line, line


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_loads_and_its_resolved_copy_is_the_same(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    assert load_config(written(tmp_path / "resolved.yaml", to_yaml(config))) == config


def test_small_config_is_what_the_issue_says() -> None:
    config = load_config(CONFIGS / "nrccr" / "vatex-small.yaml")
    assert config.text.backbone == {
        "num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 512
    }  # fmt: skip
    assert (config.text.width, config.visual.width, config.joint.width) == (128, 256, 512)
    assert (config.text.freeze, config.text.pretrained) == ("none", False)
    assert (config.train.learning_rate, config.train.epochs, config.train.batch_size) == (5e-4, 20, 128)
    assert config.reading == "released"
    basic = load_config(CONFIGS / "nrccr" / "vatex-small-basic.yaml")
    assert [getattr(basic.loss, name) for name in ("similarity", "feature", "cycle", "adversary")] == [0, 0, 0, 0]
    assert basic.model_copy(update={"loss": config.loss}) == config


def test_table_configs_are_the_released_recipe() -> None:
    vatex, msrvtt = (load_config(CONFIGS / "nrccr" / f"{name}.yaml") for name in ("vatex", "msrvttcn"))
    assert (vatex.data.collection, vatex.adversary.discriminator) == ("vatex", "strong")
    assert (msrvtt.data.collection, msrvtt.value("adversary.discriminator")) == ("msrvttcn", "not-so-weak")
    assert vatex.reading == msrvtt.reading == "released"


def test_extends_chain_and_overrides_apply_in_order(tmp_path: Path) -> None:
    written(tmp_path / "a.yaml", "seed: 1\ntext:\n  width: 64\n  heads: 4\njoint:\n  width: 100\n")
    (tmp_path / "sub").mkdir()
    written(tmp_path / "sub" / "b.yaml", "extends: ../a.yaml\nseed: 2\ntext:\n  width: 32\n")
    path = written(tmp_path / "c.yaml", "extends: sub/b.yaml\nseed: 3\n")
    config = load_config(path)
    assert (config.seed, config.text.width, config.text.heads, config.joint.width) == (3, 32, 4, 100)
    config = load_config(path, ["seed=4", "text.width=16", "seed=5"])
    assert (config.seed, config.text.width, config.joint.width) == (5, 16, 100)


def test_circle_and_missing_parent_are_refused(tmp_path: Path) -> None:
    a = written(tmp_path / "a.yaml", "extends: b.yaml\n")
    written(tmp_path / "b.yaml", "extends: a.yaml\n")
    assert str(a) in complaint(a) and "circle" in complaint(a)
    own = written(tmp_path / "own.yaml", "extends: own.yaml\n")
    assert "circle" in complaint(own)
    lost = written(tmp_path / "lost.yaml", "extends: nowhere.yaml\n")
    assert str(tmp_path / "nowhere.yaml") in complaint(lost)
    assert "must name one YAML file" in complaint(written(tmp_path / "list.yaml", "extends: [a.yaml]\n"))


@pytest.mark.parametrize("text", ["- a\n", "words\n", "a: [\n", "a: b: c\n", "seed: !!python/name:os.system\n"])
def test_malformed_files_are_refused(tmp_path: Path, text: str) -> None:
    path = written(tmp_path / "bad.yaml", text)
    assert str(path) in complaint(path)


def test_yaml_scalars(empty: Path) -> None:
    config = load_config(empty, ["data.target=no", "train.learning_rate=1e-4", "data.translator=2026-01-01"])
    assert config.data.target == "no"
    assert config.train.learning_rate == pytest.approx(1e-4, rel=1e-15)
    assert config.data.translator == "2026-01-01"
    assert parse_yaml("a: [yes, on, 010, 1_000, 0x10, .inf, true, ~]", "x") == {
        "a": ["yes", "on", 10, "1_000", "0x10", ".inf", True, None]
    }


def test_override_types(empty: Path) -> None:
    config = load_config(
        empty,
        ["text.trainable_layers=[1, 2]", "switches.feed_forward=true", "data.feature=null", "loss.cycle=0",
         "text.pretrained=false", "text.backbone.hidden_size=64", "text.model=a=b"],
    )  # fmt: skip
    assert config.text.trainable_layers == [1, 2] and config.switches.feed_forward is True
    assert config.data.feature is None and config.loss.cycle == 0.0
    assert config.text.backbone == {"hidden_size": 64} and config.text.model == "a=b"


@pytest.mark.parametrize(
    "override",
    ["seed=one", "seed=1.5", "reading=wrong", "text.freeze=some", "text.pretrained=maybe", "loss=3",
     "train.precision=fp16", "adversary.discriminator=huge", "text.trainable_layers=[a]", "data=null",
     "data.languages=en", "c2kd.teachers=runs/a"],
)  # fmt: skip
def test_wrong_types_are_refused(empty: Path, override: str) -> None:
    message = complaint(empty, override)
    assert override.partition("=")[0] in message and f"override {override}" in message


@pytest.mark.parametrize("override", ["seed", "=1", ".seed=1", "text..width=3", ""])
def test_malformed_overrides_are_refused(empty: Path, override: str) -> None:
    assert "write key=value" in complaint(empty, override)


def test_unknown_keys_name_the_known_ones(empty: Path, tmp_path: Path) -> None:
    top = complaint(empty, "sed=1")
    assert "unknown key sed" in top and all(name in top for name in config_type().model_fields)
    nested = complaint(empty, "text.widht=1")
    assert "unknown key text.widht" in nested and "trainable_layers" in nested and "patience" not in nested
    path = written(tmp_path / "typo.yaml", "train:\n  epoch: 3\n")
    assert str(path) in complaint(path) and "unknown key train.epoch" in complaint(path)


def test_interpolation_is_refused(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "leaked")
    for message in (
        complaint(empty, "text.model=${oc.env:SECRET}"),
        complaint(written(tmp_path / "i.yaml", "text:\n  model: ${oc.env:SECRET}\n")),
        complaint(empty, "data.feature=${data.target}"),
    ):
        assert "not supported" in message and "leaked" not in message


@pytest.mark.parametrize(
    "override",
    ["train.batch_size=1", "train.epochs=0", "seed=-1", "data.max_frames=81", "data.max_frames=0", "joint.dropout=1",
     "evaluation.target_weight=1.1", "evaluation.target_weight=-0.1", "text.max_tokens=251", "text.max_tokens=2",
     "loss.cycle=-0.1", "loss.temperature=0", "text.heads=7", "visual.heads=3", "visual.layers=0", "data.workers=-1",
     "train.grad_clip=0", "train.patience=0", "text.backbone.hidden_size=3"],
)  # fmt: skip
def test_values_out_of_range_are_refused(empty: Path, override: str) -> None:
    message = complaint(empty, override)
    key = override.partition("=")[0].removesuffix(".hidden_size")
    assert key in message and message.startswith(f"override {override}: ")


@pytest.mark.parametrize(
    "override",
    ["train.batch_size=2", "data.max_frames=80", "joint.dropout=0", "evaluation.target_weight=0", "seed=0",
     "evaluation.target_weight=1", "text.max_tokens=250", "text.max_tokens=3", "loss.cycle=0"],
)  # fmt: skip
def test_values_at_the_edge_are_taken(empty: Path, override: str) -> None:
    load_config(empty, [override])


def test_the_table_names_every_switch() -> None:
    assert [*READINGS, "pool_mask"] == list(Switches.model_fields)


@pytest.mark.parametrize("column", range(3))
def test_readings_of_mlcmr_and_c2kd(empty: Path, column: int) -> None:
    reading = ("released", "paper", "corrected")[column]
    mlcmr = resolved_switches(load_config(empty, [f"reading={reading}", "model=mlcmr"]))
    assert mlcmr == {"pooling": READINGS["pooling"][column], "score": "raw", "frames": "first"}
    c2kd = resolved_switches(load_config(empty, [f"reading={reading}", "model=c2kd"]))
    assert c2kd == {"frames": "first", "pool_mask": ("labse", "own", "own")[column]}


@pytest.mark.parametrize(
    ("model", "override"),
    [
        ("nrccr", "data.scenario=translate"), ("nrccr", "c2kd.balance=0.5"), ("nrccr", "switches.pool_mask=own"),
        ("nrccr", "data.languages=[en]"), ("nrccr", "visual.gru=64"), ("mlcmr", "loss.cycle=0.1"),
        ("mlcmr", "switches.teacher=cross"), ("mlcmr", "adversary.learning_rate=0.1"), ("mlcmr", "visual.heads=4"),
        ("mlcmr", "text.width=32"), ("c2kd", "loss.margin=0.1"),
        ("c2kd", "data.target=de"), ("c2kd", "switches.pooling=masked"), ("c2kd", "visual.maps=3"),
    ],
)  # fmt: skip
def test_a_key_that_the_model_does_not_read_is_refused(empty: Path, model: str, override: str) -> None:
    key = override.partition("=")[0]
    message = complaint(empty, f"model={model}", "visual.kind=video", override)
    assert key in message and f"is not used by model={model}; remove it" in message


def test_how_raw_images_are_read_is_refused_where_none_are(empty: Path) -> None:
    for kind in ("video", "vectors"):
        with pytest.raises(UserError, match=rf"switches\.pixels=shown .* visual\.kind={kind} reads none; remove it"):
            load_config(empty, [f"visual.kind={kind}", "switches.pixels=shown"])
    assert load_config(empty, ["visual.kind=clip", "switches.pixels=shown"]).switch("pixels") == "shown"


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("model=mlcmr", "visual.kind=vectors"), "visual.kind"),
        (("model=c2kd", "visual.kind=clip"), "visual.kind"),
        (("model=mlcmr", "data.held_out=3", "data.validate_on_test=true"), "exclude each other"),
        (("text.max_tokens=251",), "between 3 and 250"),
        (("model=mlcmr", "text.max_tokens=513"), "between 3 and 512"),
        (("model=c2kd", "visual.heads=7"), "visual.heads"),
        (("train.patience=0",), "train.patience"),
        (("c2kd.balance=1.5", "model=c2kd"), "c2kd.balance"),
    ],
)
def test_models_have_limits_of_their_own(empty: Path, overrides: tuple[str, ...], says: str) -> None:
    assert says in complaint(empty, *overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ("model=mlcmr", "data.max_frames=300", "text.max_tokens=512"), ("train.patience=null", "train.grad_clip=null"),
        ("train.halve_after=null", "train.drop_last=true"), ("model=c2kd", "visual.kind=vectors", "visual.heads=4"),
    ],
)  # fmt: skip
def test_what_other_models_may_have(empty: Path, overrides: tuple[str, ...]) -> None:
    load_config(empty, overrides)


@pytest.mark.parametrize(("column", "reading"), [(0, "released"), (1, "paper"), (2, "corrected")])
def test_readings(empty: Path, column: int, reading: str) -> None:
    config = load_config(empty, [f"reading={reading}"])
    assert resolved_switches(config) == {name: values[column] for name, values in READINGS.items()}


@pytest.mark.parametrize("name", READINGS)
def test_a_single_switch_overrides_its_reading_alone(empty: Path, name: str) -> None:
    released, paper, _ = READINGS[name]
    for reading, own in (("released", paper), ("paper", released), ("corrected", paper)):
        given = [f"reading={reading}", "visual.kind=clip"]  # where every switch acts
        expected = resolved_switches(load_config(empty, given)) | {name: own}
        text: Any = yaml.safe_dump(own).split("\n")[0]
        assert resolved_switches(load_config(empty, [*given, f"switches.{name}={text}"])) == expected


def test_an_empty_backbone_clears_and_others_merge(tmp_path: Path) -> None:
    small = "{hidden_size: 32, num_hidden_layers: 2}"
    (tmp_path / "a.yaml").write_text(f"text:\n  pretrained: false\n  backbone: {small}\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\ntext:\n  backbone: {hidden_size: 64}\n")
    assert load_config(tmp_path / "b.yaml").text.backbone == {"hidden_size": 64, "num_hidden_layers": 2}
    cleared = load_config(tmp_path / "b.yaml", ["text.backbone={}", "text.pretrained=true"])
    assert cleared.text.backbone == {} and cleared.text.pretrained


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed: 1\nseed: 2\n", "a.yaml:2: not valid YAML: key seed is duplicated"),
        ("text: 5\n", "a.yaml:1: text is a section"),
        ("text: {model: ''}\n", "a.yaml:1: text.model is empty"),
    ],
)
def test_repeated_keys_and_sections_without_keys_are_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=says):
        load_config(tmp_path / "a.yaml")


@pytest.mark.parametrize("reading", ["released", "paper", "corrected"])
@pytest.mark.parametrize(
    ("model", "fixed"),
    [("mlcmr", {"score": "raw", "frames": "first"}), ("c2kd", {"score": "raw", "frames": "first"}), ("nrccr", {})],
)
def test_switches_that_a_system_has_in_every_reading(
    empty: Path, reading: str, model: str, fixed: dict[str, str]
) -> None:
    config = load_config(empty, [f"model={model}", f"reading={reading}"])
    column = ("released", "paper", "corrected").index(reading)
    for name, values in READINGS.items():
        assert config.switch(name) == fixed.get(name, values[column]), name


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("data: &d {target: zh}\ntext: *d\n", r"a\.yaml:2: .*aliases .* are not supported"),
        ("data:\n  <<: {target: zh}\n", r"a\.yaml:2: unknown key data\.<<"),
    ],
)
def test_aliases_and_merge_keys_are_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=says):
        load_config(tmp_path / "a.yaml")
