"""Every file under configs/: its model can be built, and its header keeps its promise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from transformers import CLIPVisionConfig, PreTrainedModel

from nrccr.config import load_config
from nrccr.models.image import build_image_encoder
from nrccr.models.nrccr import build_discriminator, build_network
from nrccr.models.text import backbone_config, build_backbone

CHECKOUT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((CHECKOUT / "configs").rglob("*.yaml"))
# The tiny backbone of the tests, and widths to match; what the file says of readings, losses and collections stays.
TINY = ["text.pretrained=false", "text.backbone={}", "text.trainable_layers=[1]", "text.width=32", "visual.width=32"]


def tiny_clip() -> PreTrainedModel:
    """An image encoder that gives vectors of width 16."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    return build_image_encoder(CLIPVisionConfig(**sizes, image_size=32, patch_size=16, projection_dim=16), None)


of_each_config = pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)


def is_table_row(path: Path) -> bool:
    return path.parent.name == "nrccr" and not any(word in path.stem for word in ("small", "generated"))


@of_each_config
def test_model_can_be_built(path: Path, tiny_bert: Path) -> None:
    config = load_config(path, [*TINY, f"text.model={tiny_bert}", "joint.width=24"])
    backbone = build_backbone(backbone_config(config.text.model, config.text.backbone), pretrained=None)
    network = build_network(config, backbone, 16, tiny_clip() if config.visual.kind == "clip" else None)
    assert network.map_text.linear.out_features == 24
    assert (build_discriminator(config, 32) is None) == (config.loss.adversary == 0)


@of_each_config
def test_header_says_how_to_run_it_and_what_to_expect(path: Path) -> None:
    if path.stem == "base":
        return
    header = "".join(line for line in path.read_text(encoding="utf-8").splitlines(True) if line.startswith("#"))
    (run,) = re.findall(r"^#   run    (.+)$", header, re.MULTILINE)
    driver = re.search(r"\./(do_all_\w+\.sh) ", run)
    assert driver is not None and (CHECKOUT / driver[1]).is_file()
    named = re.search(r"CONFIG=(\S+)", run)
    assert (CHECKOUT / (named[1] if named else f"configs/nrccr/{driver[1][7:-3]}.yaml")) == path
    assert re.search(r"^#   paper  \S", header, re.MULTILINE)
    if is_table_row(path):
        assert re.search(r"      ours  (not run|SumR \d+\.\d)", header)
