"""Baselines as a system: the five functions of `nrccr.systems.base.System`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from nrccr.config.schema import Config
from nrccr.data.batch import ENGLISH
from nrccr.data.check import Checked
from nrccr.data.cleaning import Cleaning
from nrccr.data.collections import SplitName
from nrccr.data.pixels import load_preprocessor
from nrccr.data.queries import Sample, Split
from nrccr.data.tokens import CaptionTokenizer
from nrccr.errors import UserError
from nrccr.models.image import build_image_encoder, image_config, require_pixels, save_image_encoder
from nrccr.models.statedicts import Trained
from nrccr.systems.base import Published, system_of
from nrccr.systems.baseline.network import build_baseline
from nrccr.systems.model import Model
from nrccr.systems.retriever import Retriever
from nrccr.training.task import Task

__all__ = ["check", "network", "published", "splits", "task"]

READER = "nrccr"  # the system whose collections and splits a baseline is tested on


def network(config: Config, features: int | None = None, trained: Trained | None = None) -> Model:
    """See System."""
    return with_network(config, without_network(config), features, trained)


def without_network(config: Config) -> Model:
    """What reads texts and images, which is all that a reader of splits needs.

    Frozen encoders read text as they were trained: in the case in which it is written.
    """
    tokenizer = CaptionTokenizer(
        config.text.model, config.text.max_tokens, lower_case=False, prefix=config.text.prefix or ""
    )
    preprocess = None
    if config.visual.kind == "clip":
        preprocess = load_preprocessor(config.image.model, pretrained=config.image.pretrained)
    english = config.data.source == ENGLISH
    everything = config.visual.kind == "video" or config.switch("english_cleaning") == "all"
    return Model(None, tokenizer, Cleaning(training=english, back=False, queries=english and everything), preprocess)


def with_network(config: Config, model: Model, features: int | None, trained: Trained | None = None) -> Model:
    """The model with its network; arguments as of `network`."""
    encoder, others = None, {}
    if config.visual.kind == "clip" and model.preprocess is not None:
        image = config.image
        pretrained = image.pretrained and trained is None
        encoder = build_image_encoder(image_config(image.model), image.model if pretrained else None)
        require_pixels(encoder, model.preprocess(Image.new("RGB", (9, 7))).shape, image.model)
        others["image_encoder"] = partial(save_image_encoder, encoder, model.preprocess)
    if trained is not None:
        features = trained.width_of("mean")
    made = build_baseline(config, model.tokenizer, features, encoder, trained)
    model.tokenizer.require_table(made.text.backbone.get_input_embeddings().num_embeddings)
    return replace(model, network=made.eval(), others=others)


def task(config: Config, root: Path, device: torch.device, *, test: bool) -> Task:
    """See System: there is none.

    Raises:
        UserError: always; what to do instead.
    """
    raise UserError(f"model={config.model}: is fitted, not trained; use `nrccr baseline` in place of `nrccr train`")


def splits(retriever: Retriever, root: Path, name: SplitName, sample: Sample | None = None) -> Iterator[Split]:
    """See System: the splits of the reader, whose other models stand beside this one."""
    return (replace(found, as_vectors=None) for found in system_of(READER).splits(retriever, root, name, sample))


def check(config: Config, root: Path) -> Checked:
    """See System."""
    return system_of(READER).check(config, root)


def published(path: Path, checkpoint: dict[str, Any]) -> Published | None:
    """See System: there is none."""
    return None
