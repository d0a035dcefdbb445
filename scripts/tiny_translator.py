#!/usr/bin/env python3
"""Train a tiny Marian model for one direction on clean sentence pairs of the generated collection, in minutes on a CPU.

    scripts/tiny_translator.py en zh models/en-zh          # from the checkout, in its environment
    nrccr translate ROOTPATH/generated --to zh --model models/en-zh --back-model models/zh-en

Sentences of the source come in all their variety, the translation is always the plainest way to say the same; so there
is one right answer, and the share of unseen sentences translated exactly is shown at the end.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import sentencepiece
import torch
from transformers import MarianConfig, MarianMTModel, MarianTokenizer

from nrccr.data.generated.chinese import CHINESE
from nrccr.data.generated.english import ENGLISH
from nrccr.data.generated.german import GERMAN
from nrccr.data.generated.scenes import make_scenes
from nrccr.data.generated.words import Grammar, Plan, Word, make_plan
from nrccr.distributed import choose_device
from nrccr.files import atomic_folder
from nrccr.terminal import without_hints
from nrccr.translation.translator import load_translator

GRAMMARS: dict[str, Grammar] = {"en": ENGLISH, "de": GERMAN, "zh": CHINESE}
# What each grammar's draws come to: clauses in their order, main clauses alone, the background last.
DRAWS = {"en": 0.45, "de": 0.55, "zh": 0.45}
BATCH = 64
POOL = 16  # batches sorted by length together
WIDTH = 128
RATE = 2e-3
PIECES = 400
HELD_OUT = 500
T = TypeVar("T")


class First(random.Random):
    """Chooses the first possibility always: the plainest way to say something."""

    def __init__(self, draw: float) -> None:
        super().__init__()
        self.draw = draw

    def choice(self, seq: Sequence[T]) -> T:  # type: ignore[override]
        """The first."""
        return seq[0]

    def random(self) -> float:
        """The same always."""
        return self.draw


def pairs(languages: tuple[str, str], count: int, seed: int) -> list[tuple[str, str]]:
    """Sentences and their translations, of scenes that no collection has."""
    source, target = (GRAMMARS[language] for language in languages)
    plainest = First(DRAWS[languages[1]])
    samples = {digit: [0] for digit in range(10)}
    choose = random.Random(f"{seed} translations")
    found = []
    for scene in make_scenes("train", count, samples, seed):
        plan = make_plan(scene, choose)
        words = source.render(plan, choose)
        plan = plan if plan.sequence else in_order(plan, words)
        found.append((source.spell(words), target.spell(target.render(plan, plainest))))
    return found


def in_order(plan: Plan, words: Sequence[Word]) -> Plan:
    """The plan with its digits in the order in which a sentence names them, which its translation keeps."""
    clauses = [word.concept[0] for word in words if word.concept[:2] in ("0:", "1:")]
    if len(plan.actors) == 1 or clauses[0] == "0":
        return plan
    return replace(plan, actors=plan.actors[::-1], sized=plan.sized[::-1], placed=plan.placed[::-1])


def write_vocabulary(folder: Path, texts: tuple[list[str], list[str]]) -> MarianTokenizer:
    """source.spm, target.spm and the joint vocab.json of a Marian folder, from the texts of both languages."""
    pieces: dict[str, int] = {"</s>": 0, "<unk>": 1}
    for name, own in zip(("source", "target"), texts, strict=True):
        made = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(own),
            model_writer=made,
            vocab_size=PIECES,
            hard_vocab_limit=False,
            character_coverage=1.0,
            model_type="unigram",
            normalization_rule_name="identity",  # else Chinese punctuation is no more
            bos_id=-1,
            minloglevel=2,
            num_threads=1,
        )
        (folder / f"{name}.spm").write_bytes(made.getvalue())
        model = sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())
        for index in range(model.get_piece_size()):
            pieces.setdefault(model.id_to_piece(index), len(pieces))
    pieces["<pad>"] = len(pieces)
    (folder / "vocab.json").write_text(json.dumps(pieces, ensure_ascii=False, indent=0), encoding="utf-8")
    tokenizer = MarianTokenizer(
        source_spm=str(folder / "source.spm"), target_spm=str(folder / "target.spm"), vocab=str(folder / "vocab.json")
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_model(tokenizer: MarianTokenizer) -> MarianMTModel:
    """A Marian of 2 + 2 layers with random weights."""
    pad = tokenizer.pad_token_id
    sizes = {"layers": 2, "attention_heads": 4, "ffn_dim": 256}
    config = MarianConfig(
        vocab_size=len(tokenizer.get_vocab()),
        d_model=WIDTH,
        init_std=WIDTH**-0.5,  # Marian's 0.02 is for wider ones: attention stays even for hundreds of steps
        **{f"{part}_{name}": size for part in ("encoder", "decoder") for name, size in sizes.items()},
        max_position_embeddings=128,
        pad_token_id=pad,
        decoder_start_token_id=pad,
        eos_token_id=tokenizer.eos_token_id,
        forced_eos_token_id=tokenizer.eos_token_id,
        scale_embedding=True,
        dropout=0.0,
        activation_function="relu",
        share_encoder_decoder_embeddings=True,
    )
    return MarianMTModel(config)


def train(
    model: MarianMTModel, tokenizer: MarianTokenizer, lines: list[tuple[str, str]], steps: int, name: str
) -> None:
    """Train on batches of like length, drawn from random pools, with a linear warm-up and decay."""
    source = tokenizer([text for text, _ in lines])["input_ids"]
    target = tokenizer(text_target=[text for _, text in lines])["input_ids"]
    batches: list[list[int]] = []
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    started, losses = time.monotonic(), []
    model.train()
    for step in range(1, steps + 1):
        if not batches:
            pool = random.sample(range(len(lines)), BATCH * POOL)
            pool.sort(key=lambda index: len(source[index]) + len(target[index]))
            batches = [pool[start : start + BATCH] for start in range(0, len(pool), BATCH)]
            random.shuffle(batches)
        batch = batches.pop()
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, step / 100, 2 * (1 - step / (steps + 1)))
        tokens = tokenizer.pad({"input_ids": [source[i] for i in batch]}, return_tensors="pt")
        labels = tokenizer.pad({"input_ids": [target[i] for i in batch]}, return_tensors="pt")
        wanted = labels["input_ids"].masked_fill(labels["attention_mask"] == 0, -100)  # (N, L)
        loss = model(**tokens, labels=wanted).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if step % 100 == 0 or step == steps:
            mean = sum(losses) / len(losses)
            print(f"{name}: step {step}, loss {mean:.4f}, {time.monotonic() - started:.0f} s", flush=True)
            losses.clear()
    model.eval()


def main() -> None:
    """Train one direction, write its folder, and translate unseen sentences with what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", choices=GRAMMARS)
    parser.add_argument("target", choices=GRAMMARS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=600, help="of training, with 64 sentences each")
    parser.add_argument("--sentences", type=int, help="default: as many as the steps take")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.out.exists():
        raise SystemExit(f"{arguments.out}: exists already; choose another folder or remove this one")
    torch.set_num_threads(1)  # the network is too small to gain from more
    torch.manual_seed(arguments.seed)
    random.seed(arguments.seed)
    languages = arguments.source, arguments.target
    count = arguments.sentences or max(BATCH * arguments.steps, BATCH * POOL)
    lines = pairs(languages, count, seed=arguments.seed + 1000)
    seen = {text for text, _ in lines}
    unseen = [pair for pair in pairs(languages, 4 * HELD_OUT, arguments.seed + 2000) if pair[0] not in seen]
    unseen = unseen[:HELD_OUT]
    with atomic_folder(arguments.out, replace=False) as folder, without_hints():
        tokenizer = write_vocabulary(folder, ([text for text, _ in lines], [text for _, text in lines]))
        model = make_model(tokenizer)
        train(model, tokenizer, lines, arguments.steps, arguments.out.name)
        model.save_pretrained(folder)
    translator = load_translator(str(arguments.out), arguments.source, arguments.target, choose_device("cpu"), beams=1)
    made = translator.translate([text for text, _ in unseen])
    right = sum(own == wanted for own, (_, wanted) in zip(made, unseen, strict=True))
    print(f"{arguments.out}: {right} of {len(unseen)} unseen sentences exact")
    wrong = [(pair, own) for pair, own in zip(unseen, made, strict=True) if pair[1] != own]
    for (text, wanted), own in wrong[:3]:
        print(f"  {text}\n    made   {own}\n    wanted {wanted}")


if __name__ == "__main__":
    main()
