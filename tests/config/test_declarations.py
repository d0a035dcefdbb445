"""Each key is declared once: who reads it, what it changes, its comment, its schema; and what a new system adds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from nrccr.config.keys import Section, declared, key, keys_that_change
from nrccr.config.render import base_yaml, json_schema
from nrccr.config.schema import Config, Refuse, resolved_switches
from nrccr.config.sections import Switches, TextSection
from nrccr.config.yaml import Layer, merged, parse_yaml, read_layers
from nrccr.errors import UserError
from nrccr.systems.baseline.settings import BaselineSection
from nrccr.systems.c2kd.settings import C2KDSection
from nrccr.systems.quartet.settings import QuartetSection
from nrccr.systems.settings import build_config, config_type, load_config
from nrccr.systems.table import SYSTEMS

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

# Keys that not every system reads, and who does.
READERS = {
    "nrccr": (
        "switches.attention_mask switches.teacher switches.feed_forward switches.attention_scale switches.similarity "
        "switches.feature switches.adversary image.trainable image.cache data.round_trips loss.target"
    ),
    "nrccr baseline": "switches.english_cleaning switches.pixels image.model image.pretrained image.path",
    "nrccr quartet baseline": "data.source data.task",
    "nrccr quartet": (
        "adversary.discriminator adversary.learning_rate text.width text.heads loss.similarity "
        "loss.feature loss.cycle loss.adversary"
    ),
    "nrccr mlcmr c2kd quartet": "text.cache",
    "nrccr mlcmr": "switches.pooling loss.mask_same_item",
    "nrccr mlcmr quartet": "switches.score loss.margin loss.temperature joint.dropout",
    "nrccr mlcmr quartet baseline": (
        "data.target data.mismatch_tolerance "
        "evaluation.target_weight evaluation.save_scores evaluation.normalise evaluation.beta evaluation.k "
        "evaluation.alpha"
    ),
    "mlcmr": "data.scenario data.validation_english data.validate_on_test data.held_out",
    "mlcmr quartet": "visual.gru visual.maps",
    "nrccr c2kd quartet": "visual.width visual.heads visual.layers",
    "c2kd": "switches.pool_mask " + " ".join(f"c2kd.{name}" for name in C2KDSection.model_fields),
    "c2kd quartet": "data.languages",
    "quartet baseline": "text.prefix",
    "baseline": " ".join(f"baseline.{name}" for name in BaselineSection.model_fields),
    "quartet": (
        "train.average train.warmup train.schedule train.backbone_learning_rate "
        + " ".join(f"quartet.{name}" for name in QuartetSection.model_fields)
    ),
}
CHANGES = {
    "length": {"train.epochs", "train.patience"},
    "test": {f"evaluation.{name}" for name in ("normalise", "beta", "k", "alpha", "memory_mb")},
    "digits": {"train.log_every", "train.checkpointing", "c2kd.precompute", "image.path"},
    "nothing": {"data.workers", "train.report_to", "train.save_minutes", "evaluation.save_scores", "image.cache"},
}


def test_who_reads_each_key() -> None:
    expected = {name: tuple(readers.split()) for readers, names in READERS.items() for name in names.split()}
    for name, found in declared(config_type()).items():
        assert config_type().readers(found) == expected.pop(name, tuple(SYSTEMS)), name
    assert not expected


@pytest.mark.parametrize("name", SYSTEMS)
def test_systems_name_keys_that_are_there(name: str) -> None:
    settings, keys = config_type().systems[name], declared(config_type())
    shared = {known for known in keys if known.partition(".")[0] not in settings.SECTIONS}
    own = {known for known in shared if keys[known].own}
    for read in settings.READS:
        assert read in own or any(known.startswith(f"{read}.") for known in own), read
    assert set(settings.NOTES) <= shared and set(settings.SWITCHES) <= set(Switches.model_fields)


def test_what_each_key_changes() -> None:
    assert {what: set(keys_that_change(config_type(), what)) for what in CHANGES} == CHANGES  # type: ignore[arg-type]
    rest = keys_that_change(config_type(), "all")
    assert rest == set(declared(config_type())) - set().union(*CHANGES.values())


@pytest.mark.parametrize("name", Switches.model_fields)
@pytest.mark.parametrize("reading", ["released", "paper", "corrected"])
def test_readings_and_systems_give_values_that_the_switch_takes(name: str, reading: str) -> None:
    found = declared(Switches)[name]
    assert found.readings[reading] in found.choices and len(found.choices) == 2
    assert {type(choice) for choice in found.choices} == {type(found.readings[reading])}
    for system in config_type().systems.values():
        assert system.SWITCHES.get(name, found.readings[reading]) in found.choices


def test_base_yaml_is_rendered(nrccr_command: Any) -> None:
    text = (CONFIGS / "base.yaml").read_text(encoding="utf-8")
    assert base_yaml(config_type()) == text
    done = nrccr_command("config", "base")
    assert (done.code, done.out) == (0, text)
    assert max(map(len, text.splitlines())) <= 120
    for found in declared(config_type()).values():
        assert found.meaning or found.choices, found.name
        spoken = " ".join(text.replace("#", " ").split())
        assert all(word in spoken for word in found.meaning.split()), found.name


def violations(value: Any, schema: dict[str, Any], root: dict[str, Any], place: str = "") -> list[str]:
    """What a JSON schema, of the few words that ours uses, refuses in a value."""
    if "$ref" in schema:
        return violations(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root, place)
    if "anyOf" in schema:
        tried = [violations(value, choice, root, place) for choice in schema["anyOf"]]
        return [] if [] in tried else tried[0]
    kinds = {
        "object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool,
        "null": type(None),
    }  # fmt: skip
    kind = schema.get("type")
    if kind is not None and (not isinstance(value, kinds[kind]) or isinstance(value, bool) != (kind == "boolean")):
        return [f"{place}: not {kind}"]
    bad = [place for word in ("enum",) if word in schema and value not in schema[word]]
    bounds = {
        "minimum": lambda bound: value >= bound, "maximum": lambda bound: value <= bound,
        "exclusiveMinimum": lambda bound: value > bound, "exclusiveMaximum": lambda bound: value < bound,
        "minLength": lambda bound: len(value) >= bound,
    }  # fmt: skip
    bad += [f"{place}: {word}" for word, holds in bounds.items() if word in schema and not holds(schema[word])]
    if isinstance(value, dict):
        for name, inner in value.items():
            if name in schema.get("properties", {}):
                bad += violations(inner, schema["properties"][name], root, f"{place}.{name}")
            elif schema.get("additionalProperties") is False:
                bad.append(f"{place}.{name}: unknown")
    if isinstance(value, list):
        bad += [problem for entry in value for problem in violations(entry, schema["items"], root, place)]
    return bad


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_keeps_to_the_json_schema(path: Path) -> None:
    schema = json_schema(config_type())
    assert violations(parse_yaml(path.read_text(encoding="utf-8"), path.name), schema, schema) == []


@pytest.mark.parametrize(
    "text",
    ["sed: 1", "text: {widht: 3}", "seed: one", "seed: -1", "reading: other", "train: {batch_size: 1}", "text: 3",
     "joint: {dropout: 1}", "data: {languages: en}", "model: other", "c2kd: {teachers: ['']}", "seed: true"],
)  # fmt: skip
def test_the_json_schema_refuses_what_loading_refuses(text: str, tmp_path: Path) -> None:
    schema, path = json_schema(config_type()), tmp_path / "a.yaml"
    path.write_text(text)
    assert violations(yaml.safe_load(text), schema, schema)
    with pytest.raises(UserError, match=r"a\.yaml:1: "):
        load_config(path)


def test_the_json_schema_is_printed(nrccr_command: Any) -> None:
    done = nrccr_command("config", "schema")
    assert done.code == 0 and json.loads(done.out) == json_schema(config_type())


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("loss.cycle=1",), "child.yaml:3: train.epochs=0 is out of range; it must be above 0"),
        (("loss.cycle=1", "train.epochs=-1"), "override train.epochs=-1: train.epochs=-1 is out of range"),
        (("train.epochs=1",), "parent.yaml:4: loss.cycle=-1 is out of range"),
        (("train.epochs=1", "loss.cycle=1"), "parent.yaml:2: text.width=7 is not used by model=mlcmr; remove it"),
        (("train.epochs=1", "loss.cycle=1", "model=nrccr"), "parent.yaml:2: text.heads=8 must divide text.width=7"),
        (("train.epochs=1", "model=c2kd", "loss.cycle=0.5", "text.width=768", "text.pretrained=false",
          "text.max_tokens=513"), "override text.max_tokens=513: text.max_tokens=513 is out of range"),
        (("loss.cycle=1", "train.epochs=six"), "override train.epochs=six: train.epochs: six has the wrong type"),
    ],
)  # fmt: skip
def test_messages_name_the_last_place_that_set_the_key(overrides: tuple[str, ...], says: str, tmp_path: Path) -> None:
    (tmp_path / "parent.yaml").write_text("text:\n  width: 7\ntrain: {epochs: 3}\nloss: {cycle: -1}\nmodel: mlcmr\n")
    (tmp_path / "child.yaml").write_text("extends: parent.yaml\ntrain:\n  epochs: 0\n")
    with pytest.raises(UserError) as caught:
        load_config(tmp_path / "child.yaml", overrides)
    assert str(caught.value).removeprefix(f"{tmp_path}/").startswith(says)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("text.model=5", "text.model: 5 has the wrong type; it must be text, put it in quotes"),
        ("data.target=true", "it must be text, put it in quotes"),
        ("data.target=null", "data.target: null has the wrong type; it must be text"),
        ("train.batch_size=1", "it must be 2 or more (batch normalisation needs two)"),
        ("data.task=3", "it must be 1 or 2"),
        ("seed=9223372036854775808", "it must be 0 or more, and below 2**63"),
        ("train.learning_rate=1e999", "train.learning_rate=.inf is out of range; it must be finite"),
        ("loss.cycle=true", "loss.cycle: true has the wrong type; it must be a number"),
        ("text.freeze=some", "text.freeze=some is unknown; choose one of frozen, all_frozen, none"),
        ("model=other", "model=other is unknown; choose one of nrccr, mlcmr, c2kd"),
        ("data.languages=en", "needs a list, such as [en,de]; write data.languages=[VALUE]"),
        ("c2kd.teachers=[a,'']", "c2kd.teachers holds an empty name; give run folders or published checkpoints"),
        ("text={1: 2}", "unknown key text.1; known here: model, "),
        ("text.backbone=[1]", "it must be a mapping"),
        ("train={[a]: 1}", "a key must be a word"),
    ],
)
def test_messages_say_what_to_do(override: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        build_config([], [override])
    assert says in str(caught.value) and str(caught.value).startswith(f"override {override}: ")


def test_whole_numbers_are_taken_for_others_and_text_in_quotes() -> None:
    config = build_config([], ["loss.cycle=1", "text.model='5'"])
    assert (config.loss.cycle, type(config.loss.cycle), config.text.model) == (1.0, float, "5")


@pytest.mark.parametrize("text", ["text: &x {backbone: *x}\n", "data: {languages: &x [*x]}\n"])
def test_a_value_that_holds_itself_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=r"a\.yaml:1: .*aliases .* are not supported"):
        load_config(tmp_path / "a.yaml")


def test_layers_know_their_lines_and_stay_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("# head\ntrain:\n  epochs: 3\n\n  batch_size: 4\n")
    (layer,) = read_layers(path)
    assert layer.place("train.batch_size") == f"{path}:5" and layer.place("train.epochs") == f"{path}:3"
    assert layer.place("seed") == str(path) and not layer.sets("seed") and layer.sets("train.epochs")
    below, above = Layer("a", {"text": {"backbone": {"x": 1}}}), Layer("b", {"text": {"backbone": {"y": 2}}})
    assert merged([below, above]) == {"text": {"backbone": {"x": 1, "y": 2}}}
    assert merged([below, Layer("c", {"text": {"backbone": {}}})]) == {"text": {"backbone": {}}}
    assert merged([below, Layer("c", {"text": {}})]) == below.values == {"text": {"backbone": {"x": 1}}}


def test_a_configuration_cannot_be_changed() -> None:
    config = build_config([])
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1
    with pytest.raises(ValueError, match="frozen"):
        config.text.width = 1


def test_lists_are_not_shared_between_configurations() -> None:
    first = build_config([])
    first.text.trainable_layers.append(12)
    first.section(C2KDSection).teachers.append("x")
    assert 12 not in build_config([]).text.trainable_layers and not build_config([]).section(C2KDSection).teachers


def test_sections_are_found_by_type() -> None:
    config = build_config([], ["model=c2kd", "c2kd.balance=0.5"])
    assert config.section(C2KDSection).balance == config.value("c2kd.balance") == 0.5
    assert config.section(TextSection) is config.text
    with pytest.raises(LookupError, match="ToySection"):
        config.section(ToySection)


class ToySection(Section):
    """What the toy system adds."""

    size: int = key(3, "of the toy", gt=0, changes="nothing")
    colour: str | None = key(None, "of the toy")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another system: one entry in the table, and its settings."""

    def check(config: Config, refuse: Refuse) -> None:
        if config.section(ToySection).size > config.joint.width:
            refuse("toy.size is larger than joint.width; lower it", "toy.size", "joint.width")

    module = ModuleType("toys.system_toy.settings")
    module.__dict__.update(
        SECTIONS={"toy": ToySection}, READS=frozenset({"loss.margin", "switches.pooling"}), check=check,
        SWITCHES={"pooling": "masked"}, NOTES={"data.collection": "toys"},
    )  # fmt: skip
    for name in ("toys", "toys.system_toy"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(SYSTEMS, "toy", "toys.system_toy")


@pytest.mark.usefixtures("toy")
def test_a_new_system_is_a_line_in_the_table_and_its_settings() -> None:
    config = build_config([], ["model=toy", "toy.size=7", "loss.margin=0.3"])
    assert config.section(ToySection).size == 7 and resolved_switches(config) == {"pooling": "masked"}
    assert "toy.size" in keys_that_change(type(config), "nothing")
    text = base_yaml(config_type())
    assert "model: nrccr            # nrccr | mlcmr | c2kd | quartet | baseline | toy: the" in text
    assert "  size: 3               # of the toy\n" in text and "toy: toys" in " ".join(text.split())
    assert "toy:                    # [toy] what the toy system adds\n" in text
    assert "toy" in json_schema(config_type())["properties"]
    for overrides, says in (
        (["model=toy", "loss.cycle=0.1"], "loss.cycle=0.1 is not used by model=toy; remove it"),
        (["toy.size=7"], "toy.size=7 is not used by model=nrccr; remove it"),
        (["model=toy", "toy.size=0"], "toy.size=0 is out of range; it must be above 0"),
        (["model=toy", "toy.colour=3"], "put it in quotes"),
        (["model=toy", "toy.size=20", "joint.width=10"], "override joint.width=10: toy.size is larger"),
    ):
        with pytest.raises(UserError) as caught:
            build_config([], overrides)
        assert says in str(caught.value)


def test_the_table_is_as_it_was() -> None:
    with pytest.raises(UserError, match="model=toy is unknown"):
        build_config([], ["model=toy"])
    assert "toy" not in config_type().model_fields
