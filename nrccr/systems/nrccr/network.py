"""NRCCR's network (Wang, Dong et al., ACM MM 2022, section 3.2), without the losses.

N pairs in the batch, L tokens, F frames, H backbone width, D joint-space width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from nrccr.config.schema import Config
from nrccr.data.batch import PairBatch, TensorRecord, TextBatch, VisualBatch
from nrccr.models.backbone import freeze_backbone
from nrccr.models.discriminator import Discriminator
from nrccr.models.fast import use_fast_layers
from nrccr.models.image import ImageEncoder, encoder_width
from nrccr.models.layers import JointMapping, evaluating, unit
from nrccr.models.text import TextEncoder
from nrccr.models.video import VideoEncoder
from nrccr.processes import gather
from nrccr.systems.nrccr.settings import padding_free


@dataclass(frozen=True)
class BackboneStates(TensorRecord):
    """Backbone states m (N, L, H) of captions, and their mask (N, L)."""

    states: Tensor
    mask: Tensor


@dataclass(frozen=True)
class PairRows(TensorRecord):
    """What some pairs become, each for itself: all that their losses need of the encoders.

    Attributes:
        pooled: (n, W) by branch, in the order in which the mapping sees them.
        visual: (n, W).
        source_states, target_states: as in PairOutput; empty where nobody reads them.
    """

    pooled: dict[str, Tensor]
    visual: Tensor
    source_states: list[BackboneStates]
    target_states: list[BackboneStates]


@dataclass(frozen=True)
class PairOutput(TensorRecord):
    """What the objective sees of a batch; vectors (N, D) of unit length.

    Attributes:
        source, target, visual: c^S, c^T and v.
        teacher, back: h and c^B, or none where no loss uses them.
        items: (N,) which item each pair belongs to.
        source_states, target_states: backbone states m for the discriminator, one entry for each part of this process's
            share of the batch; none where nobody reads them.
    """

    source: Tensor
    target: Tensor
    visual: Tensor
    teacher: Tensor | None
    back: Tensor | None
    items: Tensor
    source_states: list[BackboneStates]
    target_states: list[BackboneStates]


class Attended(NamedTuple):
    """Source tokens with target tokens, (N, S, T) both.

    Attributes:
        attention: the mean over heads; each real row's sum is 1.
        similarity: cosines of the states between which the attention is.
    """

    attention: Tensor
    similarity: Tensor


class _Texts(NamedTuple):
    """Pooled vectors (N, W) by branch, and the states that the discriminator sees."""

    pooled: dict[str, Tensor]
    source: BackboneStates
    target: BackboneStates


class NRCCR(nn.Module):
    """Text and visual branch and their mappings into one space.

    Args:
        text: the text branch.
        visual: the visual branch.
        joint: width D of the joint space.
        with_teacher, with_back: leave out branches that no loss uses.
        with_states: whether backbone states are given to the objective.
        independent: an embedding depends on its own caption or item alone, whatever else is in its batch.
    """

    def __init__(
        self,
        text: TextEncoder,
        visual: VideoEncoder | ImageEncoder,
        joint: int,
        *,
        dropout: float = 0.2,
        with_teacher: bool = True,
        with_back: bool = True,
        with_states: bool = True,
        independent: bool = False,
    ) -> None:
        super().__init__()
        self.text = text
        self.visual = visual
        self.map_text = JointMapping(text.width, joint, dropout)
        self.map_visual = JointMapping(visual.width, joint, dropout)
        self.with_teacher = with_teacher
        self.with_back = with_back
        self.with_states = with_states
        self.independent = independent

    @property
    def feature_width(self) -> int:
        """Width of the features it takes; that of its image encoder's output where it has one."""
        return self.visual.feature_width

    def forward(self, *parts: PairBatch) -> PairOutput:
        """One training batch, whole or in parts of like length, each padded for itself."""
        return self.together([self.apart(*parts)], *parts)

    def apart(self, *parts: PairBatch) -> PairRows:
        """The encoders' part of it, up to the mappings: no pair sees another."""
        branches = ("source", "target", "back") if self.with_back else ("source", "target")
        states = iter(self.text.states([getattr(part, name) for part in parts for name in branches]))  # each (N, L, H)
        texts = [self._texts(part, [next(states) for _ in branches]) for part in parts]
        pooled = {name: torch.cat([text.pooled[name] for text in texts]) for name in texts[0].pooled}  # each (N, W)
        return PairRows(
            pooled,
            visual=torch.cat([self.visual(part.visual) for part in parts]),  # (N, W)
            source_states=[text.source for text in texts] if self.with_states else [],
            target_states=[text.target for text in texts] if self.with_states else [],
        )

    def together(self, rows: Sequence[PairRows], *parts: PairBatch) -> PairOutput:
        """The rest: the rows of all parts, and those of all processes, come together before the mappings.

        Batch statistics so see all N pairs, the text mapping's in the order source, target, teacher, back.
        """
        pooled = {name: torch.cat([own.pooled[name] for own in rows]) for name in rows[0].pooled}  # each (N, W)
        visual = torch.cat([own.visual for own in rows])  # (N, W)
        items, visual, *whole = gather(torch.cat([part.items for part in parts]), visual, *pooled.values())
        pooled = dict(zip(pooled, whole, strict=True))
        mapped = {name: self.map_text(vectors) for name, vectors in pooled.items()}  # each (N, D), in the order above
        return PairOutput(
            source=mapped["source"],
            target=mapped["target"],
            visual=self.map_visual(visual),
            teacher=mapped.get("teacher"),
            back=mapped.get("back"),
            items=items,
            source_states=[states for own in rows for states in own.source_states],
            target_states=[states for own in rows for states in own.target_states],
        )

    def _texts(self, pairs: PairBatch, states: list[Tensor]) -> _Texts:
        """The text branch of one part from its backbone states (N, L, H), up to the mapping."""
        masks = [pairs.source.mask, pairs.target.mask, pairs.back.mask]
        hidden = [self.text.project(part) for part in states]  # each (N, L, W)
        heads = [self.text.block.heads_of(part) for part in hidden]
        pooled = {
            "source": self.text.pool(hidden[0], masks[0], heads[0]),  # (N, W)
            "target": self.text.pool(hidden[1], masks[1], heads[1]),  # (N, W)
        }
        if self.with_teacher:
            pooled["teacher"] = self.text.teach(heads[0], masks[0], heads[1], masks[1], hidden[1])  # (N, W)
        if self.with_back:
            pooled["back"] = self.text.pool(hidden[2], masks[2], heads[2])  # (N, W)
        return _Texts(pooled, BackboneStates(states[0], masks[0]), BackboneStates(states[1], masks[1]))

    def embed_text(self, text: TextBatch) -> Tensor:
        """Captions -> (N, D), unit length; evaluation mode, no gradients."""
        with evaluating(self):
            (states,) = self.text.states([text])  # (N, L, H)
            embedded: Tensor = self.map_text(self.text.pool(self.text.project(states), text.mask))
            return embedded

    def teacher_attention(self, source: TextBatch, target: TextBatch) -> Attended:
        """How the teacher's S source tokens attend to T target tokens (section 3.3.1); evaluation mode, no gradients.

        Where no loss uses a teacher nobody has taught it to.
        """
        with evaluating(self):
            hidden = [self.text.project(states) for states in self.text.states([source, target])]  # each (N, L, W)
            heads = [self.text.block.heads_of(part) for part in hidden]
            weights = self.text.block.weights(heads[0].query, source.mask, heads[1].key, target.mask)  # (N, H, S, T)
            return Attended(weights.mean(dim=1), unit(hidden[0]) @ unit(hidden[1]).transpose(1, 2))

    def embed_visual(self, visual: VisualBatch) -> Tensor:
        """Items -> (N, D), unit length; evaluation mode, no gradients."""
        with evaluating(self):
            embedded: Tensor = self.map_visual(self.visual(visual))
            return embedded


def build_nrccr(
    config: Config, backbone: PreTrainedModel, feature_width: int | None, image_encoder: PreTrainedModel | None = None
) -> NRCCR:
    """The network a configuration describes, from fresh weights but for the backbone's.

    Args:
        config: the run's configuration.
        backbone: the text backbone, see nrccr.models.backbone.build_backbone.
        feature_width: width of the features, from the files; that of the image encoder's output where there is one.
        image_encoder: for `visual.kind: clip`, see nrccr.models.image.build_image_encoder.

    Raises:
        UserError: a trainable layer that the backbone does not have, or features that the image encoder does not give.
    """
    freeze_backbone(backbone, config.text.freeze, config.text.trainable_layers)
    reading: dict[str, Any] = {
        "mask": config.switch("attention_mask"),
        "scale": config.switch("attention_scale"),
        "feed_forward": config.switch("feed_forward"),
        "pooling": config.switch("pooling"),
    }
    text = TextEncoder(backbone, config.text.width, config.text.heads, teacher=config.switch("teacher"), **reading)
    visual = _build_visual(config, feature_width, image_encoder, reading)
    network = NRCCR(
        text,
        visual,
        config.joint.width,
        dropout=config.joint.dropout,
        with_teacher=bool(config.loss.similarity or config.loss.feature),
        with_back=bool(config.loss.cycle),
        with_states=bool(config.loss.adversary),
        independent=padding_free(config),
    )
    return use_fast_layers(network)


def _build_visual(
    config: Config, feature_width: int | None, image_encoder: PreTrainedModel | None, reading: dict[str, Any]
) -> VideoEncoder | ImageEncoder:
    ours = config.visual
    if ours.kind == "clip":
        assert image_encoder is not None
        return ImageEncoder(encoder_width(image_encoder), ours.width, image_encoder, trainable=config.image.trainable)
    assert feature_width is not None
    if ours.kind == "vectors":
        return ImageEncoder(feature_width, ours.width)
    return VideoEncoder(feature_width, ours.width, ours.heads, ours.layers, **reading)


def build_discriminator(config: Config, backbone_width: int) -> Discriminator | None:
    """The language discriminator a configuration describes; none where the adversary's weight is zero."""
    if not config.loss.adversary:
        return None
    logits = 2 if config.switch("adversary") == "non_saturating" else 1
    found = Discriminator(backbone_width, config.adversary.discriminator, logits, config.switch("pooling"))
    return use_fast_layers(found)
