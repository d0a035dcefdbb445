"""Quartet's network: one text branch for every language, a visual branch of several parts, one joint space.

N captions of the source language in the batch, n of a language, L tokens, F frames, H backbone width, D joint-space
width. A scale 1 / T is trained with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from nrccr.config.schema import Config
from nrccr.data.batch import TensorRecord, TextBatch, VideoBatch, VisualBatch
from nrccr.models.backbone import backbone_states, freeze_backbone
from nrccr.models.fast import use_fast_layers
from nrccr.models.image import ImageEncoder
from nrccr.models.layers import JointMapping, evaluating, mean_over_positions
from nrccr.models.levels import MultiLevelVideo
from nrccr.models.text import TextEncoder
from nrccr.models.video import VideoEncoder
from nrccr.systems.quartet.data import BACK, QuartetBatch
from nrccr.systems.quartet.settings import QuartetSection, TextPooling

LARGEST_SCALE = 100.0  # temperature 0.01


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


class PooledText(nn.Module):
    """Captions -> one of the backbone's states or their mean."""

    def __init__(self, backbone: PreTrainedModel, pooling: TextPooling) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.width = int(backbone.config.hidden_size)

    def pool_states(self, states: Tensor, mask: Tensor) -> Tensor:
        """Backbone states (n, L, H) -> (n, H)."""
        return states[:, 0] if self.pooling == "first" else mean_over_positions(states, mask, "masked")


class AttendedText(TextEncoder):
    """NRCCR's text branch: a transformer block over the backbone's states, and the cross-attention teacher."""

    def pool_states(self, states: Tensor, mask: Tensor) -> Tensor:
        """Backbone states (n, L, H) -> (n, W)."""
        return self.pool(self.project(states), mask)

    def teach_states(self, source: Tensor, source_mask: Tensor, target: Tensor, target_mask: Tensor) -> Tensor:
        """The teacher's vectors (n, W) of captions and their translations, from backbone states."""
        hidden = [self.project(states) for states in (source, target)]  # (n, S, W), (n, T, W)
        heads = [self.block.heads_of(part) for part in hidden]
        return self.teach(heads[0], source_mask, heads[1], target_mask, hidden[1])


class JoinedVideo(nn.Module):
    """Several encoders of the same video side by side."""

    def __init__(self, parts: list[MultiLevelVideo | VideoEncoder]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.width = sum(part.width for part in parts)
        self.feature_width = parts[0].feature_width

    def forward(self, video: VideoBatch) -> Tensor:
        """Videos -> (N, the widths of all)."""
        return torch.cat([part(video) for part in self.parts], dim=1)


class Quartet(nn.Module):
    """Text and visual branch, their mappings into one space, and the trained scale.

    Args:
        text: the text branch.
        visual: the visual branch.
        joint: width D of the joint space.
        dropout: in both mappings.
        temperature: T at the start.
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
        temperature: float,
        with_teacher: bool = False,
        with_states: bool = False,
    ) -> None:
        super().__init__()
        self.text = text
        self.visual = visual
        self.map_text = JointMapping(text.width, joint, dropout)
        self.map_visual = JointMapping(visual.width, joint, dropout)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.with_teacher = with_teacher
        self.with_states = with_states
        self.independent = True

    @property
    def feature_width(self) -> int:
        """Width of the features it takes."""
        return int(self.visual.feature_width)

    @property
    def scale(self) -> Tensor:
        """1 / T, at most 100."""
        return self.log_scale.exp().clamp(max=LARGEST_SCALE)

    def forward(self, *parts: QuartetBatch) -> QuartetOutput:
        """One training batch, whole or in parts of like length.

        Parts come together before the mappings, whose batch statistics see all captions of a language at a time.
        """
        together = [list(_captions(part)) for part in parts]
        texts_of_all = [text for own in together for _, text in own]
        states = iter(backbone_states(self.text.backbone, texts_of_all, real_only=True))
        found: list[dict[tuple[str, bool], tuple[Tensor, Tensor]]] = [
            {name: (next(states), text.mask) for name, text in own} for own in together
        ]
        sizes = [len(part.items) for part in parts]
        starts = [sum(sizes[:index]) for index in range(len(parts))]
        texts = {}
        for language in parts[0].texts:
            own = [part.texts[language] for part in parts]
            texts[language] = LanguageOutput(
                vectors=self._mapped(found, (language, False)),
                rows=torch.cat([part.rows + start for part, start in zip(own, starts, strict=True)]),
                masked=self._mapped(found, (language, True)) if own[0].masked is not None else None,
                states=[part[language, False][0] for part in found] if self.with_states else [],
                mask=[part[language, False][1] for part in found] if self.with_states else [],
            )
        views = [part.masked_visual for part in parts if part.masked_visual is not None]
        return QuartetOutput(
            texts=texts,
            visual=self._seen([part.visual for part in parts]),
            masked_visual=self._seen(views) if views else None,
            teachers=self._teachers(parts, found),
            scale=self.scale,
            items=torch.cat([part.items for part in parts]),
            pairs=torch.cat([part.pairs for part in parts]),
            epoch=parts[0].epoch,
        )

    def _mapped(self, found: list[dict[tuple[str, bool], tuple[Tensor, Tensor]]], name: tuple[str, bool]) -> Tensor:
        pooled = torch.cat([self.text.pool_states(*part[name]) for part in found])  # (n, W)
        mapped: Tensor = self.map_text(pooled)
        return mapped

    def _seen(self, visuals: list[VisualBatch]) -> Tensor:
        mapped: Tensor = self.map_visual(torch.cat([self.visual(part) for part in visuals]))  # (N, D)
        return mapped

    def _teachers(
        self, parts: tuple[QuartetBatch, ...], found: list[dict[tuple[str, bool], tuple[Tensor, Tensor]]]
    ) -> dict[str, Tensor]:
        if not self.with_teacher or not isinstance(self.text, AttendedText):
            return {}
        source, *others = [language for language in parts[0].texts if language != BACK]
        taught = {}
        for language in others:
            pooled = []
            for part, own in zip(parts, found, strict=True):
                states, mask = own[source, False]
                rows = part.texts[language].rows
                pooled.append(self.text.teach_states(states[rows], mask[rows], *own[language, False]))
            taught[language] = self.map_text(torch.cat(pooled))
        return taught

    def embed_text(self, text: TextBatch) -> Tensor:
        """Captions of any language -> (N, D), unit length; evaluation mode, no gradients."""
        with evaluating(self):
            (states,) = backbone_states(self.text.backbone, [text], real_only=True)  # (N, L, H)
            embedded: Tensor = self.map_text(self.text.pool_states(states, text.mask))
            return embedded

    def embed_visual(self, visual: VisualBatch) -> Tensor:
        """Items -> (N, D), unit length; evaluation mode, no gradients."""
        with evaluating(self):
            embedded: Tensor = self.map_visual(self.visual(visual))
            return embedded


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
        text = PooledText(backbone, own.pooling)
    network = Quartet(
        text,
        _build_visual(config, own, feature_width),
        config.joint.width,
        dropout=config.joint.dropout,
        temperature=own.temperature,
        with_teacher=bool(loss.similarity or loss.feature),
        with_states=bool(loss.adversary),
    )
    return use_fast_layers(network)


def _build_visual(config: Config, own: QuartetSection, features: int) -> JoinedVideo | ImageEncoder:
    ours = config.visual
    if ours.kind == "vectors":
        return ImageEncoder(features, ours.width)
    parts: list[MultiLevelVideo | VideoEncoder] = []
    if own.video in ("levels", "both"):
        parts.append(MultiLevelVideo(features, ours.gru, ours.maps, config.joint.dropout, "masked"))
    if own.video in ("transformer", "both"):
        parts.append(VideoEncoder(features, ours.width, ours.heads, ours.layers, mask="key", pooling="masked"))
    return JoinedVideo(parts)
