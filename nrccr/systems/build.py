"""The network of any system, by a configuration."""

from __future__ import annotations

from transformers import PreTrainedModel

from nrccr.config.schema import Config
from nrccr.systems.c2kd.network import C2KD, build_c2kd
from nrccr.systems.mlcmr.network import MLCMR, build_mlcmr
from nrccr.systems.nrccr.network import NRCCR, build_nrccr

Network = NRCCR | MLCMR | C2KD


def build_network(
    config: Config, backbone: PreTrainedModel, feature_width: int | None, image_encoder: PreTrainedModel | None = None
) -> Network:
    """The network a configuration describes, from fresh weights but for the backbone's.

    Args:
        config: the run's configuration.
        backbone: the text backbone, see nrccr.models.backbone.build_backbone.
        feature_width: width of the features, from the files; none for raw images.
        image_encoder: for `visual.kind: clip`, see nrccr.models.image.build_image_encoder.

    Raises:
        UserError: a trainable layer that the backbone does not have, or features that the image encoder does not give.
    """
    if config.model != "nrccr":
        assert feature_width is not None
        return (build_mlcmr if config.model == "mlcmr" else build_c2kd)(config, backbone, feature_width)
    return build_nrccr(config, backbone, feature_width, image_encoder)
