"""Epochs cut into batches, batches for encoding, masked views."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from nrccr.data.batch import TextBatch
from nrccr.data.sampling import (
    FRAMES_REMOVED,
    epoch_batches,
    kept_frames,
    mask_tokens,
    masked_view,
    ordered_batches,
    parts_of_like_length,
    parts_of_share,
    shares,
)


@pytest.mark.parametrize(("count", "sizes"), [(10, [4, 4, 2]), (8, [4, 4]), (9, [4, 5]), (3, [3])])
def test_every_pair_once_and_no_batch_of_one(count: int, sizes: list[int]) -> None:
    batches = epoch_batches(count, 4, seed=3, epoch=5)
    assert [len(batch) for batch in batches] == sizes
    assert sorted(np.concatenate(batches).tolist()) == list(range(count))


@pytest.mark.parametrize(
    ("count", "least", "drop_last", "sizes"),
    [
        (11, 4, False, [4, 7]),
        (12, 4, False, [4, 4, 4]),
        (3, 4, False, [3]),
        (11, 4, True, [4, 4]),
        (9, 1, True, [4, 4]),
        (9, 1, False, [4, 5]),  # one pair has no batch statistics
    ],
)
def test_a_last_batch_with_fewer_pairs_than_processes_joins_the_one_before(
    count: int, least: int, drop_last: bool, sizes: list[int]
) -> None:
    batches = epoch_batches(count, 4, seed=0, epoch=0, least=least, drop_last=drop_last)
    assert [len(batch) for batch in batches] == sizes


def test_batches_are_slices_of_one_permutation() -> None:
    batches = epoch_batches(50, 8, seed=1, epoch=2)
    whole = torch.randperm(50, generator=torch.Generator().manual_seed(1_000_003 + 2)).numpy()
    assert np.array_equal(np.concatenate(list(batches)), whole) and batches[-1].dtype == np.int64
    assert [batch.tolist() for batch in batches[5:]] == [whole[40:48].tolist(), whole[48:].tolist()]
    assert len(batches[7:]) == 0 and np.array_equal(batches[2:][1], batches[3])
    for place in (7, -8):
        with pytest.raises(IndexError):
            batches[place]
    with pytest.raises(ValueError, match="no step"):
        batches[::2]


def test_shares_are_a_batch() -> None:
    batch = np.arange(11)
    assert [part.tolist() for part in shares(batch, 3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert shares(batch, 1)[0].tolist() == batch.tolist()


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(epoch_batches(50, 8, seed, epoch)).tolist()

    assert order(1, 2) == order(1, 2)
    assert len({tuple(order(seed, epoch)) for seed in range(4) for epoch in range(4)}) == 16


def test_encoding_order() -> None:
    lengths = np.array([5, 1, 3, 1, 9])
    assert [b.tolist() for b in ordered_batches(lengths, 2, by_length=False)] == [[0, 1], [2, 3], [4]]
    assert [b.tolist() for b in ordered_batches(lengths, 2, by_length=True)] == [[1, 3], [2, 0], [4]]


@pytest.mark.parametrize(
    ("lengths", "parts", "expected"),
    [
        ([5, 1, 3, 1, 9], 2, [[1, 3, 2], [0, 4]]),
        ([5, 1, 3, 1, 9], 4, [[1, 3], [2], [0], [4]]),
        ([5, 1, 3, 1, 9], 1, [[0, 1, 2, 3, 4]]),  # as it is
        ([7, 7, 7], 2, [[0, 1], [2]]),
        ([4, 2], 4, [[1], [0]]),  # never an empty part
        ([3], 4, [[0]]),
    ],
)
def test_parts_of_like_length(lengths: list[int], parts: int, expected: list[list[int]]) -> None:
    assert [part.tolist() for part in parts_of_like_length(np.array(lengths), parts)] == expected


def test_a_share_is_padded_as_the_whole_batch_only_in_one_part() -> None:
    own, whole, lengths = np.array([8, 2, 5]), np.arange(9), np.array([4, 1, 3])
    ((part, among),) = parts_of_share(own, whole, lengths, 1)
    assert part.tolist() == own.tolist() and among.tolist() == whole.tolist()
    found = [(part.tolist(), among.tolist()) for part, among in parts_of_share(own, whole, lengths, 2)]
    assert found == [([2, 5], [2, 5]), ([8], [8])]


View = tuple[list[int], list[list[int]]]


def view(seed: int, epoch: int, item: int, frames: int = 30, tokens: Sequence[int] = (20, 14)) -> View:
    drawn = masked_view(seed, epoch, item, frames, tokens)
    return drawn.frames.tolist(), [positions.tolist() for positions in drawn.tokens]


@pytest.mark.parametrize("length", range(1, 71))
def test_a_view_has_the_published_counts_in_order(length: int) -> None:
    for item in range(20):
        kept, (masked, other) = view(3, 1, item, frames=length, tokens=(length, 9))
        assert len(kept) == length - length * 4 // 5 >= 1
        assert kept == sorted(set(kept)) and set(kept) <= set(range(length))
        assert len(masked) == length * 3 // 20 and len(other) == 1
        assert masked == sorted(set(masked)) and set(masked) <= set(range(1, length - 1))  # never [CLS] or [SEP]


@pytest.mark.parametrize(("frames", "kept"), [(1, 1), (2, 1), (4, 1), (5, 1), (9, 2), (10, 2), (64, 13)])
def test_frames_by_hand(frames: int, kept: int) -> None:
    assert len(view(0, 0, 0, frames=frames)[0]) == kept


def test_every_choice_is_as_likely_as_any_other() -> None:
    """Two of six frames: 15 choices, 200 of each to be expected; chi-square at 14 degrees stays under 36 (p 0.001)."""
    drawn = Counter(tuple(view(0, 0, item, frames=6, tokens=[])[0]) for item in range(3000))
    assert set(drawn) == set(itertools.combinations(range(6), 2))
    assert sum((count - 200) ** 2 / 200 for count in drawn.values()) < 36
    positions = Counter(place for item in range(3000) for place in view(0, 0, item, tokens=[14])[1][0])
    assert set(positions) == set(range(1, 13))
    assert sum((count - 500) ** 2 / 500 for count in positions.values()) < 36


def test_a_view_depends_on_seed_epoch_and_item_alone() -> None:
    triples = [*itertools.product((0, 1, 2**32, 2**63 - 1), (0, 1, 2), (0, 1, 2))]
    views = [view(*triple, frames=70) for triple in triples]
    assert len({str(drawn) for drawn in views}) == len(triples)
    np.random.seed(1), torch.manual_seed(1)
    assert [view(*triple, frames=70) for triple in reversed(triples)] == views[::-1]


def test_kept_frames_are_of_seed_epoch_and_item_alone_and_apart_from_the_view() -> None:
    kept = kept_frames(0, 1, 7, 10, 0.35)
    assert len(kept) == 7 and list(kept) == sorted(set(kept.tolist())) and kept.max() < 10
    triples = [*itertools.product((0, 1, 2**32, 2**63 - 1), (0, 1, 2), (0, 1, 2))]
    drawn = [kept_frames(*triple, 70, FRAMES_REMOVED).tolist() for triple in triples]
    assert len({str(frames) for frames in drawn}) == len(triples)
    assert [kept_frames(*triple, 70, FRAMES_REMOVED).tolist() for triple in reversed(triples)] == drawn[::-1]
    assert all(frames != view(*triple, frames=70)[0] for frames, triple in zip(drawn, triples, strict=True))
    assert kept_frames(0, 0, 0, 1, 0.99).tolist() == [0] and len(kept_frames(0, 0, 0, 10, 0.0)) == 10
    assert len(kept_frames(0, 0, 0, 10, 0.39)) == 7  # part of a frame does not go


class Views:
    """A dataset of views as text, each batch with its items."""

    def __getitem__(self, indices: Sequence[int]) -> dict[int, str]:
        return {item: str(view(7, 2, item)) for item in indices}


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_views_are_the_same_with_any_workers_and_batches(workers: int) -> None:
    found: dict[int, str] = {}
    loader: DataLoader[dict[int, str]] = DataLoader(
        Views(),  # type: ignore[arg-type]
        batch_size=None,
        sampler=[batch.tolist() for batch in epoch_batches(40, 5 + workers, seed=workers, epoch=0)],
        num_workers=workers,
    )
    for part in loader:
        found |= part
    assert found == {item: str(view(7, 2, item)) for item in range(40)}


@pytest.fixture
def captions() -> Callable[..., TextBatch]:
    def make(*lengths: int) -> TextBatch:
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        return TextBatch(torch.arange(200, 200 + mask.numel()).reshape(mask.shape) * mask, mask)

    return make


def test_masking_replaces_exactly_the_drawn_tokens(captions: Callable[..., TextBatch]) -> None:
    text = captions(20, 2, 13)
    positions = [masked_view(0, 0, item, 1, [length]).tokens[0] for item, length in enumerate((20, 2, 13))]
    assert [len(row) for row in positions] == [3, 0, 1]
    before = text.tokens.clone()
    masked = mask_tokens(text, positions, mask_id=103)
    for row, chosen in enumerate(positions):
        expected = [103 if place in chosen else token for place, token in enumerate(before[row].tolist())]
        assert masked.tokens[row].tolist() == expected
    assert torch.equal(masked.mask, text.mask) and torch.equal(text.tokens, before) and masked.lengths is None
    counted = TextBatch(text.tokens, text.mask, lengths=text.counted())
    assert mask_tokens(counted, positions, mask_id=103).lengths is counted.lengths


def test_captions_too_short_to_mask_stay(captions: Callable[..., TextBatch]) -> None:
    text = captions(2, 6)
    positions = [masked_view(0, 0, item, 1, [length]).tokens[0] for item, length in enumerate((2, 6))]
    assert torch.equal(mask_tokens(text, positions, 103).tokens, text.tokens)
