"""MLCMR's network: a multilingual baseline with multi-level video encoding, without the losses.

N pairs in the batch, L tokens, F frames, D feature width, G GRU width a direction, M maps a kernel, H backbone width,
J joint-space width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from nrccr.config.choices import Pooling
from nrccr.config.schema import Config
from nrccr.data.batch import TensorRecord, TextBatch, VideoBatch, ViewBatch, VisualBatch
from nrccr.models.backbone import backbone_states, freeze_backbone
from nrccr.models.fast import use_fast_layers
from nrccr.models.layers import JointMapping, evaluating, mean_over_positions
from nrccr.models.levels import MultiLevelVideo
from nrccr.processes import gather

TEXTS = ("source", "target", "masked_source", "masked_target")  # in the order in which the mapping sees them


@dataclass(frozen=True)
class ViewOutput(TensorRecord):
    """What the objective sees of a batch; vectors (N, J) of unit length.

    Attributes:
        source, target, visual: captions in one and in the other language, and videos; no target where the languages
            are not parallel.
        masked_source, masked_target, masked_visual: their masked views.
        items: (N,) which item each pair belongs to.
    """

    source: Tensor
    target: Tensor | None
    visual: Tensor
    masked_source: Tensor
    masked_target: Tensor | None
    masked_visual: Tensor
    items: Tensor


class MeanText(nn.Module):
    """Captions -> the mean of the backbone's states, shared by both languages.

    Args:
        backbone: see nrccr.models.backbone.build_backbone.
        pooling: over all positions of the batch's width ("padded", released) or over real tokens ("masked").
    """

    def __init__(self, backbone: PreTrainedModel, pooling: Pooling) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling

    def forward(self, texts: Sequence[TextBatch]) -> list[Tensor]:
        """Several batches of captions -> (N, H) each."""
        states = backbone_states(self.backbone, texts, real_only=self.pooling == "masked")  # each (N, L, H)
        return [mean_over_positions(part, text.mask, self.pooling) for part, text in zip(states, texts, strict=True)]


class MLCMR(nn.Module):
    """Text and visual branch and their mappings into one space; both languages share the text branch and its mapping.

    Args:
        backbone: the text backbone, see nrccr.models.backbone.build_backbone.
        features: width D of the frame features.
        joint: width J of the joint space.
        gru, maps: widths of the visual branch, see MultiLevelVideo.
        dropout: in the visual branch and in both mappings.
        pooling: "padded" (released) or "masked", where an embedding depends on its own caption or item alone.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        features: int,
        *,
        joint: int = 1536,
        gru: int = 512,
        maps: int = 512,
        dropout: float = 0.2,
        pooling: Pooling = "padded",
    ) -> None:
        super().__init__()
        self.text = MeanText(backbone, pooling)
        self.visual = MultiLevelVideo(features, gru, maps, dropout, pooling)
        self.map_text = JointMapping(int(backbone.config.hidden_size), joint, dropout)
        self.map_visual = JointMapping(self.visual.width, joint, dropout)
        self.independent = pooling == "masked"

    @property
    def feature_width(self) -> int:
        """Width D of the frame features it takes."""
        return self.visual.feature_width

    def forward(self, *parts: ViewBatch) -> ViewOutput:
        """One training batch, whole or in parts of like length, each padded for itself.

        Parts, and those of all processes, come together before the mappings, whose batch statistics see all N pairs of
        one kind at a time, in the order source, target, masked source, masked target; visual, masked visual.
        """
        languages = ("source", "masked_source") if parts[0].target is None else TEXTS
        pooled = iter(self.text([getattr(part, name) for part in parts for name in languages]))  # each (N, H)
        of_parts = [{name: next(pooled) for name in languages} for _ in parts]
        items, *captions = gather(
            torch.cat([part.items for part in parts]),
            *(torch.cat([part[name] for part in of_parts]) for name in languages),
        )
        texts = dict(zip(languages, map(self.map_text, captions), strict=True))  # each (N, J)
        visual, masked_visual = (  # each (N, J)
            self.map_visual(*gather(torch.cat([self.visual(getattr(part, name)) for part in parts])))
            for name in ("visual", "masked_visual")
        )
        return ViewOutput(
            source=texts["source"],
            target=texts.get("target"),
            visual=visual,
            masked_source=texts["masked_source"],
            masked_target=texts.get("masked_target"),
            masked_visual=masked_visual,
            items=items,
        )

    def embed_text(self, text: TextBatch) -> Tensor:
        """Captions of either language -> (N, J), unit length; evaluation mode, no gradients."""
        with evaluating(self):
            (pooled,) = self.text([text])  # (N, H)
            embedded: Tensor = self.map_text(pooled)
            return embedded

    def embed_visual(self, visual: VisualBatch) -> Tensor:
        """Videos -> (N, J), unit length; evaluation mode, no gradients.

        Raises:
            TypeError: images.
        """
        if not isinstance(visual, VideoBatch):
            raise TypeError("MLCMR embeds videos: give a VideoBatch")
        with evaluating(self):
            embedded: Tensor = self.map_visual(self.visual(visual))
            return embedded


def build_mlcmr(config: Config, backbone: PreTrainedModel, feature_width: int) -> MLCMR:
    """The network a configuration describes, from fresh weights but for the backbone's.

    Args:
        config: the run's configuration.
        backbone: the text backbone, see nrccr.models.backbone.build_backbone.
        feature_width: width of the features, from the files.

    Raises:
        UserError: a trainable layer that the backbone does not have.
    """
    freeze_backbone(backbone, config.text.freeze, config.text.trainable_layers)
    network = MLCMR(
        backbone,
        feature_width,
        joint=config.joint.width,
        gru=config.visual.gru,
        maps=config.visual.maps,
        dropout=config.joint.dropout,
        pooling=config.switch("pooling"),
    )
    return use_fast_layers(network)
