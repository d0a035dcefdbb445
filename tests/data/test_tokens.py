"""Lower-casing, tables of token ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nrccr.data import tokens
from nrccr.data.tokens import CaptionTokenizer, TokenTable
from nrccr.errors import UserError


def test_lower_casing_is_forced_and_strips_accents(tiny_bert: Path, tmp_path: Path) -> None:
    # The folder of the real multilingual backbone says do_lower_case=false.
    for name in ("config.json", "vocab.txt"):
        (tmp_path / name).write_text((tiny_bert / name).read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false, "tokenizer_class": "BertTokenizer"}')
    table = CaptionTokenizer(str(tmp_path), 250).encode(["A Mán RUNS", "a man runs"])
    first, second = table.batch([0]).tokens, table.batch([1]).tokens
    assert first.tolist() == second.tolist()
    assert 1 not in first.tolist()[0]  # no [UNK]


def test_a_saved_tokeniser_gives_the_same_ids(tiny_bert: Path, tmp_path: Path) -> None:
    texts = ["A Mán sings.", "人在跑 Dog"]
    tokenizer = CaptionTokenizer(str(tiny_bert), 250)
    tokenizer.save(tmp_path)
    (tmp_path / "config.json").write_text((tiny_bert / "config.json").read_text())
    again = CaptionTokenizer(str(tmp_path), 250)
    assert tokenizer.encode(texts).batch([0, 1]).tokens.tolist() == again.encode(texts).batch([0, 1]).tokens.tolist()


def test_long_captions_are_cut_and_counted(tiny_bert: Path) -> None:
    texts = ["a man runs in water", "a man"]
    table = CaptionTokenizer(str(tiny_bert), 5).encode(texts)
    assert table.cut == 1
    assert table.lengths.tolist() == [5, 4] and table.words.tolist() == [3, 2]
    kept = table.batch([0]).tokens[0].tolist()
    whole = CaptionTokenizer(str(tiny_bert), 250).encode(texts).batch([0]).tokens[0].tolist()
    assert kept == [*whole[:4], whole[-1]]  # the closing token stays


def test_parts_give_what_the_whole_list_gives(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = CaptionTokenizer(str(tiny_bert), 7)
    texts = ["dog " * (count % 11) + "A Mán, runs." * (count % 3) for count in range(32)]
    whole = tokenizer.tokenizer(texts, truncation=True, max_length=7)["input_ids"]
    long = sum(len(row) > 7 for row in tokenizer.tokenizer(texts)["input_ids"])
    sizes: list[int] = []
    tokenise = type(tokenizer.tokenizer).__call__

    def counted(self: Any, given: list[str], **options: Any) -> Any:
        sizes.append(len(given))
        return tokenise(self, given, **options)

    monkeypatch.setattr(type(tokenizer.tokenizer), "__call__", counted)
    monkeypatch.setattr(tokens, "AT_ONCE", 5)
    table = tokenizer.encode(texts)
    wanted = TokenTable(whole, pad=0, cut=long)
    assert table.content() == wanted.content() and table.cut == long > 0 and len(table) == 32
    assert table.batch(range(32)).tokens.equal(wanted.batch(range(32)).tokens)
    assert max(sizes) == 5 and sum(sizes) == 32 + long  # only those that are too long are tokenised again


def test_no_captions(tiny_bert: Path) -> None:
    table = CaptionTokenizer(str(tiny_bert), 7).encode([])
    assert len(table) == table.cut == 0 and table.content() == TokenTable([], pad=0).content()


def test_captions_are_cut_at_the_backbones_positions(tiny_bert: Path) -> None:
    table = CaptionTokenizer(str(tiny_bert), 250).encode(["dog " * 100])
    assert (table.lengths.tolist(), table.cut) == ([64], 1)


def test_the_empty_sentence_is_two_tokens(tiny_bert: Path) -> None:
    assert CaptionTokenizer(str(tiny_bert), 250).encode([""]).batch([0]).tokens.tolist() == [[2, 3]]


def test_a_batch_is_what_a_loop_would_pad() -> None:
    random = np.random.default_rng(0)
    rows = [random.integers(1, 100, size=random.integers(2, 9)).tolist() for _ in range(20)]
    table = TokenTable(rows, pad=7)
    for indices in ([3], [5, 0, 19], [2, 2, 11, 4], list(range(20))):
        batch = table.batch(indices)
        longest = max(len(rows[index]) for index in indices)
        assert batch.tokens.tolist() == [rows[i] + [7] * (longest - len(rows[i])) for i in indices]
        assert batch.mask.tolist() == [[p < len(rows[i]) for p in range(longest)] for i in indices]
        assert batch.lengths is not None and batch.counted().tolist() == batch.mask.sum(dim=1).tolist()
    short, long = min(range(20), key=lambda row: len(rows[row])), max(range(20), key=lambda row: len(rows[row]))
    among = table.batch([short], among=[short, long])  # as wide as the batch that it is a share of
    assert among.tokens.tolist() == [rows[short] + [7] * (len(rows[long]) - len(rows[short]))]
    assert among.tokens.shape[1] > table.batch([short]).tokens.shape[1]


def test_a_folder_without_vocabulary_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((tiny_bert / "config.json").read_text())
    with pytest.raises(UserError, match="text.model"):
        CaptionTokenizer(str(tmp_path), 250)
