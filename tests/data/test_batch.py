"""Batches move as a whole, with what is in them and without what is not."""

from __future__ import annotations

import pytest
import torch

from nrccr.data.batch import TextBatch, VideoBatch, ViewBatch


@pytest.mark.parametrize("mean", [None, torch.ones(2, 4)])
def test_a_view_batch_moves_with_its_parts(mean: torch.Tensor | None) -> None:
    text = TextBatch(torch.ones(2, 3, dtype=torch.long), torch.ones(2, 3))
    video = VideoBatch(torch.ones(2, 5, 4), torch.ones(2, 5), mean)
    batch = ViewBatch(text, None, video, text, None, video, torch.arange(2)).to("meta")
    assert batch.target is None and batch.masked_target is None
    moved = [batch.source.tokens, batch.masked_source.mask, batch.visual.frames, batch.masked_visual.mask, batch.items]
    assert all(part.is_meta for part in moved)
    assert batch.visual.mean is None if mean is None else batch.visual.mean is not None and batch.visual.mean.is_meta
