"""Batches move as a whole, with what is in them and without what is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from nrccr.data.batch import Parts, TensorRecord, TextBatch, VideoBatch, ViewBatch


@pytest.mark.parametrize("mean", [None, torch.ones(2, 4)])
def test_a_view_batch_moves_with_its_parts(mean: torch.Tensor | None) -> None:
    text = TextBatch(torch.ones(2, 3, dtype=torch.long), torch.ones(2, 3))
    video = VideoBatch(torch.ones(2, 5, 4), torch.ones(2, 5), mean)
    batch = ViewBatch(text, None, video, text, None, video, torch.arange(2)).to("meta")
    assert batch.target is None and batch.masked_target is None
    moved = [batch.source.tokens, batch.masked_source.mask, batch.visual.frames, batch.masked_visual.mask, batch.items]
    assert all(part.is_meta for part in moved)
    assert batch.visual.mean is None if mean is None else batch.visual.mean is not None and batch.visual.mean.is_meta


def test_the_lengths_of_captions_are_counted_or_stay_on_the_host() -> None:
    text = TextBatch(torch.ones(2, 3, dtype=torch.long), torch.tensor([[1, 1, 0], [1, 1, 1]]))
    assert text.lengths is None and text.counted().tolist() == [2, 3]
    lengths = text.counted()
    moved = TextBatch(text.tokens, text.mask, lengths=lengths).to("meta")
    assert moved.tokens.is_meta and moved.counted() is lengths


@dataclass(frozen=True)
class Nested(TensorRecord):
    """One of everything that a field may hold."""

    tensor: Tensor
    record: TextBatch
    listed: list[TextBatch]
    pair: tuple[Tensor, Tensor | None]
    named: Mapping[str, list[Tensor]]
    nothing: TextBatch | None = None


def test_map_reaches_every_tensor_and_keeps_the_rest() -> None:
    numbers = iter(range(1, 100))
    text = TextBatch(torch.tensor(next(numbers)), torch.tensor(next(numbers)))
    nested = Nested(
        torch.tensor(next(numbers)), text, [text, text], (torch.tensor(4), None), {"a": [torch.tensor(5)], "b": []}
    )
    seen: list[int] = []
    mapped = nested.map(lambda tensor: seen.append(int(tensor)) or 10 * tensor)
    assert seen == [3, 1, 2, 1, 2, 1, 2, 4, 5]
    assert int(mapped.tensor) == 30 and int(mapped.record.mask) == 20 and type(mapped.listed[1]) is TextBatch
    assert mapped.pair[1] is None and isinstance(mapped.pair, tuple) and int(mapped.pair[0]) == 40
    assert list(mapped.named) == ["a", "b"] and int(mapped.named["a"][0]) == 50 and mapped.nothing is None
    assert int(nested.tensor) == 3, "the record itself stays"


def test_what_cannot_be_mapped_is_named() -> None:
    text = TextBatch(torch.ones(1), torch.ones(1))
    with pytest.raises(TypeError, match="a set cannot be mapped"):
        replace(text, mask={1}).map(lambda tensor: tensor)  # type: ignore[arg-type]


def test_parts_move_together() -> None:
    text = TextBatch(torch.ones(2, 3), torch.ones(2, 3))
    moved = Parts([text, text]).to("meta")
    assert isinstance(moved, Parts) and [part.mask.is_meta for part in moved.parts] == [True, True]
