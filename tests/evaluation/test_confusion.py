"""Languages of nearest captions, against loops over all pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nrccr.evaluation.confusion import Nearest, Tongue, nearest_languages
from nrccr.models.layers import unit

SIZES = {"zh": 9, "en": 6, "de": 4}


def made(seed: int, levels: int = 0) -> tuple[dict[str, Tongue], torch.Tensor]:
    """Captions in three languages and five items; with `levels` their numbers are few, so that scores tie."""
    values = np.random.default_rng(seed)

    def vectors(count: int) -> torch.Tensor:
        numbers = values.integers(-levels, levels + 1, (count, 4)) if levels else values.standard_normal((count, 4))
        return torch.from_numpy(numbers.astype(np.float32))

    tongues = {name: Tongue(vectors(size), values.integers(0, 5, size)) for name, size in SIZES.items()}
    return tongues, vectors(5)


def by_loops(tongues: dict[str, Tongue], query: torch.Tensor, itself: tuple[str, int] | None) -> tuple[str, int]:
    """Language and item of the first caption with the highest score."""
    best: tuple[float, str, int] | None = None
    for language, tongue in tongues.items():
        for place, vector in enumerate(tongue.vectors):
            score = float(query @ vector)
            if (language, place) != itself and (best is None or score > best[0]):
                best = score, language, int(tongue.item_of[place])
    assert best is not None
    return best[1:]


def compare(own: Nearest, found: list[tuple[str, int]], items: list[int]) -> None:
    assert own.queries == len(found)
    for language in SIZES:
        right = [item == wanted for (there, item), wanted in zip(found, items, strict=True) if there == language]
        assert own.shares[language] == pytest.approx(len(right) / len(found))
        assert own.right[language] == (pytest.approx(sum(right) / len(right)) if right else None)


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_nearest_languages_are_those_of_loops(levels: int) -> None:
    tongues, items = made(levels, levels)
    captions, of_items = nearest_languages(tongues, items, 100, 0)
    for language, tongue in tongues.items():
        found = [by_loops(tongues, vector, (language, place)) for place, vector in enumerate(tongue.vectors)]
        compare(captions[language], found, tongue.item_of.tolist())
    compare(of_items, [by_loops(tongues, item, None) for item in items], list(range(5)))


def test_shares_of_all_captions_leave_the_query_out() -> None:
    captions, of_items = nearest_languages(*made(0), 100, 0)
    assert captions["en"].expected == {"zh": 9 / 18, "en": 5 / 18, "de": 4 / 18}
    assert of_items.expected == {"zh": 9 / 19, "en": 6 / 19, "de": 4 / 19}


def test_languages_apart_find_themselves_and_languages_that_agree_one_another() -> None:
    axes = torch.eye(8)
    items = np.arange(4)
    apart = {"zh": Tongue(unit(axes[:4] + 9 * axes[4]), items), "en": Tongue(unit(axes[:4] - 9 * axes[4]), items)}
    captions, _ = nearest_languages(apart, axes[:4], 100, 0)
    assert [captions[name].shares[name] for name in apart] == [1.0, 1.0]
    together = {"zh": Tongue(axes[:4], items), "en": Tongue(axes[:4].clone(), items)}
    captions, _ = nearest_languages(together, axes[:4], 100, 0)
    assert captions["zh"].shares == {"zh": 0.0, "en": 1.0} and captions["zh"].right == {"zh": None, "en": 1.0}


def test_a_sample_searches_everything_and_is_the_same_every_time() -> None:
    tongues, items = made(3)
    captions, of_items = nearest_languages(tongues, items, 3, 5)
    assert [own.queries for own in (*captions.values(), of_items)] == [3, 3, 3, 3]
    assert nearest_languages(tongues, items, 3, 5) == (captions, of_items)
    others = [nearest_languages(tongues, items, 3, seed) for seed in range(5)]
    assert any(other[0] != captions for other in others) and any(other[1] != of_items for other in others)
