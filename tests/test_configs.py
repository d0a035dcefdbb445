"""Every file under configs/: its model can be built, and its header keeps its promise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from transformers import CLIPVisionConfig, PreTrainedModel

from nrccr.config import load_config
from nrccr.models.build import build_network
from nrccr.models.image import build_image_encoder
from nrccr.models.nrccr import build_discriminator
from nrccr.models.text import configured_backbone

CHECKOUT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((CHECKOUT / "configs").rglob("*.yaml"))
# The tiny backbone of the tests, and widths to match; what the file says of readings, losses and collections stays.
TINY = {
    "nrccr": ["text.width=32", "visual.width=32"],
    "mlcmr": ["visual.gru=8", "visual.maps=6"],
}
DRIVERS = {"nrccr": r"\./(do_all_\w+\.sh) (.*)", "mlcmr": r"(scripts/mlcmr/do_all\.sh) (.*)"}
# Where an MLCMR configuration stands, by what its driver is given.
SCENARIOS = {
    "parallel human_label": "parallel",
    "parallel translate": "translate",
    "unparallel human_label": "unparallel",
}


def tiny_clip() -> PreTrainedModel:
    """An image encoder that gives vectors of width 16."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    return build_image_encoder(CLIPVisionConfig(**sizes, image_size=32, patch_size=16, projection_dim=16), None)


def usual_config(model: str, driver: str, arguments: str) -> str:
    """The configuration that a driver takes by itself."""
    if model == "nrccr":
        return f"configs/nrccr/{driver[7:-3]}.yaml"
    collection, _, mode, labels, target = arguments.split()[:5]
    return f"configs/mlcmr/{collection}-{SCENARIOS[f'{mode} {labels}']}-{target}.yaml"


of_each_config = pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)


def is_table_row(path: Path) -> bool:
    return path.stem != "base" and not any(word in path.stem for word in ("small", "generated"))


@of_each_config
def test_model_can_be_built(path: Path, tiny_bert: Path) -> None:
    model = load_config(path).model
    shared = ["text.pretrained=false", "text.backbone={}", "text.trainable_layers=[1]", f"text.model={tiny_bert}"]
    config = load_config(path, [*shared, "joint.width=24", *TINY[model]])
    backbone = configured_backbone(config, config.text.model)
    network = build_network(config, backbone, 16, tiny_clip() if config.visual.kind == "clip" else None)
    assert network.map_text.linear.out_features == 24
    if model == "nrccr":
        assert (build_discriminator(config, 32) is None) == (config.loss.adversary == 0)


@of_each_config
def test_header_says_how_to_run_it_and_what_to_expect(path: Path) -> None:
    if path.stem == "base":
        return
    header = "".join(line for line in path.read_text(encoding="utf-8").splitlines(True) if line.startswith("#"))
    (run,) = re.findall(r"^#   run    (.+)$", header, re.MULTILINE)
    model = load_config(path).model
    driver = re.search(DRIVERS[model], run)
    assert driver is not None and (CHECKOUT / driver[1]).is_file()
    named = re.search(r"CONFIG=(\S+)", run)
    assert (CHECKOUT / (named[1] if named else usual_config(model, driver[1], driver[2]))) == path
    assert re.search(r"^#   paper  \S", header, re.MULTILINE)
    if is_table_row(path):
        assert re.search(r"      ours  (not run|SumR \d+\.\d)", header)
