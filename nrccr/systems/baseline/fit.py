"""Fitting a baseline: its linear map by ridge regression in closed form, the penalty chosen on validation alone.

n training captions, T text width, D feature width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nrccr.config.schema import Config
from nrccr.data.batch import TextBatch, VisualBatch
from nrccr.data.collections import SplitName
from nrccr.data.items import require_same_width
from nrccr.data.queries import Split
from nrccr.data.tokens import TokenTable
from nrccr.evaluation.directions import Directions
from nrccr.evaluation.encode import Embeddings, EncodedQueries, encode_gallery, encode_split, encode_texts
from nrccr.evaluation.metrics import recall_sum
from nrccr.evaluation.ranked import Scored
from nrccr.evaluation.rule import Rule
from nrccr.models.layers import unit
from nrccr.systems.base import located
from nrccr.systems.baseline.network import Baseline
from nrccr.systems.baseline.settings import BaselineSection
from nrccr.systems.baseline.system import splits, with_network, without_network
from nrccr.systems.model import Model
from nrccr.systems.retriever import Retriever

PENALTIES = tuple(10.0 ** (exponent / 2) for exponent in range(-10, 5))  # times the mean variance of text vectors
AT_ONCE = 1 << 16  # captions whose products are added up together, in float64


@dataclass(frozen=True)
class Fitted:
    """A fitted baseline, and what its run folder records.

    Attributes:
        model: the network with its map, its tokeniser and pre-processing.
        counts: of each split that was read.
        fingerprint: of the training data.
        record: further entries of `run.json`.
        places: of the features that were read.
    """

    model: Model
    counts: dict[str, Any]
    fingerprint: str
    record: dict[str, Any] = field(default_factory=dict)
    places: tuple[Path, ...] = ()

    @property
    def line(self) -> str:
        """What was done, in words."""
        ridge = self.record.get("ridge")
        if ridge is None:
            return "encoders as they are, nothing is fitted"
        if not ridge["validation"]:
            return f"ridge regression, penalty {ridge['penalty']:g} as given"
        best = max(tried["score"] for tried in ridge["validation"])
        return f"ridge regression, penalty {ridge['penalty']:g} chosen on validation, R@1+5+10 {best:.2f} there"


class Unmapped:
    """The encoders of a baseline without its map, as an `Encoder`."""

    independent = True

    def __init__(self, network: Baseline) -> None:
        self._network = network

    def embed_text(self, text: TextBatch) -> Tensor:
        """Captions -> (N, T)."""
        return self._network.text_vectors(text)

    def embed_visual(self, visual: VisualBatch) -> Tensor:
        """Items -> (N, D)."""
        return self._network.visual_vectors(visual)


@dataclass(frozen=True)
class Ridge:
    """Ridge regression with an intercept, at any penalty from one decomposition.

    Attributes:
        text_mean: (T,) of the captions' vectors.
        visual_mean: (D,) of their items' vectors.
        values: (T,) eigenvalues s of the covariance of text vectors, C = U diag(s) U^T.
        vectors: (T, T) U.
        rotated: (T, D) U^T B, where B is the covariance of text and visual vectors.
    """

    text_mean: Tensor
    visual_mean: Tensor
    values: Tensor
    vectors: Tensor
    rotated: Tensor

    @classmethod
    def of(cls, text: Tensor, visual: Tensor, item_of: Tensor) -> Ridge:
        """Of captions' vectors (n, T), items' vectors (N, D) and each caption's item (n,); sums are float64."""
        count = len(text)
        parts = [range(first, min(first + AT_ONCE, count)) for first in range(0, count, AT_ONCE)]
        slices = [slice(part.start, part.stop) for part in parts]
        text_mean = sum(text[own].double().sum(dim=0) for own in slices) / count
        visual_mean = sum(visual[item_of[own]].double().sum(dim=0) for own in slices) / count
        assert isinstance(text_mean, Tensor) and isinstance(visual_mean, Tensor)
        covariance = torch.zeros(text.shape[1], text.shape[1], dtype=torch.float64, device=text.device)
        crossed = torch.zeros(text.shape[1], visual.shape[1], dtype=torch.float64, device=text.device)
        for own in slices:
            centred = text[own].double() - text_mean
            covariance += centred.T @ centred / count
            crossed += centred.T @ (visual[item_of[own]].double() - visual_mean) / count
        values, vectors = torch.linalg.eigh(covariance)
        return cls(text_mean, visual_mean, values.clamp(min=0), vectors, vectors.T @ crossed)

    def solved(self, penalty: float) -> tuple[Tensor, Tensor]:
        """Weight (D, T) and bias (D,) of the map to centred visual vectors; penalty times the mean of s.

        W = argmin mean |W x - y|^2 + penalty * mean(s) |W|^2 over centred pairs = B^T (C + penalty mean(s) I)^-1.
        """
        shrunk = self.values + penalty * self.values.mean().clamp(min=1e-12)
        weight = (self.vectors @ (self.rotated / shrunk[:, None])).T  # (D, T)
        return weight, -weight @ self.text_mean


def fit(config: Config, root: Path, device: torch.device) -> Fitted:
    """Build a baseline and fit its map, if it has one, on the training split.

    Raises:
        UserError: no such collection or encoder, or damaged data.
    """
    found, own, rule = located(config, root), config.section(BaselineSection), Rule.of(config, device)
    reading = without_network(found)
    record = {"tokenizer": reading.tokenizer.describe()}

    def split(name: SplitName) -> Split:
        return next(splits(Retriever(reading, found, device, Path(config.text.model)), root, name))

    test = split("test")  # whose damage is reported now
    if own.map == "none":
        model = _on(device, with_network(found, reading, test.visuals.width))
        return Fitted(model, {}, hashlib.sha256(b"").hexdigest(), record, (test.visuals.place,))
    training = split("train")
    held_out = split("val") if own.penalty is None else None
    read = [training] if held_out is None else [training, held_out]
    for other in (test, *read):
        require_same_width(other.visuals, training.visuals)
    model = _on(device, with_network(found, reading, training.visuals.width))
    with rule.encoding():
        ridge = _ridge(model.network, training, own, rule)
        tried = [] if held_out is None else _validated(model.network, ridge, held_out, rule)
    chosen = own.penalty or max(tried, key=lambda one: (one["score"], one["penalty"]))["penalty"]
    weight, bias = ridge.solved(chosen)
    with torch.no_grad():
        model.network.map.weight.copy_(weight)
        model.network.map.bias.copy_(bias)
        model.network.mean.copy_(ridge.visual_mean[None])
    return Fitted(
        model,
        {part.name: dict(part.counts) for part in read},
        _fingerprint(training, own),
        record | {"ridge": {"penalty": chosen, "validation": tried}},
        tuple(part.visuals.place for part in read),
    )


def _on(device: torch.device, model: Model) -> Model:
    model.network.to(device)
    return model


def _tables(split: Split, own: BaselineSection) -> Mapping[str, TokenTable]:
    queries = split.headline
    both = {"source": queries.translations, "target": queries.tokens}
    return {name: table for name, table in both.items() if own.captions in (name, "both") and table is not None}


def _ridge(network: Baseline, split: Split, own: BaselineSection, rule: Rule) -> Ridge:
    """The regression of a training split."""
    unmapped = Unmapped(network)
    visual = encode_gallery(unmapped, split, rule.batch_size, rule.device)  # (N, D)
    tables = _tables(split, own).values()
    text = torch.cat([encode_texts(unmapped, table, rule.batch_size, rule.device) for table in tables])  # (n, T)
    item_of = torch.from_numpy(split.headline.item_of).to(rule.device).repeat(len(tables))  # (n,)
    return Ridge.of(text, visual, item_of)


def _validated(network: Baseline, ridge: Ridge, split: Split, rule: Rule) -> list[dict[str, float]]:
    """The score of every penalty: text-to-visual R@1 + R@5 + R@10, by which a training's best epoch is chosen too."""
    ((_, encoded),) = encode_split(Unmapped(network), split, rule.batch_size, rule.device)
    return [{"penalty": penalty, "score": _score(encoded, ridge, penalty, rule)} for penalty in PENALTIES]


def _score(encoded: EncodedQueries, ridge: Ridge, penalty: float, rule: Rule) -> float:
    weight, bias = (part.float() for part in ridge.solved(penalty))

    def mapped(text: Tensor | None) -> Tensor | None:
        return None if text is None else unit(text @ weight.T + bias)

    raw = encoded.embeddings
    target = mapped(raw.target)
    assert target is not None
    embeddings = Embeddings(mapped(raw.source), target, unit(raw.visual - ridge.visual_mean.float()))
    scores = Directions(embeddings, rule.kind, rule.memory_mb).plain(rule.target_weight)
    ranked = Scored.of(scores, encoded.item_of, rule.memory_mb).ranked(memory_mb=rule.memory_mb)
    return recall_sum(ranked.metrics()["text_to_visual"])


def _fingerprint(split: Split, own: BaselineSection) -> str:
    """A hash of the captions' tokens and of which item each has."""
    digest = hashlib.sha256("\n".join(split.gallery.ids).encode())
    for table in _tables(split, own).values():
        digest.update(table.content())
    digest.update(split.headline.item_of.tobytes())
    return digest.hexdigest()
