"""Frozen teachers: precomputed they score as in the loop, and the loss is the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from nrccr.data.languages import locate_languages
from nrccr.data.tokens import CaptionTokenizer, Tokenizer
from nrccr.errors import UserError
from nrccr.losses.similarity import similarity
from nrccr.models.backbone import backbone_config, build_backbone
from nrccr.systems.c2kd.data import LanguagePairs, LanguageReader
from nrccr.systems.c2kd.network import C2KD, PoolMask
from nrccr.systems.c2kd.objective import C2KDObjective
from nrccr.systems.c2kd.settings import C2KDSection
from nrccr.systems.c2kd.teachers import TeachersInLoop, precompute
from nrccr.systems.c2kd.tokens import PooledTokenizer
from nrccr.training.task import total

CPU = torch.device("cpu")
Build = Callable[[int, PoolMask], C2KD]


@pytest.fixture
def build(tiny_bert: Path) -> Build:
    def made(seed: int, pool_mask: PoolMask = "own") -> C2KD:
        torch.manual_seed(seed)
        sizes = {"hidden_size": 32 if seed < 2 else 64, "num_hidden_layers": 1 + seed % 2}
        backbone = build_backbone(backbone_config(str(tiny_bert), sizes), pretrained=None)
        return C2KD(backbone, 16, 10 + 2 * seed, width=8, heads=2, layers=1, pool_mask=pool_mask)

    return made


def read(root: Path, student: Tokenizer, teachers: Sequence[Tokenizer]) -> LanguagePairs:
    reader = LanguageReader.open(locate_languages(root, "multi_msrvtt"), 5, "first")
    return reader.pairs(student, 0, teachers=teachers)


@pytest.mark.parametrize("pool_mask", ["own", "labse"])
def test_precomputed_equals_in_the_loop(
    build: Build, tiny_bert: Path, tiny_languages: Path, pool_mask: PoolMask
) -> None:
    own, short = (CaptionTokenizer(str(tiny_bert), tokens) for tokens in (35, 5))
    tokenizers: list[Tokenizer] = [own, short] if pool_mask == "own" else [PooledTokenizer(short, own)] * 2
    pairs = read(tiny_languages, own, tokenizers)
    networks = [build(seed, pool_mask) for seed in (1, 2)]
    student = build(0, "own").train()
    looped = TeachersInLoop(networks)
    ready = precompute(networks, "ab", pairs, 3, CPU)
    objective = C2KDObjective(C2KDSection(), count=2)
    for epoch in range(4):
        batch = pairs.at_epoch(epoch).batch([3, 5, 0, 9, 7, 1])
        scores = looped(batch)
        n = len(batch.rows["en"])
        assert scores.shape == (2, n, n) and not scores.requires_grad
        torch.testing.assert_close(ready(batch), scores, atol=1e-5, rtol=0)
        for network, matrix, text in zip(networks, scores, batch.taught, strict=True):
            visual = network.embed_visual(batch.visual)[batch.rows["en"]]
            torch.testing.assert_close(similarity(network.embed_text(text), visual), matrix)
        out = student.eval()(batch)
        losses = [total(objective(out, teach(batch))) for teach in (looped, ready)]
        assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-5)
        losses[1].backward()  # ordinary tensors, not those of inference mode
    assert all(not p.requires_grad and p.grad is None for network in networks for p in network.parameters())
    assert not any(network.training for network in networks)


def test_a_batch_without_english_teaches_nothing(build: Build, tiny_bert: Path, tiny_languages: Path) -> None:
    tokenizer = CaptionTokenizer(str(tiny_bert), 35)
    pairs = read(tiny_languages, tokenizer, [tokenizer])
    networks = [build(1, "own")]
    objective = C2KDObjective(C2KDSection(), count=1)
    batch = next(b for epoch in range(20) if not len((b := pairs.at_epoch(epoch).batch([5])).rows["en"]))
    for teach in (TeachersInLoop(networks), precompute(networks, "a", pairs, 3, CPU)):
        assert teach(batch).shape == (1, 0, 0)
        losses = objective(build(0, "own")(batch), teach(batch))
        assert losses["english_loss"] == losses["distill_de_loss"] == 0
        total(losses).backward()


def test_a_teacher_with_nan_is_named(build: Build, tiny_bert: Path, tiny_languages: Path) -> None:
    tokenizer = CaptionTokenizer(str(tiny_bert), 35)
    pairs = read(tiny_languages, tokenizer, [tokenizer])
    network = build(1, "own")
    network.video.cls.data[0] = torch.nan
    with pytest.raises(UserError, match="teacher runs/a: the embedding of train0 and 11 others is not finite"):
        precompute([network], ["runs/a"], pairs, 3, CPU)
