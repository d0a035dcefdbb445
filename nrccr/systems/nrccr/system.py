"""NRCCR as a system: the five functions of `nrccr.systems.base.System`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from transformers import PreTrainedModel

from nrccr.config.schema import Config
from nrccr.data.check import Checked, check_collection, matched_files
from nrccr.data.collections import SplitName
from nrccr.data.items import Visuals, require_same_width
from nrccr.data.pixels import Preprocessor, clip_preprocessor, load_preprocessor
from nrccr.data.queries import Sample, Split
from nrccr.data.tokens import CaptionTokenizer, used_ids
from nrccr.evaluation.evaluate import evaluate
from nrccr.evaluation.metrics import recall_sum
from nrccr.evaluation.rule import Rule
from nrccr.features.image_cache import ImageCache
from nrccr.features.text_cache import TextCache, recorded
from nrccr.models.backbone import configured_backbone
from nrccr.models.image import ImageEncoder, build_image_encoder, image_config, require_pixels, save_image_encoder
from nrccr.models.openai import visual_config
from nrccr.models.statedicts import Trained
from nrccr.systems.base import located
from nrccr.systems.model import Model
from nrccr.systems.nrccr.data import Pairs, Reader, cleaning_of, locate_data
from nrccr.systems.nrccr.network import NRCCR, build_discriminator, build_nrccr
from nrccr.systems.nrccr.objective import NRCCRObjective, adversary
from nrccr.systems.nrccr.published import published
from nrccr.systems.retriever import Retriever
from nrccr.systems.table import has_part
from nrccr.training.rows import train_used_rows
from nrccr.training.task import Task, Validation

__all__ = ["check", "network", "published", "splits", "task"]


def network(config: Config, features: int | None = None, trained: Trained | None = None) -> Model:
    """See System."""
    return _network(config, CaptionTokenizer(config.text.model, config.text.max_tokens), features, trained)


def _network(
    config: Config, tokenizer: CaptionTokenizer, features: int | None = None, trained: Trained | None = None
) -> Model:
    """As `network`, with a tokeniser that was read already: a large vocabulary takes seconds."""
    backbone = configured_backbone(config, trained)
    encoder, preprocess = _image_encoder(config, trained)
    if encoder is not None and preprocess is not None:
        require_pixels(encoder, preprocess(Image.new("RGB", (9, 7))).shape, config.image.model)
    if trained is not None:
        names = "project.linear.weight" if config.visual.kind == "video" else "linear.weight"
        features = trained.width_of(f"visual.{names}")
    nrccr = build_nrccr(config, backbone, features, encoder)
    tokenizer.require_table(backbone.get_input_embeddings().num_embeddings)
    others = {}
    if encoder is not None and preprocess is not None:
        others["image_encoder"] = partial(save_image_encoder, encoder, preprocess)
    return Model(nrccr, tokenizer, cleaning_of(config), preprocess, others)


def task(config: Config, root: Path, device: torch.device, *, test: bool) -> Task:
    """See System."""
    found = located(config, root)
    tokenizer = CaptionTokenizer(found.text.model, found.text.max_tokens)
    reader = Reader.open(found, root, tokenizer)
    pairs, held_out = reader.pairs(), reader.split("val")
    # A damaged test split is reported now, not after hours.
    for other in (held_out, *([reader.split("test")] if test else [])):
        require_same_width(other.visuals, pairs.visuals)
    model = _network(found, tokenizer, pairs.visuals.width)
    backbone_width = int(model.network.text.backbone.config.hidden_size)
    discriminator = build_discriminator(config, backbone_width)
    cache = _image_cache(config, model.network, device)
    if cache is not None:
        pairs = replace(pairs, visuals=cache.encoded(f"{reader.collection.name}-train", pairs.visuals))
        held_out = replace(held_out, gallery=cache.encoded(f"{reader.collection.name}-val", held_out.visuals))
    texts = TextCache.of(config, model.network.text.backbone, device)
    if texts is not None:
        pairs, held_out = _with_states(texts, pairs, held_out, model.network.with_back)
    used = used_ids([pairs.source, pairs.target, pairs.back])
    train_used_rows(model.network.text.backbone.get_input_embeddings(), used)
    objective = NRCCRObjective(config)
    rule = Rule.of(config, device)

    def validate() -> Validation:
        metrics = evaluate(model.network, held_out, rule)
        recalls = recall_sum(metrics["text_to_visual"])
        return Validation(recalls, metrics, f"R@1+5+10 {recalls:.2f}, SumR {metrics['SumR']:.2f}")

    return Task(
        network=model.network,
        losses=lambda out, batch: objective(out, discriminator),
        players=adversary(objective, discriminator, config.adversary.learning_rate),
        pairs=pairs,
        validate=validate,
        counts={"train": asdict(pairs.counts), "val": dict(held_out.counts)},
        save_models=model.save_encoders,
        record={"tokenizer": tokenizer.describe(), **recorded(texts)},
        places=(pairs.visuals.place, held_out.visuals.place),
        several=True,
    )


def _with_states(texts: TextCache, pairs: Pairs, held_out: Split, with_back: bool) -> tuple[Pairs, Split]:
    """Training pairs and validation whose captions bring what the frozen layers give of them."""
    name = f"{held_out.collection}-train"
    with_states = replace(
        pairs,
        source=texts.read(f"{name}-source", pairs.source),
        target=texts.read(f"{name}-target", pairs.target),
        back=texts.read(f"{name}-back", pairs.back) if with_back else pairs.back,
    )
    return with_states, texts.of_split(held_out)


def splits(retriever: Retriever, root: Path, name: SplitName, sample: Sample | None = None) -> Iterator[Split]:
    """See System: one split, queries in the target language with their English translations."""
    config, model = retriever.config, retriever.model
    found = Reader.open(config, root, model.tokenizer, model.preprocess).split(name, sample)
    if sample is not None:  # the cache is of whole splits
        return iter([found])

    def as_vectors(visuals: Visuals) -> Visuals:
        cache = _image_cache(config, model.network, retriever.device)
        return visuals if cache is None else cache.encoded(f"{found.collection}-{name}", visuals)

    return iter([replace(found, as_vectors=as_vectors)])


def check(config: Config, root: Path) -> Checked:
    """See System."""
    collection = locate_data(config, root)
    report = check_collection(
        collection,
        matched_files(collection, back=not has_part(config.model, "fit")),  # the cycle is of a training
        mismatch_tolerance=config.data.mismatch_tolerance,
        pictures=config.switch("pixels") if config.visual.kind == "clip" else None,
    )
    return Checked(collection.name, collection.folder, report)


def _image_encoder(config: Config, trained: Trained | None) -> tuple[PreTrainedModel | None, Preprocessor | None]:
    """The encoder of raw images and their pre-processing; none where features are vectors."""
    if config.visual.kind != "clip":
        return None, None
    image = config.image
    if trained is None:
        encoder = build_image_encoder(image_config(image.model), image.model if image.pretrained else None)
        return encoder, load_preprocessor(image.model, pretrained=image.pretrained)
    if not trained.published:
        return build_image_encoder(image_config(image.model), None), load_preprocessor(image.model)
    prefix = "visual.encoder."
    tensors = {key.removeprefix(prefix): value for key, value in trained.weights.items() if key.startswith(prefix)}
    described = visual_config(tensors, trained.place)
    return build_image_encoder(described, None), clip_preprocessor(int(described.image_size))


def _image_cache(config: Config, nrccr: NRCCR, device: torch.device) -> ImageCache | None:
    """The cache of a frozen image encoder's vectors; none without such an encoder."""
    visual = nrccr.visual
    if not isinstance(visual, ImageEncoder) or visual.encoder is None or visual.trainable:
        return None
    return ImageCache(Path(config.image.cache), visual.to(device), device, config.evaluation.batch_size)
