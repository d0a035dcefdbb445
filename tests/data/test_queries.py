"""What makes a split: the numbering of items, captions drawn, queries among their translations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nrccr.data.captions import Captions
from nrccr.data.queries import Queries, Sample, Split, TextGallery, among_texts, items_of, numbered
from nrccr.data.tokens import TokenTable
from nrccr.errors import UserError


def captions(items: list[str], tag: str = "zh") -> Captions:
    numbers = [str(row) for row in range(len(items))]
    ids = [f"{item}#{tag}#{number}" for item, number in zip(items, numbers, strict=True)]
    return Captions(Path(f"{tag}.caption.txt"), ids, items, numbers, [f"{tag} text {number}" for number in numbers])


def split_of(**languages: Queries) -> Split:
    gallery: Any = ["v0", "v1"]  # stands for videos
    return Split("test", "vatex", languages, gallery)


def queries(translated: bool = True) -> Queries:
    tokens, translations = TokenTable([[5], [6, 7], [8]], 0), TokenTable([[1, 2], [3], [4]], 0)
    ids = ["v1#enc#0", "v0#enc#0", "v1#enc#1"]
    return Queries(tokens, ids, np.array([1, 0, 1]), translations if translated else None)


def test_items_are_numbered_by_first_appearance() -> None:
    names = np.random.default_rng(0).choice(list("abcdefgh"), 40).tolist()
    items, item_of = numbered(names, {})
    assert items == list(dict.fromkeys(names))
    assert item_of.dtype == np.int64 and [items[place] for place in item_of] == names
    found, places = items_of(captions(names))
    assert found == items and np.array_equal(places, item_of)


def test_numbers_that_items_have_are_kept_and_new_ones_added() -> None:
    known = {"x": 0, "a": 1}
    items, item_of = numbered(["b", "a", "b", "c", "x"], known)
    assert items == ["x", "a", "b", "c"] and item_of.tolist() == [2, 1, 2, 3, 0]
    # The next language goes on where this one stopped.
    again, more = numbered(["d", "c"], known)
    assert again == [*items, "d"] and more.tolist() == [4, 3]
    assert numbered([], {})[1].shape == (0,)


def test_a_sample_is_drawn_by_its_seed_in_file_order_and_alike_in_matched_files() -> None:
    items = [f"v{row // 3}" for row in range(60)]
    source, target = captions(items, "enc"), captions(items, "zh")
    drawn = Sample(20, 5).take("train", [source, target])
    order = [source.ids.index(name) for name in drawn[0].ids]
    assert len(set(order)) == 20 and order == sorted(order)
    assert drawn[0].keys == drawn[1].keys and drawn[1].texts == [target.texts[row] for row in order]
    assert drawn[0].path == source.path
    assert Sample(20, 5).take("train", [source])[0] == drawn[0]
    others = [Sample(20, seed).take("train", [source])[0].ids for seed in range(5)]
    assert len({tuple(ids) for ids in [*others, drawn[0].ids]}) == 6
    # Every caption is drawn as often as others.
    times = np.zeros(60)
    for seed in range(300):
        times[[source.ids.index(name) for name in Sample(20, seed).take("train", [source])[0].ids]] += 1
    assert times.min() > 60 and times.max() < 140
    assert Sample(60, 0).take("train", [source, target]) == [source, target]


def test_a_sample_larger_than_the_split_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        Sample(4, 0).take("val", [captions(["a", "b", "a"], "enc")])
    assert str(caught.value) == "enc.caption.txt: split val has 3 captions, not 4; give a smaller size"


def test_queries_among_their_translations() -> None:
    own = queries()
    found = among_texts(split_of(zh=own))
    assert isinstance(found.gallery, TextGallery) and len(found.gallery) == 3
    assert found.gallery.tokens is own.translations and found.gallery.ids == own.ids
    assert found.headline.tokens is own.tokens and found.headline.translations is None
    assert found.headline.item_of.tolist() == [0, 1, 2]  # its own alone, not the other caption of v1
    assert (found.name, found.collection, found.language) == ("test", "vatex", "zh")
    with pytest.raises(TypeError, match="split test: the gallery holds captions"):
        _ = found.visuals


@pytest.mark.parametrize(("translated", "by_language"), [(False, False), (True, True)])
def test_without_translations_there_is_nothing_to_rank(translated: bool, by_language: bool) -> None:
    one = split_of(zh=queries(translated))
    split = Split(one.name, one.collection, one.queries, one.gallery, by_language=by_language)
    with pytest.raises(UserError, match="^--task text-to-text: these queries have no translations to be ranked; leave"):
        among_texts(split)


def test_the_first_language_is_the_headline() -> None:
    german, english = queries(False), queries(False)
    split = split_of(de=german, en=english)
    assert split.language == "de" and split.headline is german and split.visuals is split.gallery
