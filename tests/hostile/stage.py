"""One of every file that nrccr reads, small, in one folder: what `damage.py` damages."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from transformers import AutoTokenizer, BertModel, CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

import nrccr
from nrccr.systems.nrccr.network import build_discriminator
from tests.systems.nrccr.test_published import DISCRIMINATOR, MAPPING, TEXT, VISUAL, in_their_names, options

CLIP = {
    "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 128,
    "image_size": 32, "patch_size": 8, "projection_dim": 24,
}  # fmt: skip
SMALL = {
    "text": {"width": 32, "heads": 4, "backbone": {"hidden_size": 32, "intermediate_size": 64}},
    "visual": {"width": 32},
    "joint": {"width": 24},
    "train": {"batch_size": 8, "epochs": 2, "log_every": 2},
    "evaluation": {"batch_size": 5},
}


def write_encoders(stage: Path) -> None:
    """Encoders with weights: `bert` as published lately, `older` as in earlier years, `clip`; `pieces` has none."""
    torch.manual_seed(0)
    bert, older = stage / "bert", stage / "older"
    network = BertModel.from_config_file(bert) if hasattr(BertModel, "from_config_file") else _bert(bert)
    shutil.copytree(bert, older)
    network.save_pretrained(bert)
    torch.save(network.state_dict(), older / "pytorch_model.bin")
    AutoTokenizer.from_pretrained(bert).save_pretrained(older)
    (older / "vocab.txt").unlink(missing_ok=True)
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    (older / "special_tokens_map.json").write_text(json.dumps(special | {"mask_token": "[MASK]"}))
    CLIPVisionModelWithProjection(CLIPVisionConfig(**CLIP)).save_pretrained(stage / "clip")
    size = {"height": 32, "width": 32}
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size).save_pretrained(stage / "clip")


def _bert(folder: Path) -> BertModel:
    from transformers import BertConfig

    return BertModel(BertConfig.from_pretrained(folder))


def write_pieces(folder: Path) -> None:
    """An XLM-R with a SentencePiece model, without weights."""
    import sentencepiece

    folder.mkdir()
    words = folder / "words.txt"
    words.write_text("a man sings\nred dog in water\n人女狗跑唱红球水的在\n" * 20, encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(words),
        model_prefix=str(folder / "made"),
        vocab_size=40,
        model_type="unigram",
        minloglevel=2,
        hard_vocab_limit=False,
    )
    (folder / "made.model").rename(folder / "sentencepiece.bpe.model")
    for path in (words, folder / "made.vocab"):
        path.unlink()
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    rest = {"model_type": "xlm-roberta", "vocab_size": 60, "max_position_embeddings": 66, "pad_token_id": 1}
    (folder / "config.json").write_text(json.dumps(sizes | rest))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')


def write_published(stage: Path) -> None:
    """A published checkpoint with the weights of the run."""
    network: Any = nrccr.load(stage / "run").network
    discriminator = build_discriminator(nrccr.load(stage / "run").config, 32)
    assert discriminator is not None
    parts = [
        in_their_names(network.visual, VISUAL),
        in_their_names(network.text, TEXT),
        in_their_names(network.map_visual, MAPPING),
        in_their_names(network.map_text, MAPPING),
        in_their_names(discriminator, DISCRIMINATOR),
    ]
    (stage / "published").mkdir()
    content = {"epoch": 3, "best_rsum": 10.5, "Eiters": 7, "model": parts}
    opt = options(text_num_attention=4, video_num_attention=4, disc_type="weak")
    torch.save(content | {"opt": opt}, stage / "published" / "model_best.pth.tar")


def write_scores(folder: Path) -> None:
    """Scores with a bank and a mask, and a pickle as C2KD publishes its data."""
    values = np.random.default_rng(0)
    (folder / "qb").mkdir()
    np.save(folder / "qb" / "scores.npy", values.standard_normal((16, 8)).astype(np.float32))
    np.savez(folder / "qb" / "bank.npz", scores=values.standard_normal((12, 8)).astype(np.float32))
    (folder / "qb" / "mask.pkl").write_bytes(pickle.dumps(values.random((8, 2)) < 0.9))
    records = [
        {
            "id": f"video{index}",
            "2d": values.standard_normal((2, 4)).astype(np.float32),
            "caption_en": ["A dog.", "A ball."],
            "caption_de": ["Ein Hund.", "Ein Ball."],
        }
        for index in range(4)
    ]
    (folder / "pickles").mkdir()
    (folder / "pickles" / "msrvtt_train_multilingual.pkl").write_bytes(pickle.dumps(records))


def write_configurations(stage: Path, configs: Path, tiny: Path) -> None:
    """`tiny.yaml` of videos, `vectors.yaml` and `pictures.yaml` of images."""
    values = yaml.safe_load(tiny.read_text())
    values["text"]["model"] = str(stage / "bert")
    (stage / "tiny.yaml").write_text(yaml.safe_dump(values))
    images = {"extends": str(configs / "nrccr" / "multi30k-small.yaml"), **SMALL}
    images["text"] = SMALL["text"] | {"model": str(stage / "bert")}
    (stage / "vectors.yaml").write_text(yaml.safe_dump(images))
    images["visual"] = SMALL["visual"] | {"kind": "clip"}
    images["image"] = {"model": str(stage / "clip"), "cache": str(stage / "cache")}
    (stage / "pictures.yaml").write_text(yaml.safe_dump(images))
