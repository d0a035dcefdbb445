"""C2KD's data: captions by number in every language that has it, draws, what counts as empty, queries by language."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from nrccr.data.batch import ImageBatch, PooledTextBatch, TextBatch, VideoBatch
from nrccr.data.captions import read_captions
from nrccr.data.languages import locate_languages
from nrccr.data.sampling import PARTS, caption_draws
from nrccr.data.tokens import CaptionTokenizer, TokenTable
from nrccr.errors import UserError
from nrccr.systems.c2kd.batch import MultilingualBatch
from nrccr.systems.c2kd.data import LanguagePairs, LanguageReader, read_words
from nrccr.systems.c2kd.tokens import PooledTokenizer


@pytest.fixture
def tokenizer(tiny_bert: Path) -> CaptionTokenizer:
    return CaptionTokenizer(str(tiny_bert), 35, lower_case=False)


@pytest.fixture
def reader(tiny_languages: Path) -> LanguageReader:
    return LanguageReader.open(locate_languages(tiny_languages, "multi_msrvtt"), 5, "first")


@pytest.fixture
def pairs(reader: LanguageReader, tokenizer: CaptionTokenizer) -> LanguagePairs:
    return reader.pairs(tokenizer, seed=3)


def text_of(root: Path, stem: str) -> Path:
    return root / "multi_msrvtt" / "TextData" / f"multi_msrvtt{stem}.caption.txt"


def unpadded(text: TextBatch) -> list[list[int]]:
    return [tokens[mask].tolist() for tokens, mask in zip(text.tokens, text.mask, strict=True)]


def rows_of(table: TokenTable) -> list[list[int]]:
    return unpadded(table.batch(range(len(table))))


def captions_of(batch: MultilingualBatch) -> dict[str, list[list[int]]]:
    """The tokens of a batch's captions by language, without padding."""
    of_parts = [tokens for part in batch.texts for tokens in unpadded(part)]
    ordered = iter([of_parts[place] for place in batch.places.tolist()])
    return {language: [next(ordered) for _ in rows] for language, rows in batch.rows.items()}


def test_counts(pairs: LanguagePairs) -> None:
    assert len(pairs) == 12 and list(pairs.texts) == ["en", "de", "zh"]
    assert dataclasses.asdict(pairs.counts) == {
        "items": 12, "captions": {"en": 23, "de": 21, "zh": 24}, "missing": {"en": 1, "de": 3, "zh": 0},
        "cut": 0, "empty": 0,
    }  # fmt: skip


def test_every_caption_of_a_batch_is_the_drawn_number_of_its_video(
    pairs: LanguagePairs, tiny_languages: Path, tokenizer: CaptionTokenizer
) -> None:
    seen: dict[str, set[tuple[str, str]]] = {language: set() for language in pairs.texts}
    for epoch in range(12):
        chosen = np.random.default_rng(epoch).permutation(12)
        batch = pairs.at_epoch(epoch).batch(chosen)
        draws = caption_draws(3, epoch, chosen, np.full(12, 2))
        for language, found in captions_of(batch).items():
            captions = read_captions(text_of(tiny_languages, f"train_{language}"))
            own = dict(zip(captions.keys, rows_of(tokenizer.encode(captions.texts)), strict=True))
            rows = batch.rows[language].tolist()
            wanted = [row for row in range(12) if (f"train{chosen[row]}", str(draws[row])) in own]
            assert rows == wanted
            for row, tokens in zip(rows, found, strict=True):
                key = (f"train{chosen[row]}", str(draws[row]))
                assert tokens == own[key]
                seen[language].add(key)
    assert {language: len(keys) for language, keys in seen.items()} == pairs.counts.captions


def test_draws_depend_on_seed_epoch_and_video_alone(pairs: LanguagePairs) -> None:
    whole = pairs.at_epoch(4).batch(range(12))
    parts = [pairs.at_epoch(4).batch([video]) for video in reversed(range(12))]
    for video, part in zip(reversed(range(12)), parts, strict=True):
        for language, rows in whole.rows.items():
            own = [tokens for tokens, row in zip(captions_of(whole)[language], rows, strict=True) if row == video]
            assert captions_of(part)[language] == own
    counts = np.full(400, 5)
    draws = caption_draws(0, 0, np.arange(400), counts)
    assert np.bincount(draws, minlength=5).min() > 50 and draws.max() == 4
    for seed, epoch in ((0, 1), (1, 0), (2**62, 0)):
        other = caption_draws(seed, epoch, np.arange(400), counts)
        assert 200 < (other != draws).sum() < 390
    assert not caption_draws(0, 0, np.arange(9), np.ones(9, dtype=np.int64)).any()


def test_videos_and_positions(pairs: LanguagePairs) -> None:
    batch = pairs.batch([7, 0, 6])
    assert isinstance(batch.visual, VideoBatch) and batch.items is not None
    assert batch.items.tolist() == [7, 0, 6] and batch.empty is None
    assert batch.visual.mask.sum(1).tolist() == [1, 1, 5]  # seven frames, cut at five
    (one,) = pairs[np.array([7, 0, 6])].parts
    assert captions_of(one) == captions_of(batch) and list(batch.rows) == ["en", "de", "zh"] and batch.taught == []


def test_captions_of_all_languages_come_in_parts_of_like_length(
    pairs: LanguagePairs, reader: LanguageReader, tokenizer: CaptionTokenizer
) -> None:
    batch = pairs.batch(range(12))
    lengths = [part.mask.sum(dim=1) for part in batch.texts]
    assert len(batch.texts) == PARTS and [part.mask.shape[1] for part in batch.texts] == [
        int(own.max()) for own in lengths
    ]
    assert torch.equal(torch.cat(lengths), torch.cat(lengths).sort().values) and len(set(map(len, lengths))) <= 2
    assert [part.lengths.tolist() for part in batch.texts if part.lengths is not None] == [
        own.tolist() for own in lengths
    ]
    pooled = reader.pairs(PooledTokenizer(tokenizer, tokenizer), 3).batch(range(12))
    (one,) = pooled.texts  # padding counts with LaBSE's mask
    assert one.lengths is not None and one.counted().tolist() == one.mask.sum(dim=1).tolist()
    assert isinstance(one, PooledTextBatch) and torch.equal(pooled.places, torch.arange(len(one.tokens)))
    assert captions_of(pooled) == captions_of(batch)


def test_teachers_read_the_english_in_their_own_tokens(reader: LanguageReader, tokenizer: CaptionTokenizer) -> None:
    other = CaptionTokenizer(tokenizer.tokenizer.name_or_path, 4)
    pairs = reader.pairs(tokenizer, 0, teachers=[other, tokenizer])
    batch = pairs.batch(range(12))
    assert batch.english is not None and len(batch.taught) == 2
    assert batch.taught[0].tokens.shape == (len(batch.rows["en"]), 4)
    full_stop = tokenizer.tokenizer.convert_tokens_to_ids(".")
    for own, taught in zip(captions_of(batch)["en"], unpadded(batch.taught[1]), strict=True):
        assert [token for token in own if token != full_stop] == taught
    assert torch.equal(pairs.taught[1].batch(batch.english).tokens, batch.taught[1].tokens)
    assert pairs.fingerprint() != reader.pairs(tokenizer, 0).fingerprint()


def test_without_english_words_the_captions_own(
    reader: LanguageReader, tokenizer: CaptionTokenizer, tiny_languages: Path
) -> None:
    english = read_captions(text_of(tiny_languages, "train_en"))
    given = reader.teacher_texts(english)
    text_of(tiny_languages, "train_en_words").unlink()
    assert reader.teacher_texts(english) == given
    assert reader.pairs(tokenizer, 0).fingerprint() == reader.pairs(tokenizer, 0, english_only=False).fingerprint()


def test_a_caption_without_words_is_empty(tiny_languages: Path, tokenizer: CaptionTokenizer, tmp_path: Path) -> None:
    for stem in ("train_en", "train_en_words"):
        path = text_of(tiny_languages, stem)
        lines = path.read_text().splitlines(keepends=True)
        head = lines[0].split()[0]
        path.write_text("".join([f"{head} ...!\n", *lines[1:]] if stem == "train_en" else lines[1:]))
    collection = locate_languages(tiny_languages, "multi_msrvtt")
    pairs = LanguageReader.open(collection, 5, "first").pairs(tokenizer, 0)
    assert pairs.counts.empty == 1 and pairs.empty.nonzero()[0].tolist() == [0]
    flags = [pairs.at_epoch(epoch).batch(range(12)) for epoch in range(8)]
    for batch in flags:
        assert batch.english is not None
        first = batch.english[0].item() == 0
        assert (batch.empty is not None) == first
        assert batch.empty is None or batch.empty.tolist() == [True, *[False] * 11]
    assert len({bool(batch.empty is not None and batch.empty[0]) for batch in flags}) == 2
    words = tmp_path / "words.txt"
    words.write_text("dog\nman\nRed\n")
    assert read_words(words) == {"dog", "man", "Red"}
    known = LanguageReader.open(collection, 5, "first", (), words)
    texts = known.teacher_texts(read_captions(collection.file("train", "en")))
    wanted = [not {"dog", "man"} & set(text.split()) for text in texts]
    assert known.pairs(tokenizer, 0).empty.tolist() == wanted and sum(wanted) > 1


def test_english_alone(reader: LanguageReader, tokenizer: CaptionTokenizer) -> None:
    pairs = reader.pairs(tokenizer, 0, english_only=True)
    assert list(pairs.texts) == ["en"] and pairs.counts.captions == {"en": 23}
    assert all(len(pairs.at_epoch(epoch).batch(range(12)).rows["en"]) == 12 for epoch in range(3))


def test_a_batch_without_english(reader: LanguageReader, tokenizer: CaptionTokenizer) -> None:
    pairs = reader.pairs(tokenizer, 0, teachers=[tokenizer])
    epoch = next(epoch for epoch in range(20) if caption_draws(0, epoch, np.array([5]), np.array([2]))[0] == 1)
    batch = pairs.at_epoch(epoch).batch([5])
    assert batch.taught[0].tokens.shape[0] == len(captions_of(batch)["en"]) == 0
    assert batch.rows["de"].tolist() == [0]


def test_queries(reader: LanguageReader, tokenizer: CaptionTokenizer) -> None:
    found = reader.split("test", tokenizer)
    assert list(found.queries) == ["en", "de", "zh"] and len(found.visuals) == 8 and found.averaged
    assert found.by_language and found.language == "en" and found.headline.translations is None
    assert found.visuals.ids == [f"test{video}" for video in range(8)]
    assert found.queries["zh"].item_of.tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert found.queries["zh"].ids[3] == "test4#zh#0"
    assert found.counts["captions"] == {"en": 8, "de": 8, "zh": 7} and found.counts["missing"]["zh"] == 1


def test_chosen_languages(tiny_languages: Path, tokenizer: CaptionTokenizer) -> None:
    collection = locate_languages(tiny_languages, "multi_msrvtt")
    reader = LanguageReader.open(collection, 5, "first", ["zh", "en"])
    assert list(reader.pairs(tokenizer, 0).texts) == list(reader.split("val", tokenizer).queries) == ["en", "zh"]
    with pytest.raises(UserError, match="training needs English captions; add en"):
        LanguageReader.open(collection, 5, "first", ["zh"]).pairs(tokenizer, 0)
    with pytest.raises(UserError, match=r"no file multi_msrvtttrain_sw\.caption\.txt"):
        LanguageReader.open(collection, 5, "first", ["en", "sw"]).pairs(tokenizer, 0)


def test_files_that_do_not_belong_together(tiny_languages: Path, tokenizer: CaptionTokenizer) -> None:
    path = text_of(tiny_languages, "train_de")
    path.write_text(path.read_text().replace("train", "other"))
    with pytest.raises(UserError, match="no caption has the item and number of one in multi_msrvtttrain_en"):
        LanguageReader.open(locate_languages(tiny_languages, "multi_msrvtt"), 5, "first").pairs(tokenizer, 0)


def test_word_lists(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"c2kd\.words"):
        read_words(tmp_path / "none.txt")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(UserError, match="holds no words"):
        read_words(tmp_path / "empty.txt")


def test_labse_positions(tiny_bert: Path) -> None:
    own, labse = CaptionTokenizer(str(tiny_bert), 8), CaptionTokenizer(str(tiny_bert), 12)
    labse.tokenizer.add_tokens(["dogdog"])
    pooled = PooledTokenizer(own, labse)
    texts = ["dog " * 20, "red", "a man runs"]
    table = pooled.encode(texts)
    assert table.cut == 1 and table.pool.tolist() == [8, 3, 5] and pooled.max_tokens == 8
    table.pool[1:] = [6, 4]  # as a tokeniser with longer and shorter captions would
    batch = table.batch([1, 2])
    assert isinstance(batch, PooledTextBatch)
    assert batch.tokens.shape == (2, 6) and batch.mask.sum(1).tolist() == [3, 5]
    assert batch.pool.sum(1).tolist() == [6, 4]
    assert table.content() != own.encode(texts).content()


def test_case_stays_where_it_is_not_forced(tiny_bert: Path, tmp_path: Path) -> None:
    for name in ("config.json", "vocab.txt"):
        (tmp_path / name).write_text((tiny_bert / name).read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false, "tokenizer_class": "BertTokenizer"}')
    cased = CaptionTokenizer(str(tmp_path), 35, lower_case=False).encode(["A dog", "a dog"])
    assert cased.batch([0]).tokens.tolist()[0][1] == 1 != cased.batch([1]).tokens.tolist()[0][1]  # [UNK]
    uncased = CaptionTokenizer(str(tiny_bert), 35, lower_case=False).encode(["A dog", "a dog"])
    assert uncased.batch([0]).tokens.tolist() == uncased.batch([1]).tokens.tolist()


@pytest.mark.parametrize("name", ["multi30k", "vatex"])
def test_real_captions(shared: Path, name: str) -> None:
    root = shared / "data"
    tokenizer = CaptionTokenizer(str(root / "bert-base-multilingual-cased"), 35, lower_case=False)
    languages = ["en", "de" if name == "multi30k" else "zh"]
    reader = LanguageReader.open(locate_languages(root / "VisualSearch", name), 30, "first", languages)
    found = reader.split("test", tokenizer)
    assert len(found.visuals) == 1000 and not found.averaged
    batch = found.visuals.batch([0, 1])
    assert isinstance(batch, ImageBatch if name == "multi30k" else VideoBatch)
    sizes = {"multi30k": {"en": 1000, "de": 1000}, "vatex": {"en": 5000, "zh": 9994}}
    assert found.counts["captions"] == sizes[name]
    if name == "vatex":
        pairs = reader.pairs(tokenizer, 0)
        assert pairs.counts.captions == {"en": 7500, "zh": 7500} and not any(pairs.counts.missing.values())
        assert pairs.starts.tolist() == list(range(0, 7501, 5))
