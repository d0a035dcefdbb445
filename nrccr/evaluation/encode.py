"""Captions and items -> embeddings, each once.

N captions or items, Q queries, D joint-space width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from nrccr.data.batch import TextBatch, VisualBatch
from nrccr.data.items import Visuals, load_batches
from nrccr.data.queries import Queries, Split, TextGallery
from nrccr.data.sampling import Indices, ordered_batches
from nrccr.data.tokens import TokenTable
from nrccr.distributed import moved
from nrccr.errors import UserError
from nrccr.models.layers import unit
from nrccr.processes import largest, own_part, sum_of_all


class Encoder(Protocol):
    """What encoding needs of a network.

    Where captions of an item are averaged, also `project_text(TextBatch)` -> (N, D), not of unit length.
    """

    independent: bool
    """Whether an embedding depends on its own caption or item alone, whatever else is in its batch."""

    def embed_text(self, text: TextBatch) -> Tensor:
        """Captions -> (N, D), unit length."""

    def embed_visual(self, visual: VisualBatch) -> Tensor:
        """Items -> (N, D), unit length."""


@dataclass(frozen=True)
class Embeddings:
    """A split in the joint space, all of unit length.

    Attributes:
        source: the queries' translations (Q, D); none where they have none.
        target: the queries themselves (Q, D).
        visual: the gallery's items (N, D).
    """

    source: Tensor | None
    target: Tensor
    visual: Tensor


@dataclass(frozen=True)
class EncodedQueries:
    """One language's queries with the gallery that they search.

    Attributes:
        embeddings: of queries and gallery.
        ids: Q ids; of captions that were averaged the first one's.
        item_of: (Q,) each query's item.
    """

    embeddings: Embeddings
    ids: list[str]
    item_of: Indices


@torch.inference_mode()
def encode_split(
    network: Encoder, split: Split, batch_size: int, device: torch.device
) -> Iterator[tuple[str, EncodedQueries]]:
    """Encode the gallery and then, language by language, the queries, each caption once.

    Where `split.averaged` the captions of an item become one query: the mean of their vectors before these have
    unit length, as in C2KD's published evaluation.

    Raises:
        UserError: an embedding is not finite.
    """
    visual = encode_gallery(network, split, batch_size, device)
    for language, queries in split.queries.items():
        yield language, encode_queries(network, split, queries, visual, batch_size)


def encode_queries(network: Encoder, split: Split, queries: Queries, visual: Tensor, batch_size: int) -> EncodedQueries:
    """Encode one language's queries; `visual` (N, D) is the encoded gallery.

    Raises:
        UserError: an embedding is not finite.
    """
    if split.averaged:
        return averaged(queries, encode_texts(network, queries.tokens, batch_size, visual.device, whole=True), visual)
    source = None
    if queries.translations is not None:
        source = encode_texts(network, queries.translations, batch_size, visual.device)
        require_finite(source, queries.ids)
    target = encode_texts(network, queries.tokens, batch_size, visual.device)
    require_finite(target, queries.ids)
    return EncodedQueries(Embeddings(source, target, visual), queries.ids, queries.item_of)


def averaged(queries: Queries, vectors: Tensor, visual: Tensor) -> EncodedQueries:
    """One query for every item: the mean of its captions' vectors (captions, D), then of unit length."""
    require_finite(vectors, queries.ids)
    items, first, place = np.unique(queries.item_of, return_index=True, return_inverse=True)
    places = torch.from_numpy(place).to(vectors.device)
    sums = vectors.new_zeros(len(items), vectors.shape[1]).index_add_(0, places, vectors)
    counts = torch.bincount(places, minlength=len(items)).unsqueeze(1)  # (items, 1)
    embeddings = Embeddings(None, unit(sums / counts), visual)
    return EncodedQueries(embeddings, [queries.ids[row] for row in first.tolist()], items.astype(np.int64))


def encode_gallery(network: Encoder, split: Split, batch_size: int, device: torch.device) -> Tensor:
    """Embeddings (N, D) of a gallery, items or captions.

    Raises:
        UserError: an embedding is not finite.
    """
    gallery = split.gallery
    if isinstance(gallery, TextGallery):
        found = encode_texts(network, gallery.tokens, batch_size, device)
    else:
        visuals = gallery if split.as_vectors is None else split.as_vectors(gallery)
        found = encode_visuals(network, visuals, batch_size, device)
    require_finite(found, gallery.ids)
    return found


@torch.inference_mode()
def encode_texts(
    network: Encoder, texts: TokenTable, batch_size: int, device: torch.device, *, whole: bool = False
) -> Tensor:
    """Embeddings (N, D) of captions in their order, on `device`.

    Where padding counts (released reading) batches are cut in file order, as the published tester does; where it does
    not, captions of like length share a batch. Of several processes each encodes some of these batches.

    Args:
        network: the model.
        texts: captions.
        batch_size: captions encoded together.
        device: where the network is.
        whole: take `project_text`, not of unit length.
    """
    batches = own_part([*ordered_batches(texts.lengths, batch_size, by_length=network.independent)])
    encode: Callable[[TextBatch], Tensor] = getattr(network, "project_text" if whole else "embed_text")
    loaded = moved(map(texts.batch, batches), device)

    def embed(chosen: Indices) -> Tensor:
        vectors = encode(next(loaded))
        return vectors.float() if whole else vectors

    return _together(batches, len(texts), embed, "captions", device)


@torch.inference_mode()
def encode_visuals(network: Encoder, visuals: Visuals, batch_size: int, device: torch.device) -> Tensor:
    """Embeddings (N, D) of items in their order, on `device`; batches as in encode_texts.

    Raw images are decoded by the items' `workers`.
    """
    batches = own_part([*ordered_batches(visuals.lengths, batch_size, by_length=network.independent)])
    loaded = moved(load_batches(visuals, batches), device)

    def embed(chosen: Indices) -> Tensor:
        return network.embed_visual(next(loaded))

    return _together(batches, len(visuals), embed, "items", device)


def encode_batches(batches: Iterable[Indices], count: int, embed: Callable[[Indices], Tensor], what: str) -> Tensor:
    """Embeddings (count, D) put together from `embed` of each batch of positions; `what` labels the progress bar.

    Zeros at positions of no batch.
    """
    listed = [*batches]
    embeddings, places, done = torch.empty(0), torch.from_numpy(np.concatenate(listed)), 0
    with tqdm(total=len(places), desc=what, unit="", disable=None, leave=False) as progress:
        for chosen in listed:
            part = embed(chosen)  # (batch, D)
            if not done:  # all places at once: for those of each batch a device would be waited for
                embeddings, places = part.new_zeros(count, part.shape[1]), places.to(part.device)
            embeddings.index_copy_(0, places[done : done + len(chosen)], part)
            done += len(chosen)
            progress.update(len(chosen))
    return embeddings


def _together(
    batches: list[Indices], count: int, embed: Callable[[Indices], Tensor], what: str, device: torch.device
) -> Tensor:
    """As `encode_batches`, where each process has its own batches: all embeddings, in every process."""
    own = encode_batches(batches, count, embed, what) if batches else None
    width = largest(0 if own is None else own.shape[1])
    return sum_of_all(torch.zeros(count, width, device=device) if own is None else own)


def require_finite(embedded: Tensor, ids: Sequence[str]) -> None:
    """Make sure that embeddings (N, D) hold no NaN or infinity.

    Raises:
        UserError: some do; the message names the first of `ids` (N).
    """
    bad = (~embedded.isfinite().all(dim=1)).nonzero().flatten().tolist()
    if bad:
        raise UserError(
            f"the embedding of {ids[bad[0]]} and {len(bad) - 1} others is not finite; "
            "look for NaN in the features with `nrccr check`, or in the checkpoint"
        )
