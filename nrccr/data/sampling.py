"""Which items come together in a batch, and when."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

Indices = npt.NDArray[np.int64]


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int) -> list[Indices]:
    """A shuffled epoch cut into batches; the last short batch is kept.

    The order depends on (seed, epoch) alone, so that a resumed run and any number of workers see the same batches. A
    last batch of one pair joins the one before: batch normalisation cannot use it.

    Args:
        count: number of training pairs, two or more.
        batch_size: pairs in a batch, two or more.
        seed: the run's seed.
        epoch: from 0.

    Returns:
        Index arrays that together hold every pair once.
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    order = torch.randperm(count, generator=generator).numpy()
    batches = [order[start : start + batch_size] for start in range(0, count, batch_size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        last = batches.pop()
        batches[-1] = np.concatenate([batches[-1], last])
    return batches


def ordered_batches(lengths: Indices, batch_size: int, *, by_length: bool) -> Iterator[Indices]:
    """Batches for encoding: in file order, or sequences of like length together, which saves padding.

    File order is for the released reading, where padding counts and the batch changes its embeddings.
    """
    order = np.argsort(lengths, kind="stable") if by_length else np.arange(len(lengths))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
