"""Where padding never counts it is not computed: what passes each system's backbone in a training batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nrccr.data.batch import TensorRecord, TextBatch
from nrccr.systems.settings import load_config
from nrccr.systems.table import part_of

SYSTEMS = {  # system, fixtures of configuration and collection, overrides, whether padding passes
    "nrccr-released": ("nrccr", "tiny_config", "tiny_collection", ["reading=released"], True),
    "nrccr-masked": ("nrccr", "tiny_config", "tiny_collection", ["switches.pooling=masked"], True),
    "nrccr-corrected": ("nrccr", "tiny_config", "tiny_collection", ["reading=corrected"], False),
    "mlcmr-released": ("mlcmr", "mlcmr_config", "both_languages", ["reading=released"], True),
    "mlcmr-corrected": ("mlcmr", "mlcmr_config", "both_languages", ["reading=corrected"], False),
    "c2kd-own": ("c2kd", "c2kd_config", "tiny_languages", ["switches.pool_mask=own"], False),
    "quartet": ("quartet", "quartet_config", "tiny_collection", [], False),
}


def captions(value: Any) -> Iterator[TextBatch]:
    """All captions of a batch."""
    if isinstance(value, TextBatch):
        yield value
    elif isinstance(value, TensorRecord):
        for own in fields(value):  # type: ignore[arg-type]
            yield from captions(getattr(value, own.name))
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from captions(part)


@pytest.mark.parametrize("case", SYSTEMS)
def test_what_passes_the_backbone(case: str, request: pytest.FixtureRequest) -> None:
    system, config, root, overrides, padded = SYSTEMS[case]
    found = load_config(request.getfixturevalue(config), [*overrides, "text.pretrained=false"])
    task = part_of(system, "system").task(found, request.getfixturevalue(root), torch.device("cpu"), test=False)
    network: Any = task.network.train()
    seen: list[int] = []
    for module in network.text.backbone.modules():
        if isinstance(module, nn.Linear | nn.LayerNorm):
            module.register_forward_hook(lambda _, inputs, out: seen.append(inputs[0].shape[:-1].numel()))
    batch = task.pairs.at_epoch(0)[np.arange(min(8, len(task.pairs)))]
    network(*batch.parts)
    texts = [*captions(batch)]
    real, positions = sum(int(text.mask.sum()) for text in texts), sum(text.tokens.numel() for text in texts)
    assert 0 < real < positions and set(seen) == {positions if padded else real}
