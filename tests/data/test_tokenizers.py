"""Tokenisers of each kind of backbone: their own ids, lower-casing, special tokens that are typed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast

from nrccr.config.names import find_config
from nrccr.data.tokens import CaptionTokenizer
from nrccr.errors import UserError
from nrccr.systems.base import system_of
from nrccr.systems.quartet.settings import VARIANTS
from nrccr.systems.settings import load_config

TEXTS = ["A man RUNS.", "ein Hund läuft in Wasser", "狗在水里跑", "人唱 a song", "Der Mann, die Frau"]
SIZES = {
    "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8,
    "max_position_embeddings": 64, "vocab_size": 400,
}  # fmt: skip
BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
XLM_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def write_config(folder: Path, kind: str) -> None:
    pad = 1 if "roberta" in kind else 0
    (folder / "config.json").write_text(json.dumps({"model_type": kind, "pad_token_id": pad, **SIZES}))


def word_piece(folder: Path, kind: str) -> None:
    """vocab.txt alone, as BERT and DistilBERT are published."""
    letters = sorted({letter for text in TEXTS for letter in text + text.lower() if letter != " "} | set("<>/[]masku"))
    words = [*letters, *(f"##{letter}" for letter in letters), "man", "runs", "hund"]
    folder.joinpath("vocab.txt").write_text("\n".join([*BERT_SPECIAL, *words]) + "\n", encoding="utf-8")
    name = "DistilBertTokenizer" if kind == "distilbert" else "BertTokenizer"
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False, "tokenizer_class": name}))
    write_config(folder, kind)


def unigram(folder: Path, kind: str) -> None:
    """tokenizer.json of XLM-R's kind: special tokens are pieces of the vocabulary."""
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.train_from_iterator(
        [*TEXTS, *(text.lower() for text in TEXTS), "< > / mask [ ] s"] * 3,
        trainers.UnigramTrainer(vocab_size=150, special_tokens=XLM_SPECIAL, unk_token="<unk>"),
    )
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>", pad_token="<pad>",
        unk_token="<unk>", mask_token="<mask>",
    ).save_pretrained(folder)  # fmt: skip
    write_config(folder, kind)


def byte_pairs(folder: Path, kind: str) -> None:
    """tokenizer.json of RoBERTa's kind."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=300, special_tokens=XLM_SPECIAL, initial_alphabet=alphabet)
    )
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>", pad_token="<pad>",
        unk_token="<unk>", mask_token="<mask>",
    ).save_pretrained(folder)  # fmt: skip
    write_config(folder, kind)


KINDS: dict[str, tuple[Callable[[Path, str], None], str, str]] = {
    "BERT": (word_piece, "bert", "WordPiece"),
    "DistilBERT": (word_piece, "distilbert", "WordPiece"),
    "BERT with XLM-R's vocabulary": (unigram, "bert", "Unigram"),
    "XLM-R": (unigram, "xlm-roberta", "Unigram"),
    "mDeBERTa": (unigram, "deberta-v2", "Unigram"),
    "RoBERTa": (byte_pairs, "roberta", "BPE"),
    "ModernBERT": (byte_pairs, "modernbert", "BPE"),
}


@pytest.fixture(params=KINDS)
def made(request: Any, tmp_path: Path) -> tuple[str, str, Path]:
    """Name, algorithm and folder of a backbone's configuration and tokeniser."""
    write, kind, algorithm = KINDS[request.param]
    write(tmp_path, kind)
    return request.param, algorithm, tmp_path


def rows(tokenizer: CaptionTokenizer, texts: list[str]) -> list[list[int]]:
    table = tokenizer.encode(texts)
    return [table.batch([index]).tokens[0].tolist() for index in range(len(texts))]


def test_ids_are_those_of_the_folders_own_tokeniser(made: tuple[str, str, Path]) -> None:
    name, algorithm, folder = made
    own = AutoTokenizer.from_pretrained(folder)
    published, lower = (CaptionTokenizer(str(folder), 60, lower_case=lower_case) for lower_case in (False, True))
    assert rows(published, TEXTS) == own(TEXTS)["input_ids"]
    assert published.describe() == {"kind": algorithm, "lower_case": "as published", "vocabulary": len(own)}
    if name == "BERT":  # the published recipe, which strips accents too
        own = BertTokenizer.from_pretrained(folder, do_lower_case=True)
        assert lower.describe()["lower_case"] == "by the tokeniser, without accents"
    else:
        assert lower.describe()["lower_case"] == "of the text"
    expected = own([text.lower() for text in TEXTS])["input_ids"]
    assert rows(lower, TEXTS) == expected != rows(published, TEXTS)


def test_captions_fill_the_positions_that_a_backbone_has(made: tuple[str, str, Path]) -> None:
    name, _, folder = made
    positions = 62 if name in ("RoBERTa", "XLM-R") else 64  # these begin after the padding id, 1
    tokenizer = CaptionTokenizer(str(folder), 250)
    table = tokenizer.encode(["狗" * 100])
    assert tokenizer.max_tokens == positions == table.lengths[0] and table.words.tolist() == [positions - 2]


@pytest.mark.parametrize("lower_case", [False, True])
def test_pieces_are_cut_as_the_ids_are(made: tuple[str, str, Path], lower_case: bool) -> None:
    name, _, folder = made
    tokenizer = CaptionTokenizer(str(folder), 60, lower_case=lower_case)
    for text in TEXTS:
        found = tokenizer.pieces(text)
        assert found.text == (text.lower() if lower_case and name != "BERT" else text)
        assert len(found.spans) == len(found.units) == tokenizer.encode([text]).lengths[0]


def test_saved_files_give_the_same_ids(made: tuple[str, str, Path], tmp_path_factory: pytest.TempPathFactory) -> None:
    _, _, folder = made
    other = tmp_path_factory.mktemp("run")
    tokenizer = CaptionTokenizer(str(folder), 60)
    tokenizer.config.save_pretrained(other)
    tokenizer.save(other)
    again = CaptionTokenizer(str(other), 60)
    assert rows(again, TEXTS) == rows(tokenizer, TEXTS) and again.describe() == tokenizer.describe()


@pytest.mark.parametrize("lower_case", [False, True])
def test_typed_special_tokens_stay_text(made: tuple[str, str, Path], lower_case: bool) -> None:
    _, _, folder = made
    tokenizer = CaptionTokenizer(str(folder), 60, lower_case=lower_case)
    special = set(tokenizer.tokenizer.all_special_ids) - {tokenizer.tokenizer.unk_token_id}
    wide = "a \uff1cmask\uff1e"  # NFKC makes it the mask
    typed = [f"a {word} man" for word in (*BERT_SPECIAL, *XLM_SPECIAL, "<MASK>", "[mask]")] + ["<mask>", wide]
    for row, text in zip(rows(tokenizer, typed), typed, strict=True):
        assert not special & set(row[1:-1]), text
        assert len(row) > 3, text


def test_a_folder_that_names_no_class_is_read_by_its_own_file(tmp_path: Path) -> None:
    unigram(tmp_path, "bert")
    expected = rows(CaptionTokenizer(str(tmp_path), 60), TEXTS)
    (tmp_path / "tokenizer_config.json").unlink()
    tokenizer = CaptionTokenizer(str(tmp_path), 60)
    assert tokenizer.describe()["kind"] == "Unigram" and rows(tokenizer, TEXTS) == expected


def test_a_word_piece_of_a_general_class_is_lower_cased_too(tmp_path: Path) -> None:
    word_piece(tmp_path, "bert")
    expected = rows(CaptionTokenizer(str(tmp_path), 60), TEXTS)
    AutoTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    (tmp_path / "vocab.txt").unlink()
    assert rows(CaptionTokenizer(str(tmp_path), 60), TEXTS) == expected


def test_a_vocabulary_larger_than_the_table_is_refused(tiny_bert: Path) -> None:
    tokenizer = CaptionTokenizer(str(tiny_bert), 60)
    words = len(tokenizer.tokenizer)
    tokenizer.require_table(words)
    with pytest.raises(UserError, match=rf"a vocabulary of {words}, its table of word embeddings {words - 1} rows"):
        tokenizer.require_table(words - 1)


def test_a_vocabulary_much_smaller_than_the_table_is_told(tiny_bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = CaptionTokenizer(str(tiny_bert), 60)
    words = len(tokenizer.tokenizer)
    tokenizer.require_table(words + 2)  # rounded up
    assert capsys.readouterr().out == ""
    tokenizer.require_table(2 * words)
    said = f"a vocabulary of {words}, its table of word embeddings {2 * words} rows; is the vocabulary whole?"
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("content", ["{", '{"version": "1.0", "model": {"type": "Unigram", "vocab": 3}}', "[]"])
def test_a_damaged_tokeniser_is_one_line(content: str, tmp_path: Path) -> None:
    unigram(tmp_path, "bert")
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match=r"text\.model=.*no tokeniser there") as caught:
        CaptionTokenizer(str(tmp_path), 60)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("xlm-roberta", "sentencepiece.bpe.model"), ("deberta-v2", "spm.model"), ("albert", "spiece.model")],
)
def test_a_missing_sentencepiece_names_its_extra(
    kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    write_config(tmp_path, kind)
    (tmp_path / name).write_bytes(b"pieces")
    with pytest.raises(UserError, match=r"text\.model=.*sentencepiece is not installed.*setup\.sh translate") as caught:
        CaptionTokenizer(str(tmp_path), 60)
    assert "\n" not in str(caught.value)
    unigram(tmp_path, kind)  # with a tokenizer.json nothing is missing
    CaptionTokenizer(str(tmp_path), 60)


def test_masked_views_and_word_vectors_want_two_special_tokens(tmp_path: Path, tiny_collection: Path) -> None:
    unigram(tmp_path, "bert")
    CaptionTokenizer(str(tmp_path), 20).require_ends()
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text("utf-8"))
    ends = content["post_processor"]["single"]
    content["post_processor"]["single"] = [ends[1], ends[2], ends[0]]  # both at the end, as mBART has them
    path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(UserError, match="a special token before a caption and one after it"):
        CaptionTokenizer(str(tmp_path), 20).require_ends()
    path.write_text(json.dumps(content | {"post_processor": None}), "utf-8")
    only_views = [*VARIANTS["no-words"], "quartet.views=true"]
    for name, more in (("mlcmr/vatex-small", []), ("quartet/vatex-small", []), ("quartet/vatex-small", only_views)):
        config = load_config(find_config(Path(name)), [f"text.model={tmp_path}", *more])
        with pytest.raises(UserError, match="a special token before a caption and one after it"):
            system_of(config.model).task(config, tiny_collection, torch.device("cpu"), test=False)
