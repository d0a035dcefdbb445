"""The numbers behind maps of attention and bars of trust."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch

from nrccr.data.pieces import join_pieces
from nrccr.errors import UserError
from nrccr.report import attention, looks
from nrccr.report.finished import ReportRun, read
from nrccr.report.translations import read_translations


def test_teacher_attends_as_a_loop_says(noisy: list[ReportRun]) -> None:
    """Head by head from queries and keys; a caption's attention does not depend on the padding of its batch."""
    retriever = noisy[1].retriever
    network, tokenizer = retriever.network, retriever.tokenizer
    sources, targets = ["A two moves.", "A big three moves to the left."], ["Eine kleine 2 ruht unten.", "Drei."]
    batches = [tokenizer.encode(texts).batch([0, 1]) for texts in (sources, targets)]
    whole, cosines = network.teacher_attention(*batches)
    for row in range(2):
        alone = [tokenizer.encode([texts[row]]).batch([0]) for texts in (sources, targets)]
        with torch.no_grad():
            source, target = (network.text.project(own)[0] for own in network.text.states(alone))
            block = network.text.block
            query, key = block.query(source), block.key(target)  # (S, 512), (T, 512)
        width = query.shape[1] // block.heads
        expected = np.zeros((len(query), len(key)))
        for head in range(block.heads):
            part = slice(head * width, (head + 1) * width)
            for i in range(len(query)):
                scores = [float(query[i, part] @ key[j, part]) / block.scale for j in range(len(key))]
                powers = [math.exp(score) for score in scores]
                expected[i] += [power / sum(powers) / block.heads for power in powers]
        found = whole[row].numpy()
        np.testing.assert_allclose(found[: len(query), : len(key)], expected, atol=1e-5)
        assert np.abs(found[: len(query), len(key) :]).max(initial=0) < 1e-6
        alike = torch.nn.functional.cosine_similarity(source[:, None], target[None], dim=2)
        torch.testing.assert_close(cosines[row, : len(query), : len(key)], alike, atol=1e-5, rtol=0)


def test_rows_are_those_of_pieces(noisy: list[ReportRun]) -> None:
    run = noisy[1]
    translations = read_translations(run.retriever, run.root)
    assert translations is not None
    made = attention.parts(noisy, pairs=[translations.ids[3], translations.ids[0]])
    assert [part.name for part in made] == ["attention", "trust"]
    part = made[0]
    assert part.figure is not None and "Without such a teacher: basic." in part.text
    rows: dict[object, list[dict[str, object]]] = defaultdict(list)
    for row in part.rows:
        rows[row["pair"]].append(dict(row))
    assert list(rows) == [translations.ids[3], translations.ids[0]]
    for at in (3, 0):
        own = rows[translations.ids[at]]
        english = run.retriever.model.cleaning.of_training([translations.sources[at]])[0]
        texts = (english, translations.targets[at])
        batches = [run.retriever.tokenizer.encode([text]).batch([0]) for text in texts]
        weights = run.retriever.network.teacher_attention(*batches).attention[0].numpy()
        source, target = (join_pieces(run.retriever.tokenizer.pieces(text)) for text in texts)
        assert len(own) == len(source.texts) * len(target.texts)
        for row in own:
            sums = [sum(weights[i, j] for j, word in enumerate(target.word_of) if word == row["column"])
                    for i, word in enumerate(source.word_of) if word == row["row"]]  # fmt: skip
            every = [sum(weights[i, j] for j, word in enumerate(target.word_of) if word >= 0)
                     for i, word in enumerate(source.word_of) if word == row["row"]]  # fmt: skip
            assert row["attention"] == pytest.approx(sum(sums) / sum(every), rel=1e-5)
        for column in range(len(target.texts)):
            received = [float(str(row["attention"])) for row in own if row["column"] == column]
            share = target.word_of.count(column) / sum(word >= 0 for word in target.word_of)
            assert {round(float(str(row["trust"])), 9) for row in own if row["column"] == column} == {
                round(sum(received) / len(received) / share, 9)
            }


def test_the_worst_are_chosen_by_the_rule(noisy: list[ReportRun]) -> None:
    run = noisy[1]
    translations = read_translations(run.retriever, run.root)
    assert translations is not None
    ids, rule = looks.choose_worst(run.retriever, translations, translations.sample(looks.SAMPLE, looks.SEED))
    assert 1 <= len(ids) <= looks.PAIRS and "largest share of words that are lost or replaced" in rule
    places = [translations.ids.index(own) for own in ids]
    assert len({translations.item_of[at] for at in places}) == len(ids), "one of each item"
    lost = [known.lost() if known else 0.0 for known in translations.known]
    assert [lost[at] for at in places] == sorted((lost[at] for at in places), reverse=True)
    words = translations.source.words, translations.target.words
    for at in range(len(translations)):
        if all(looks.SHORTEST <= own[at] <= looks.LONGEST for own in words) and at not in places:
            rivals = [place for place in places if translations.item_of[place] == translations.item_of[at]]
            assert lost[at] <= (lost[rivals[0]] if rivals else lost[places[-1]])


def test_trust_by_kind_of_word(noisy: list[ReportRun]) -> None:
    run = noisy[1]
    translations = read_translations(run.retriever, run.root)
    assert translations is not None
    counted = looks.count_trust(run.retriever, translations, np.arange(len(translations)))
    (part,) = (part for part in attention.parts(noisy) if part.name == "trust")
    assert part.shown and [(row["measure"], row["target words"]) for row in part.rows] == [
        (measure, attention.KINDS[kind]) for measure in ("trust", "similarity") for kind in counted
    ]
    every = [(kind, both[at], counted["wrong"][at]) for at in range(2) for kind, both in counted.items()]
    for row, (kind, values, wrong) in zip(part.rows, every, strict=True):
        assert (row["count"], row["mean"]) == (len(values), pytest.approx(np.mean(values)))
        wins = np.mean([(own > other) + 0.5 * (own == other) for own in values for other in wrong])
        chance = row["chance to have more than a wrong one"]
        assert chance == pytest.approx(wins) if kind != "wrong" else chance is None
    each = [*looks.look(run.retriever, translations, np.arange(len(translations)))]
    assert all(np.average(own.trust, weights=_pieces(own)) == pytest.approx(1) for own in each), "1 is an even share"


def _pieces(own: looks.Look) -> list[int]:
    return [own.target.word_of.count(word) for word in range(len(own.target.texts))]


def test_runs_without_a_teacher_and_unknown_ids(noisy: list[ReportRun], trained: Path, tiny_collection: Path) -> None:
    (part,) = attention.parts(noisy[:1])
    assert part.figure is None and "None of these runs has a teacher" in part.text
    with pytest.raises(UserError, match="--pair: caption 'nobody#enc#0' is not in the training split of generated"):
        attention.parts(noisy, pairs=["nobody#enc#0"])
    made = attention.parts(read([trained], tiny_collection, "cpu"))
    assert [part.name for part in made] == ["attention"], "no clean sentences are known"
    assert {row["known"] for row in made[0].rows} == {""} and "words that are lost" not in made[0].text
