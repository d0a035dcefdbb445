"""Languages confused: in which language the caption is that lies nearest, to a caption or to an item.

Where languages share one space, the nearest caption is in any of them as often as that language has captions. Where
each has a region of its own, it is in the language of the query, whatever it says.

C captions of a language, N items, L languages, S captions or items that search, D joint-space width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nrccr.data.sampling import Indices
from nrccr.evaluation.blocks import Cosines, highest_columns


@dataclass(frozen=True)
class Tongue:
    """The captions of one language.

    Attributes:
        vectors: (C, D), unit length.
        item_of: (C,) each caption's item.
    """

    vectors: Tensor
    item_of: Indices


@dataclass(frozen=True)
class Nearest:
    """In which languages the nearest captions of one kind of query are.

    Attributes:
        queries: S, how many searched.
        shares: by language, of the queries whose nearest caption is in it, 0..1; they add up to 1.
        expected: by language, its share of all captions, without the query itself.
        right: by language, share of those nearest captions that belong to the query's item; none without any.
    """

    queries: int
    shares: dict[str, float]
    expected: dict[str, float]
    right: dict[str, float | None]


def nearest_languages(
    tongues: Mapping[str, Tongue], items: Tensor, most: int, seed: int, memory_mb: float | None = None
) -> tuple[dict[str, Nearest], Nearest]:
    """For captions of each language, and for items, the language of the nearest caption of all.

    A caption does not find itself; its translations and the other captions of its item it may. Of equal scores the
    first counts, languages in the order given.

    Args:
        tongues: captions by language, two or more.
        items: (N, D) the items.
        most: how many captions of a language, and items, search; more are sampled. All are found.
        seed: of the samples.
        memory_mb: what a block of scores may take.

    Returns:
        by language of the query, and of the items.
    """
    pool = torch.cat([tongue.vectors for tongue in tongues.values()])  # (all, D)
    item_of = np.concatenate([tongue.item_of for tongue in tongues.values()])
    sizes = [len(tongue.vectors) for tongue in tongues.values()]
    language_of = np.repeat(np.arange(len(sizes)), sizes)  # (all,)
    generator = np.random.default_rng(seed)

    def sample(count: int) -> Indices:
        return np.sort(generator.permutation(count)[:most])

    by_language = {}
    for at, language in enumerate(tongues):
        rows = sample(sizes[at]) + sum(sizes[:at])  # (S,)
        both = _highest(pool[torch.from_numpy(rows)], pool, 2, memory_mb)  # (S, 2)
        found = np.where(both[:, 0] == rows, both[:, 1], both[:, 0])  # a twin before it may have its place
        others = np.array(sizes) - (np.arange(len(sizes)) == at)
        by_language[language] = _summary(list(tongues), language_of[found], item_of[found] == item_of[rows], others)
    rows = sample(len(items))
    found = _highest(items[torch.from_numpy(rows)], pool, 1, memory_mb)[:, 0]
    return by_language, _summary(list(tongues), language_of[found], item_of[found] == rows, np.array(sizes))


def _highest(queries: Tensor, pool: Tensor, k: int, memory_mb: float | None) -> Indices:
    found: Indices = highest_columns(Cosines(queries, pool), k, memory_mb).cpu().numpy()
    return found


def _summary(
    names: Sequence[str], languages: Indices, right: npt.NDArray[np.bool_], sizes: npt.NDArray[np.int64]
) -> Nearest:
    """Of the languages (S,) of nearest captions, and whether each belongs to the query's item."""
    own = [languages == at for at in range(len(names))]
    return Nearest(
        queries=len(languages),
        shares={name: float(there.mean()) for name, there in zip(names, own, strict=True)},
        expected={name: float(size / sizes.sum()) for name, size in zip(names, sizes, strict=True)},
        right={
            name: float(right[there].mean()) if there.any() else None for name, there in zip(names, own, strict=True)
        },
    )
