"""What is retrieved: queries with the items that each run ranks first (the paper's figures 7 and 8).

Q queries, N items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from nrccr.evaluation.blocks import highest_columns
from nrccr.evaluation.ranked import Scored
from nrccr.report.captions import english_captions, first_of
from nrccr.report.finished import ReportRun, Searched
from nrccr.report.gallery import Cell, Group, Row, draw_gallery
from nrccr.report.media import Look, looks
from nrccr.report.part import Part, Value

Ranks = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Key = tuple[str, str]  # item and number of a caption
TOP = 3
QUERIES = 4  # of each rule
SEED = 0
CAPTIONS = 2  # shown of an item
QUERY, TRANSLATION, OF_ITEM, OF_ITEMS = "query", "translation", "caption of the right item", "item's captions"
TITLES = {
    "random": "Retrieved items: random queries",
    "worst": "Retrieved items: where the right one is ranked lowest",
    "improved": "Retrieved items: where the right one gains most",
}


def pick_random(item_of: Indices, count: int, seed: int) -> Indices:
    """Queries (count,) drawn at random, no two of one item, in file order."""
    order = np.random.default_rng(seed).permutation(len(item_of))
    return np.sort(_of_different_items(order, item_of, count))


def pick_worst(ranks: Ranks, item_of: Indices, count: int) -> Indices:
    """Queries (count,) whose right item has the largest ranks, no two of one item; the first of equals."""
    return _of_different_items(np.argsort(-ranks, kind="stable"), item_of, count)


def pick_improved(before: Ranks, after: Ranks, item_of: Indices, count: int) -> Indices:
    """Queries (at most count,) that gain the most places, no two of one item; the first of equals."""
    gained = before - after
    order = np.argsort(-gained, kind="stable")
    return _of_different_items(order[gained[order] > 0], item_of, count)


def _of_different_items(order: Indices, item_of: Indices, count: int) -> Indices:
    """The first queries of an order, of each item the first alone."""
    _, first = np.unique(item_of[order], return_index=True)
    return order[np.sort(first)[:count]]


@dataclass(frozen=True)
class Answers:
    """A run's answers to test queries in one language.

    Attributes:
        searched: queries, gallery and embeddings.
        scored: their scores.
    """

    searched: Searched
    scored: Scored

    @classmethod
    def of(cls, searched: Searched) -> Answers:
        """As the run's test scores them."""
        return cls(searched, searched.scored())

    @property
    def label(self) -> str:
        """The run's."""
        return self.searched.run.label

    @cached_property
    def ranks(self) -> Ranks:
        """(Q,) of each query's item."""
        return self.scored.ranked(memory_mb=self.searched.run.rule.memory_mb).text_to_visual.best

    @cached_property
    def top(self) -> Indices:
        """(Q, TOP) the items ranked first, ties by index."""
        found: Indices = highest_columns(self.scored.forward, TOP, self.searched.run.rule.memory_mb).cpu().numpy()
        return found

    @cached_property
    def rows(self) -> dict[Key, int]:
        """The query of each item and caption number; ids of translations differ from those of the captions."""
        return {key_of(caption): row for row, caption in enumerate(self.searched.encoded.ids)}

    def cells(self, row: int, captions: dict[str, list[str]]) -> list[Cell]:
        """The items ranked first for a query, and after them the right one where it is not among them."""
        right = int(self.searched.encoded.item_of[row])
        columns = self.top[row].tolist()
        places = dict(zip(columns, range(1, len(columns) + 1), strict=True))
        places.setdefault(right, int(self.ranks[row]))
        scores = self.scored.forward.block(range(row, row + 1), range(self.scored.forward.shape[1]))[0]
        look, names = self.look, self.searched.item_ids
        found = []
        for column, place in places.items():
            name, score = names[column], float(scores[column])
            words = first_of(captions.get(name, ()), CAPTIONS)
            found.append(Cell(place, name, column == right, look(name), words, f"score {score:.3f}", score))
        return found

    @cached_property
    def look(self) -> Look:
        """How an item looks."""
        return looks(self.searched)


def key_of(caption: str) -> Key:
    """Item and number of a caption id."""
    item, _, number = caption.rsplit("#", 2)
    return item, number


@torch.inference_mode()
def parts(runs: Sequence[ReportRun], count: int = QUERIES, seed: int = SEED) -> list[Part]:
    """Queries picked by each rule with the items that all runs rank first.

    Args:
        runs: finished ones; those with other test queries than the first are left out.
        count: queries of each rule.
        seed: of the random ones.
    """
    first = runs[0].headline
    every = [Answers.of(first), *(Answers.of(other) for run in runs[1:] if (other := _same(first, run)) is not None)]
    shared = np.array([row for key, row in every[0].rows.items() if all(key in other.rows for other in every)])
    keys = [key_of(first.encoded.ids[row]) for row in shared.tolist()]
    item_of = first.encoded.item_of[shared]
    ranks = [answers.ranks[[answers.rows[key] for key in keys]] for answers in every]  # (shared,) each
    left_out = [run.label for run in runs if run.label not in {answers.label for answers in every}]
    last = every[-1].label
    rules = {
        "random": (f"drawn at random (seed {seed})", pick_random(item_of, count, seed)),
        "worst": (f"whose right item {last} ranks lowest", pick_worst(ranks[-1], item_of, count)),
    }
    if len(every) > 1:
        rules["improved"] = (
            f"whose right item gains the most places from {every[0].label} to {every[1].label}",
            pick_improved(ranks[0], ranks[1], item_of, count),
        )
    return [
        _part(rule, words, [keys[at] for at in chosen.tolist()], every, left_out)
        for rule, (words, chosen) in rules.items()
        if len(chosen)
    ]


def _same(first: Searched, run: ReportRun) -> Searched | None:
    """The test of a run in the first one's language, if it shares queries with it."""
    own = {key_of(caption) for caption in first.encoded.ids}
    for searched in run.searched:
        if searched.language == first.language and own & {key_of(caption) for caption in searched.encoded.ids}:
            return searched
    return None


def _part(rule: str, words: str, keys: Sequence[Key], every: Sequence[Answers], left_out: Sequence[str]) -> Part:
    first = every[0].searched
    captions = english_captions(first)
    groups: list[Group] = []
    rows: list[dict[str, Value]] = []
    told: list[str] = []
    for number, key in enumerate(keys, start=1):
        asked = _asked(first, key, captions)
        lists = []
        for answers in every:
            row = answers.rows[key]
            lists.append((answers, int(answers.ranks[row]), answers.cells(row, captions)))
        ranked = [Row(own.label, cells, f"right item at rank {rank:,}") for own, rank, cells in lists]
        groups.append(Group([f"{number}. {asked[QUERY]}", *_below(asked)], ranked))
        told.append(f"query {number}, " + ", ".join(f"{own.label} {rank}" for own, rank, _ in lists))
        for own, rank, cells in lists:
            rows += [_row(own, rank, cell, {"number": number, "caption id": "#".join(key), **asked}) for cell in cells]
    averaged = " The captions of an item are one query; its first one is shown." if first.split.averaged else ""
    others = f" Left out, with other test queries: {', '.join(left_out)}." if left_out else ""
    text = (
        f"Queries of the test split in {first.language} {words}, no two of one item, and the {TOP} items that each run "
        "ranks first, scored as in its test. The right item is framed and marked by a word; where it is not among them "
        f"it follows, with its rank among {len(first.item_ids):,}. An item is a strip of its frames or its image where "
        f"these are on disk, else its first English captions.{averaged}{others}"
    )
    alt = f"Ranked items for {len(keys)} queries. Rank of the right item: {'; '.join(told)}. All are in the CSV file."
    return Part(
        f"retrieved-{rule}", TITLES[rule], text, alt, draw_gallery(groups, TOP + 1), rows, languages=_languages(first)
    )


def _asked(first: Searched, key: Key, captions: dict[str, list[str]]) -> dict[str, str]:
    """A query, its translation and a caption of its item, by what they are; empty where there is none."""
    queries = first.queries
    row = next(row for row, caption in enumerate(queries.ids) if key_of(caption) == key)
    return {
        QUERY: queries.texts[row] if len(queries.texts) else "",
        TRANSLATION: queries.translated[row] if len(queries.translated) else "",
        OF_ITEM: next(iter(captions.get(key[0], ())), ""),
    }


def _below(asked: dict[str, str]) -> list[str]:
    """The lines below a query: what it does not say in the same words."""
    others = {text: name for name, text in reversed(asked.items()) if text}
    return [f"{name}: {text}" for text, name in reversed(others.items()) if name != QUERY]


def _languages(first: Searched) -> dict[str, str]:
    """The columns of texts with their language."""
    source = first.run.config.data.source
    others = (other.language for other in first.run.searched if other.language != first.language)
    return {QUERY: first.language, TRANSLATION: next(others, source), OF_ITEM: source, OF_ITEMS: source}


def _row(answers: Answers, rank: int, cell: Cell, query: dict[str, Value]) -> dict[str, Value]:
    return {
        **query,
        "run": answers.label,
        "rank of the right item": rank,
        "place": cell.place,
        "item": cell.item,
        "right": "yes" if cell.right else "no",
        "score": cell.score,
        OF_ITEMS: " / ".join(cell.captions),
    }
