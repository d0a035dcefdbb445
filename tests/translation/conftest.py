"""Models with random weights: nothing that they say means anything, but they say it again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import M2M100Config, M2M100ForConditionalGeneration, M2M100Tokenizer, MarianMTModel, NllbTokenizer

from scripts.tiny_translator import make_model, pairs, write_vocabulary


@pytest.fixture(scope="session")
def marian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a Marian model, as published ones are, made by the script of the demonstration."""
    folder = tmp_path_factory.mktemp("marian") / "opus-tiny"
    folder.mkdir()
    lines = pairs(("en", "de"), 300, seed=0)
    tokenizer = write_vocabulary(folder, ([text for text, _ in lines], [text for _, text in lines]))
    torch.manual_seed(0)
    model = make_model(tokenizer)
    _loosen(model)
    model.save_pretrained(folder)
    return folder


def _loosen(model: MarianMTModel) -> None:
    """Random weights of larger scale: the answer then depends on the text, and ends at different lengths."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "embed_positions" not in name:
                weight.mul_(6.0)


def _m2m(size: int, tokenizer: NllbTokenizer | M2M100Tokenizer) -> M2M100ForConditionalGeneration:
    torch.manual_seed(0)
    sizes = {"layers": 1, "attention_heads": 2, "ffn_dim": 32}
    config = M2M100Config(
        vocab_size=size,
        d_model=32,
        **{f"{part}_{name}": own for part in ("encoder", "decoder") for name, own in sizes.items()},
        max_position_embeddings=64,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
    )
    return M2M100ForConditionalGeneration(config)


@pytest.fixture(scope="session")
def nllb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an NLLB model."""
    folder = tmp_path_factory.mktemp("nllb")
    letters = [f"▁{letter}" for letter in "abcdefgh"] + list("abcdefgh")
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *letters]
    tokenizer = NllbTokenizer(vocab={piece: index for index, piece in enumerate(pieces)}, merges=[])
    tokenizer.save_pretrained(folder)
    _m2m(len(tokenizer), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def m2m(tmp_path_factory: pytest.TempPathFactory, marian: Path) -> Path:
    """Folder of an M2M100 model."""
    folder = tmp_path_factory.mktemp("m2m")
    pieces = json.loads((marian / "vocab.json").read_text(encoding="utf-8"))
    vocabulary = {piece: index for index, piece in enumerate(["<s>", "<pad>", "</s>", "<unk>"])}
    for piece in pieces:
        vocabulary.setdefault(piece, len(vocabulary))
    (folder / "pieces.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    tokenizer = M2M100Tokenizer(str(folder / "pieces.json"), str(marian / "source.spm"))
    tokenizer.save_pretrained(folder)
    _m2m(max(tokenizer.lang_token_to_id.values()) + 1, tokenizer).save_pretrained(folder)
    return folder
