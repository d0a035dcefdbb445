"""Words put together from the pieces of every kind of tokeniser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from nrccr.data.pieces import Pieces, Words, join_pieces
from nrccr.data.tokens import CaptionTokenizer

CORPUS = ["a dog runs in the water 一个人在唱歌跳舞", "一个男人在唱歌 , 狗跑", "dogs running watery 很大的数字三"] * 5
Cut = Callable[[str], Words]


def _sentence_piece(text: str) -> Words:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=["<unk>", "<pad>"], unk_token="<unk>")
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _cut(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>"), text)


def _unsplit_sentence_piece(text: str) -> Words:
    """Some files do not cut at spaces first: the whole caption is one unit."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=["<unk>", "<pad>"], unk_token="<unk>")
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _cut(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>"), text)


def _byte_pairs(text: str) -> Words:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=290, initial_alphabet=letters))
    return _cut(PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="!"), text)


def _cut(tokenizer: PreTrainedTokenizerFast, text: str) -> Words:
    found = tokenizer(text, return_offsets_mapping=True)
    words = join_pieces(Pieces(text, found["offset_mapping"], found.word_ids()))
    assert len(words.word_of) == len(found["input_ids"])
    return words


@pytest.mark.parametrize("cut", [_sentence_piece, _unsplit_sentence_piece, _byte_pairs])
def test_words_of_a_latin_caption(cut: Cut) -> None:
    words = cut("a zebra running  watery ")
    assert words.texts == ["a", "zebra", "running", "watery"]
    assert words.word_of == sorted(words.word_of) and set(words.word_of) == set(range(4))


@pytest.mark.parametrize("cut", [_sentence_piece, _unsplit_sentence_piece, _byte_pairs])
@pytest.mark.parametrize("text", ["一个人 runs 在唱歌upper", "很大的手指", "zebra , 狗!  水", "唱 🐕 ok"])
def test_words_cover_the_caption_once(cut: Cut, text: str) -> None:
    words = cut(text)
    assert all(word and word == word.strip() for word in words.texts)
    assert "".join(words.texts) == "".join(text.split())
    assert words.word_of == sorted(words.word_of)


def test_a_character_of_several_bytes_is_one_word() -> None:
    words = _byte_pairs("狗 zebra")
    assert words.texts == ["狗", "zebra"] and words.word_of.count(0) > 1, "no merge of these bytes was learnt"


def test_chinese_pieces_are_words() -> None:
    words = _unsplit_sentence_piece("一个男人在唱歌")
    assert len(words.texts) == len(words.word_of) > 2


def test_word_piece(tmp_path: Path, tiny_bert: Path) -> None:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "run", "##ning", "##s", "dogs", "大", "手", "3", ".", "，"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    for name in ("config.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny_bert / name).read_bytes())
    tokenizer = CaptionTokenizer(str(tmp_path), 12)
    words = join_pieces(tokenizer.pieces("Dögs RUNNING，大手3."))
    assert words.texts == ["Dögs", "RUNNING", "，", "大", "手", "3", "."]
    assert words.word_of == [-1, 0, 1, 1, 2, 3, 4, 5, 6, -1]
    typed = "Dögs RUNNING，大手3. [SEP] and more"  # typed special tokens are text, and long captions are cut
    words = join_pieces(tokenizer.pieces(typed))
    assert words.word_of.count(-1) == 2 and len(words.word_of) == 12 == tokenizer.encode([typed]).lengths


def test_white_space_joins_the_next_word_and_specials_none() -> None:
    words = join_pieces(Pieces("x y ", [(0, 0), (0, 1), (1, 2), (2, 3), (3, 4), (0, 0)], [None, 0, 1, 1, 2, None]))
    assert words.texts == ["x", "y"] and words.word_of == [-1, 0, 1, 1, 1, -1]
    assert join_pieces(Pieces("", [(0, 0)], [None])) == Words([], [], [-1])


def test_a_tokeniser_that_tells_no_places(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = CaptionTokenizer(str(tiny_bert), 20)
    told = join_pieces(tokenizer.pieces("a man runs"))
    monkeypatch.setattr(type(tokenizer.tokenizer), "is_fast", False)
    assert join_pieces(tokenizer.pieces("a man runs")).texts == told.texts == ["a", "man", "runs"]
