"""Captions and items -> embeddings, each once.

N captions or items, D joint-space width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from nrccr.data.batch import TextBatch, VisualBatch
from nrccr.data.items import Visuals
from nrccr.data.sampling import Indices, ordered_batches
from nrccr.data.tokens import TokenTable


class Network(Protocol):
    """What encoding needs of a network."""

    independent: bool
    """Whether an embedding is the same in every batch."""

    def embed_text(self, text: TextBatch) -> Tensor:
        """Captions -> (N, D)."""

    def embed_visual(self, visual: VisualBatch) -> Tensor:
        """Items -> (N, D)."""


@torch.inference_mode()
def encode_texts(network: Network, texts: TokenTable, batch_size: int, device: torch.device) -> Tensor:
    """Embeddings (N, D) of captions in their order, on `device`.

    Where padding counts (released reading) batches are cut in file order, as the published tester does; where it does
    not, captions of like length share a batch.
    """
    batches = ordered_batches(texts.lengths, batch_size, by_length=network.independent)

    def embed(chosen: Indices) -> Tensor:
        return network.embed_text(texts.batch(chosen).to(device))

    return encode_batches(batches, len(texts), embed, "captions")


@torch.inference_mode()
def encode_videos(network: Network, videos: Visuals, batch_size: int, device: torch.device) -> Tensor:
    """Embeddings (N, D) of items in their order, on `device`; batches as in encode_texts.

    Raw images are decoded by the items' `workers`.
    """
    batches = [*ordered_batches(videos.lengths, batch_size, by_length=network.independent)]
    loaded = load_batches(videos, batches)

    def embed(chosen: Indices) -> Tensor:
        return network.embed_visual(next(loaded).to(device))

    return encode_batches(iter(batches), len(videos), embed, "items")


def load_batches(videos: Visuals, batches: list[Indices]) -> Iterator[VisualBatch]:
    """The batches of items, one after the other, prepared by processes where the items ask for some."""
    if not videos.workers:
        return map(videos.batch, batches)
    # Its own generator: the loader would otherwise draw from the global one.
    loader: DataLoader[VisualBatch] = DataLoader(
        videos,  # type: ignore[arg-type]
        batch_size=None,
        sampler=batches,
        num_workers=videos.workers,
        generator=torch.Generator(),
    )
    return iter(loader)


def encode_batches(batches: Iterator[Indices], count: int, embed: Callable[[Indices], Tensor], what: str) -> Tensor:
    """Embeddings (count, D) put together from `embed` of each batch of positions; `what` labels the progress bar."""
    embeddings: Tensor | None = None
    with tqdm(total=count, desc=what, unit="", disable=None, leave=False) as progress:
        for chosen in batches:
            part = embed(chosen)  # (batch, D)
            if embeddings is None:
                embeddings = part.new_empty(count, part.shape[1])
            embeddings[torch.from_numpy(chosen).to(part.device)] = part
            progress.update(len(chosen))
    assert embeddings is not None
    return embeddings
