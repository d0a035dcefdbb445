"""The smallest system that works: means of word vectors and of frames, each mapped into one space."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nrccr.config.schema import Config
from nrccr.data.batch import PairBatch, TextBatch, VideoBatch
from nrccr.data.check import Checked, check_collection, matched_files
from nrccr.data.collections import SplitName
from nrccr.data.queries import Sample, Split
from nrccr.data.tokens import CaptionTokenizer
from nrccr.evaluation.evaluate import evaluate
from nrccr.evaluation.rule import Rule
from nrccr.losses.contrastive import ContrastiveLoss
from nrccr.losses.similarity import similarity
from nrccr.models.layers import evaluating, mean_over_positions
from nrccr.models.statedicts import Trained
from nrccr.systems.base import Published
from nrccr.systems.model import Model
from nrccr.systems.nrccr.data import Reader, cleaning_of, locate_data
from nrccr.systems.retriever import Retriever
from nrccr.training.task import Task, Validation
from tests.systems.toy.settings import ToySection

PUBLISHED = "toy_words"  # by which its published checkpoints are known


class Toy(nn.Module):
    """Captions (N, L) and videos (N, F, width) -> (N, D)."""

    independent = True

    def __init__(self, words: int, features: int, joint: int) -> None:
        super().__init__()
        self.feature_width = features
        self.words = nn.Embedding(words, joint)
        self.frames = nn.Linear(features, joint)

    def forward(self, *parts: PairBatch) -> tuple[Tensor, Tensor]:
        """Targets and videos (N, D)."""
        texts = torch.cat([self._text(part.target) for part in parts])
        return texts, torch.cat([self._video(part.visual) for part in parts])

    def embed_text(self, text: TextBatch) -> Tensor:
        """See nrccr.evaluation.encode.Encoder."""
        with evaluating(self):
            return self._text(text)

    def embed_visual(self, visual: VideoBatch) -> Tensor:
        """See nrccr.evaluation.encode.Encoder."""
        with evaluating(self):
            return self._video(visual)

    def _text(self, text: TextBatch) -> Tensor:
        return functional.normalize(mean_over_positions(self.words(text.tokens), text.mask, "masked"), dim=-1)

    def _video(self, video: VideoBatch) -> Tensor:
        return functional.normalize(mean_over_positions(self.frames(video.frames), video.mask, "masked"), dim=-1)


def network(config: Config, features: int | None = None, trained: Trained | None = None) -> Model:
    """See System."""
    tokenizer = CaptionTokenizer(config.text.model, config.text.max_tokens)
    width = features if trained is None else trained.width_of("frames.weight")
    assert width is not None
    return Model(Toy(len(tokenizer.tokenizer), width, config.joint.width), tokenizer, cleaning_of(config))


def task(config: Config, root: Path, device: torch.device, *, test: bool) -> Task:
    """See System."""
    reader = Reader.open(config, root, CaptionTokenizer(config.text.model, config.text.max_tokens))
    pairs, held_out = reader.pairs(), reader.split("val")
    model = network(config, pairs.visuals.width)
    contrast = ContrastiveLoss(config.section(ToySection).temperature)

    def validate() -> Validation:
        metrics = evaluate(model.network, held_out, Rule.of(config, device))
        return Validation(metrics["SumR"], metrics, f"SumR {metrics['SumR']:.1f}")

    return Task(
        network=model.network,
        losses=lambda out, batch: {"contrast_loss": contrast(similarity(*out))},
        players={},
        pairs=pairs,
        validate=validate,
        counts={"train": asdict(pairs.counts)},
        save_models=lambda run: None,
    )


def splits(retriever: Retriever, root: Path, name: SplitName, sample: Sample | None = None) -> Iterator[Split]:
    """See System."""
    return iter([Reader.open(retriever.config, root, retriever.tokenizer).split(name, sample)])


def check(config: Config, root: Path) -> Checked:
    """See System."""
    found = locate_data(config, root)
    report = check_collection(found, matched_files(found), mismatch_tolerance=config.data.mismatch_tolerance)
    return Checked(found.name, found.folder, report)


def published(path: Path, checkpoint: dict[str, Any]) -> Published | None:
    """See System."""
    if PUBLISHED not in checkpoint:
        return None
    weights = {"words.weight": checkpoint[PUBLISHED], **checkpoint["frames"]}
    return Published({"model": "toy", "joint": {"width": weights["words.weight"].shape[1]}}, weights)
