"""A brute-force twin of the metrics, and an encoder made by hand with a split to search."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from nrccr.data.batch import ImageBatch, TextBatch
from nrccr.data.images import Vectors
from nrccr.data.items import Images
from nrccr.data.queries import Queries, Split
from nrccr.data.tokens import TokenTable
from nrccr.evaluation.metrics import Ties

Array = npt.NDArray[np.float64]
Brute = Callable[..., dict[str, dict[str, float]]]
VOCABULARY, WIDTH = 50, 6


def discounted(places: Iterable[int]) -> float:
    """DCG of the first ten places."""
    return sum(1 / float(np.log2(1 + place)) for place in places if place <= 10)


def direction(matrix: Array, relevant: Sequence[Sequence[int]], ties: Ties) -> dict[str, float]:
    """Metrics of rows by sorting each in Python."""
    best, precisions, gains = [], [], []
    for row, wanted in zip(matrix, relevant, strict=True):
        if ties == "index":
            order = sorted(range(len(row)), key=lambda column: (-row[column], column))
            places = sorted(order.index(column) + 1 for column in wanted)
            precisions.append(np.mean([(n + 1) / place for n, place in enumerate(places)]))
            gains.append(discounted(places) / discounted(range(1, len(places) + 1)))
        else:
            ahead = {column: 1 + sum(other > row[column] for other in row) for column in wanted}
            among = {column: 1 + sum(row[other] > row[column] for other in wanted) for column in wanted}
            places = list(ahead.values())
            precisions.append(np.mean([among[column] / ahead[column] for column in wanted]))
            gains.append(discounted(places) / discounted(among.values()))
        best.append(min(places))
    recalls = {f"R@{k}": 100 * float(np.mean([place <= k for place in best])) for k in (1, 5, 10)}
    mean = float(np.prod(list(recalls.values())) ** (1 / 3))
    return recalls | {
        "MedR": float(np.median(best)), "MeanR": float(np.mean(best)), "mAP": 100 * float(np.mean(precisions)),
        "MRR": 100 * float(np.mean([1 / place for place in best])), "nDCG@10": 100 * float(np.mean(gains)),
        "geometric_mean": mean,
    }  # fmt: skip


@pytest.fixture(scope="session")
def brute() -> Brute:
    """A function of scores (Q, N), each query's item and a tie rule: metrics of both directions.

    Items without a query rank nothing. Ties by index or optimistic.
    """

    def both(
        scores: Array, item_of: npt.NDArray[np.int64], ties: Ties = "index", back: Array | None = None
    ) -> dict[str, dict[str, float]]:
        asking = sorted(set(item_of.tolist()))
        captions_of = [[query for query, item in enumerate(item_of) if item == own] for own in asking]
        return {
            "text_to_visual": direction(scores, [[item] for item in item_of.tolist()], ties),
            "visual_to_text": direction((scores.T if back is None else back)[asking], captions_of, ties),
        }

    return both


@dataclass(frozen=True)
class Toy:
    """An encoder that adds up the vectors of a caption's tokens and takes an image as it is.

    Attributes:
        words: (VOCABULARY, WIDTH), not of unit length, as nothing in an evaluation asks for it.
    """

    words: Tensor
    independent: bool = True

    def embed_text(self, text: TextBatch) -> Tensor:
        """Captions -> (N, WIDTH)."""
        return (self.words[text.tokens] * text.mask[:, :, None]).sum(dim=1)

    def embed_visual(self, visual: ImageBatch) -> Tensor:
        """Items -> (N, WIDTH)."""
        return visual.pixels_or_vectors

    def project_text(self, text: TextBatch) -> Tensor:
        """Captions -> (N, WIDTH)."""
        return self.embed_text(text)

    def alone(self, captions: TokenTable) -> npt.NDArray[np.float32]:
        """Each caption embedded for itself: (captions, WIDTH)."""
        rows = [captions.batch([row]).tokens[0] for row in range(len(captions))]
        return torch.stack([self.words[tokens].sum(dim=0) for tokens in rows]).numpy()


@pytest.fixture(scope="session")
def toy() -> Toy:
    return Toy(torch.from_numpy(np.random.default_rng(7).standard_normal((VOCABULARY, WIDTH)).astype(np.float32)))


def random_texts(count: int, seed: int) -> TokenTable:
    choose = np.random.default_rng(seed)
    return TokenTable([choose.integers(1, VOCABULARY, choose.integers(1, 9)).tolist() for _ in range(count)], 0)


@pytest.fixture
def toy_split(tmp_path: Path) -> Callable[..., Split]:
    """A function that makes a split of random captions and images; the last two of its items have no query.

    Its arguments are each language's number of queries, the number of items, and whether queries have translations;
    others go to Split.
    """

    def make(counts: Mapping[str, int], items: int, translated: bool = False, **others: bool) -> Split:
        np.save(tmp_path / "v.npy", np.random.default_rng(1).standard_normal((items, WIDTH)).astype(np.float32))
        ids = [f"item{item}" for item in range(items)]
        (tmp_path / "ids.txt").write_text("\n".join(ids))
        queries = {}
        for seed, (language, count) in enumerate(counts.items(), start=2):
            item_of = np.random.default_rng(seed).integers(0, items - 2, count)
            names = [f"item{item}#{language}#{query}" for query, item in enumerate(item_of)]
            translations = random_texts(count, 20 + seed) if translated else None
            queries[language] = Queries(random_texts(count, 10 + seed), names, item_of, translations)
        images = Images(Vectors(tmp_path / "v.npy", tmp_path / "ids.txt"), ids, tmp_path / "v.npy")
        return Split("test", "toys", queries, images, **others)

    return make
