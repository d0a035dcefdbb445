"""Quartet's network: one text branch for every language, a visual branch of several parts, one joint space.

N captions of the source language in the batch, n of a language, L tokens, F frames, H backbone width, D joint-space
width. A scale 1 / T is trained with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from nrccr.config.schema import Config
from nrccr.data.batch import TensorRecord, TextBatch, VisualBatch
from nrccr.models.backbone import backbone_states, freeze_backbone
from nrccr.models.fast import use_fast_layers
from nrccr.models.image import ImageEncoder
from nrccr.models.layers import JointMapping, evaluating
from nrccr.models.levels import MeanVideo, MultiLevelVideo
from nrccr.models.video import VideoEncoder
from nrccr.models.words import WordVectors
from nrccr.processes import gather, rows_before
from nrccr.systems.quartet.batch import QuartetBatch
from nrccr.systems.quartet.branches import AttendedText, JoinedVideo, PooledText, VideoPart
from nrccr.systems.quartet.data import BACK
from nrccr.systems.quartet.settings import QuartetSection


class ReadCaptions(NamedTuple):
    """A batch of captions, read.

    Attributes:
        states: (n, L, H), the backbone's.
        mask: (n, L), of real tokens.
        words: (n, W), what `WordVectors` gives; none without word vectors.
    """

    states: Tensor
    mask: Tensor
    words: Tensor | None

    def beside_words(self, pooled: Tensor) -> Tensor:
        """Their vectors (n, W) from their states, and those of their words beside them where there are any."""
        return pooled if self.words is None else torch.cat([pooled, self.words], dim=1)


@dataclass(frozen=True)
class QuartetRows(TensorRecord):
    """What some captions and items become, each for itself, before the mappings.

    Attributes:
        pooled: (n, the text branch's width) by (language, whether masked), in the order in which the mapping sees them.
        taught: (n, the text branch's width) by target language, from the teacher; none without one.
        visual: (N, the visual branch's width).
        masked_visual: the same of their views; none without.
        states, mask: by language backbone states (n, L, H) and token masks, for the discriminator; none without one.
    """

    pooled: dict[tuple[str, bool], Tensor]
    taught: dict[str, Tensor]
    visual: Tensor
    masked_visual: Tensor | None
    states: dict[str, list[Tensor]]
    mask: dict[str, list[Tensor]]


@dataclass(frozen=True)
class LanguageOutput(TensorRecord):
    """Captions of one language.

    Attributes:
        vectors: (n, D) of unit length.
        rows: (n,) which captions of the source language they translate.
        masked: (n, D), their masked views; none without views.
        states, mask: backbone states (n, L, H) and token masks of each part, for the discriminator; none without one.
    """

    vectors: Tensor
    rows: Tensor
    masked: Tensor | None
    states: list[Tensor]
    mask: list[Tensor]


@dataclass(frozen=True)
class QuartetOutput(TensorRecord):
    """What the objective sees of a batch.

    Attributes:
        texts: by language, the source language first, `BACK` last where it is read.
        visual: (N, D) of unit length.
        masked_visual: (N, D); none without views or for images.
        teachers: by target language (n, D), rows as its captions; none without a teacher.
        scale: 1 / T, a scalar.
        items: (N,) which item each caption of the source language belongs to.
        pairs: (N,) positions in the training set.
        epoch: scalar integer, from 1.
    """

    texts: dict[str, LanguageOutput]
    visual: Tensor
    masked_visual: Tensor | None
    teachers: dict[str, Tensor]
    scale: Tensor
    items: Tensor
    pairs: Tensor
    epoch: Tensor


class Quartet(nn.Module):
    """Text and visual branch, their mappings into one space, and the trained scale.

    Args:
        text: the text branch.
        visual: the visual branch.
        joint: width D of the joint space.
        dropout: in both mappings.
        temperature: T at the start, and the least that it is trained to.
        words: word vectors beside the backbone's states; none: these alone.
        with_teacher: whether the cross-attention teacher is computed.
        with_states: whether backbone states are given to the objective.
    """

    def __init__(
        self,
        text: PooledText | AttendedText,
        visual: JoinedVideo | ImageEncoder,
        joint: int,
        *,
        dropout: float,
        temperature: tuple[float, float],
        words: WordVectors | None = None,
        with_teacher: bool = False,
        with_states: bool = False,
    ) -> None:
        super().__init__()
        self.text = text
        self.words = words
        self.visual = visual
        self.map_text = JointMapping(text.width + (0 if words is None else words.width), joint, dropout)
        self.map_visual = JointMapping(visual.width, joint, dropout)
        start, self.least = temperature
        self.log_scale = nn.Parameter(torch.tensor(-math.log(start)))
        self.with_teacher = with_teacher
        self.with_states = with_states
        self.independent = True

    @property
    def feature_width(self) -> int:
        """Width of the features it takes."""
        return int(self.visual.feature_width)

    def limited_scale(self) -> Tensor:
        """1 / T, after T's parameter is brought back to where T is at least `least`."""
        with torch.no_grad():  # the parameter itself: beyond the limit a limited copy has no gradient to lead it back
            self.log_scale.clamp_(max=-math.log(self.least))
        return self.log_scale.exp()

    def forward(self, *parts: QuartetBatch) -> QuartetOutput:
        """One training batch, whole or in parts of like length."""
        return self.together([self.apart(*parts)], *parts)

    def apart(self, *parts: QuartetBatch) -> QuartetRows:
        """The encoders' part of it, up to the mappings: no caption or item sees another."""
        named = [list(_captions(part)) for part in parts]
        captions = [text for own in named for _, text in own]
        read = iter(self._read(captions))
        found = [{name: next(read) for name, _ in own} for own in named]
        views = [part.masked_visual for part in parts if part.masked_visual is not None]
        languages = list(parts[0].texts) if self.with_states else []
        return QuartetRows(
            pooled={name: torch.cat([self._pooled(part[name]) for part in found]) for name in found[0]},
            taught=self._taught(parts, found),
            visual=torch.cat([self.visual(part.visual) for part in parts]),
            masked_visual=torch.cat([self.visual(view) for view in views]) if views else None,
            states={language: [part[language, False].states for part in found] for language in languages},
            mask={language: [part[language, False].mask for part in found] for language in languages},
        )

    def _read(self, captions: Sequence[TextBatch]) -> list[ReadCaptions]:
        """What the backbone and the word table say of batches of captions, each asked once."""
        states = backbone_states(self.text.backbone, captions, real_only=True)
        words = [None] * len(captions) if self.words is None else self.words(captions)
        return [ReadCaptions(*of) for of in zip(states, (text.mask for text in captions), words, strict=True)]

    def _pooled(self, read: ReadCaptions) -> Tensor:
        return read.beside_words(self.text.pool_states(read.states, read.mask))

    def _taught(
        self, parts: tuple[QuartetBatch, ...], found: list[dict[tuple[str, bool], ReadCaptions]]
    ) -> dict[str, Tensor]:
        if not self.with_teacher or not isinstance(self.text, AttendedText):
            return {}
        source, *others = [language for language in parts[0].texts if language != BACK]
        taught = {}
        for language in others:
            pooled = []
            for part, own in zip(parts, found, strict=True):
                read, translation = own[source, False], own[language, False]
                rows = part.texts[language].rows
                taught_states = self.text.teach_states(
                    read.states[rows], read.mask[rows], translation.states, translation.mask
                )
                pooled.append(translation.beside_words(taught_states))
            taught[language] = torch.cat(pooled)
        return taught

    def together(self, rows: Sequence[QuartetRows], *parts: QuartetBatch) -> QuartetOutput:
        """The rest: the rows of all parts, and of all processes, come together before the mappings.

        Batch statistics so see all captions of a language at a time.
        """
        places, items, pairs = _gathered_rows(parts)
        mapped = {name: _mapped(self.map_text, [own.pooled[name] for own in rows]) for name in rows[0].pooled}
        texts = {
            language: LanguageOutput(
                vectors=mapped[language, False],
                rows=places[language],
                masked=mapped.get((language, True)),
                states=[states for part in rows for states in part.states.get(language, [])],
                mask=[mask for part in rows for mask in part.mask.get(language, [])],
            )
            for language in parts[0].texts
        }
        views = [own.masked_visual for own in rows if own.masked_visual is not None]
        return QuartetOutput(
            texts=texts,
            visual=_mapped(self.map_visual, [own.visual for own in rows]),
            masked_visual=_mapped(self.map_visual, views) if views else None,
            teachers={name: _mapped(self.map_text, [own.taught[name] for own in rows]) for name in rows[0].taught},
            scale=self.limited_scale(),
            items=items,
            pairs=pairs,
            epoch=parts[0].epoch,
        )

    def embed_text(self, text: TextBatch) -> Tensor:
        """Captions of any language -> (N, D), unit length; evaluation mode, no gradients."""
        with evaluating(self):
            (read,) = self._read([text])
            embedded: Tensor = self.map_text(self._pooled(read))
            return embedded

    def embed_visual(self, visual: VisualBatch) -> Tensor:
        """Items -> (N, D), unit length; evaluation mode, no gradients."""
        with evaluating(self):
            embedded: Tensor = self.map_visual(self.visual(visual))
            return embedded


def _mapped(mapping: JointMapping, parts: Sequence[Tensor]) -> Tensor:
    """Vectors of several parts, and those of all processes, through a mapping together."""
    mapped: Tensor = mapping(*gather(torch.cat(list(parts))))
    return mapped


def _gathered_rows(parts: tuple[QuartetBatch, ...]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Which captions of the source language each language's translate, items and pairs, of all processes."""
    sizes = [part.count for part in parts]
    first = rows_before(sum(sizes))
    starts = [first + sum(sizes[:index]) for index in range(len(parts))]
    own = {
        language: torch.cat([part.texts[language].rows + start for part, start in zip(parts, starts, strict=True)])
        for language in parts[0].texts
    }
    items, pairs, *rows = gather(
        torch.cat([part.items for part in parts]), torch.cat([part.pairs for part in parts]), *own.values()
    )
    return dict(zip(own, rows, strict=True)), items, pairs


def _captions(part: QuartetBatch) -> list[tuple[tuple[str, bool], TextBatch]]:
    """Every batch of captions by (language, whether masked), in a fixed order."""
    listed: list[tuple[tuple[str, bool], TextBatch]] = []
    for language, own in part.texts.items():
        listed.append(((language, False), own.text))
        if own.masked is not None:
            listed.append(((language, True), own.masked))
    return listed


def build_quartet(config: Config, backbone: PreTrainedModel, feature_width: int) -> Quartet:
    """The network a configuration describes, from fresh weights but for the backbone's.

    Args:
        config: the run's configuration.
        backbone: the text backbone, see nrccr.models.backbone.build_backbone.
        feature_width: width of the features, from the files.

    Raises:
        UserError: a trainable layer that the backbone does not have.
    """
    own, loss = config.section(QuartetSection), config.loss
    freeze_backbone(backbone, config.text.freeze, config.text.trainable_layers)
    text: PooledText | AttendedText
    if own.pooling == "attention":
        text = AttendedText(backbone, config.text.width, config.text.heads, mask="key", pooling="masked")
    else:
        text = PooledText(backbone, own.pooling or "mean")
    words = None
    if own.words:
        vocabulary = int(backbone.get_input_embeddings().num_embeddings)
        words = WordVectors(vocabulary, own.words, own.dropped_words, own.word_pairs)
    network = Quartet(
        text,
        _build_visual(config, own, feature_width),
        config.joint.width,
        dropout=config.joint.dropout,
        temperature=(own.temperature, own.least_temperature),
        words=words,
        with_teacher=bool(loss.similarity or loss.feature),
        with_states=bool(loss.adversary),
    )
    return use_fast_layers(network)


def _build_visual(config: Config, own: QuartetSection, features: int) -> JoinedVideo | ImageEncoder:
    ours = config.visual
    if ours.kind == "vectors":
        return ImageEncoder(features, ours.width)
    parts: list[VideoPart] = []
    if own.video == "mean":
        parts.append(MeanVideo(features))
    if own.video in ("levels", "both"):
        parts.append(MultiLevelVideo(features, ours.gru, ours.maps, config.joint.dropout, "masked"))
    if own.video in ("transformer", "both"):
        parts.append(VideoEncoder(features, ours.width, ours.heads, ours.layers, mask="key", pooling="masked"))
    return JoinedVideo(parts)
