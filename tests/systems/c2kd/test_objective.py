"""C2KD's objectives: names, weights, poolings, missing captions, weights that learn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from nrccr.losses.contrastive import ContrastiveLoss
from nrccr.losses.matrix_distill import MatrixDistillation
from nrccr.losses.matrix_smooth_l1 import matrix_smooth_l1
from nrccr.systems.c2kd.batch import kept_captions
from nrccr.systems.c2kd.network import MultilingualOutput
from nrccr.systems.c2kd.objective import C2KDObjective, mixing, teacher_scores
from nrccr.systems.c2kd.settings import C2KDSection
from nrccr.training.task import total

COUNT = 6


def unit(rows: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(rows, 5, generator=torch.Generator().manual_seed(seed)), dim=1)


def output(rows: dict[str, list[int]] | None = None, empty: Tensor | None = None) -> MultilingualOutput:
    """English, German and Chinese captions of six videos; `rows` says which videos have one."""
    chosen = {language: torch.arange(COUNT) for language in ("en", "de", "zh")}
    chosen |= {language: torch.tensor(own, dtype=torch.long) for language, own in (rows or {}).items()}
    texts = {language: unit(COUNT, seed)[chosen[language]] for seed, language in enumerate(chosen)}
    return MultilingualOutput(texts, chosen, unit(COUNT, 9), kept_captions(chosen, empty))


@pytest.fixture
def teachers() -> Tensor:
    return teacher_scores([(unit(COUNT, 10 + k), unit(COUNT, 20 + k)) for k in range(3)])


def make(**changed: Any) -> C2KDObjective:
    return C2KDObjective(C2KDSection(**({"temperature": 0.2, "balance": 0.3} | changed)), count=3)


def test_zero_shot_is_the_english_contrast_alone() -> None:
    out = output()
    losses = make(stage="zero_shot")(out)
    assert list(losses) == ["english_loss"]
    torch.testing.assert_close(total(losses), ContrastiveLoss(0.2)(out.texts["en"] @ out.visual.T))


def test_translate_train_adds_the_other_languages() -> None:
    out = output()
    losses = make(stage="translate_train")(out)
    assert list(losses) == ["english_loss", "contrastive_de_loss", "contrastive_zh_loss"]
    wanted = sum(ContrastiveLoss(0.2)(text @ out.visual.T) for text in out.texts.values())
    torch.testing.assert_close(total(losses), wanted)


@pytest.mark.parametrize("distillation", ["kl", "smooth_l1"])
def test_distillation_is_the_papers_sum(teachers: Tensor, distillation: str) -> None:
    out = output(empty=torch.tensor([False, True, False, False, False, False]))
    losses = make(distillation=distillation, pooling="maximum", distill_temperature=0.4)(out, teachers)
    contrast, kept = ContrastiveLoss(0.2), [0, 2, 3, 4, 5]
    distill = MatrixDistillation(0.4) if distillation == "kl" else matrix_smooth_l1
    scores = {language: text @ out.visual.T for language, text in out.texts.items()}
    wanted = {"english_loss": 0.3 * contrast(scores["en"][kept][:, kept])}
    for language, own in scores.items():
        wanted[f"contrastive_{language}_loss"] = 0.3 * contrast(own)
        wanted[f"distill_{language}_loss"] = 0.7 * distill(teachers.max(dim=0).values, own)
    assert losses.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(losses[name], value, msg=name)


def test_poolings_have_the_names_of_what_they_compute(teachers: Tensor) -> None:
    for name, wanted in (
        ("maximum", teachers.max(dim=0).values),
        ("minimum", teachers.min(dim=0).values),
        ("mean", sum(teachers) / 3),
    ):
        (pooled,) = make(pooling=name).targets(teachers)
        torch.testing.assert_close(pooled, wanted)


def test_a_loss_for_each_teacher(teachers: Tensor) -> None:
    own = unit(COUNT, 1) @ unit(COUNT, 2).T
    each = [make(pooling="mean").distilled(teacher[None], own) for teacher in teachers]
    torch.testing.assert_close(make(pooling="each").distilled(teachers, own), torch.stack(each).sum())
    # Learned weights start equal, and replace 1 - lambda.
    torch.testing.assert_close(make(pooling="learned_teachers").distilled(teachers, own), sum(each) / 3 / 0.7)
    pools = [make(pooling=name).distilled(teachers, own) for name in ("maximum", "minimum", "mean")]
    torch.testing.assert_close(make(pooling="learned_pools").distilled(teachers, own), sum(pools) / 3 / 0.7)


@pytest.mark.parametrize("kind", ["learned_teachers", "learned_pools"])
@pytest.mark.parametrize("distillation", ["kl", "smooth_l1"])
def test_learned_weights_learn(teachers: Tensor, kind: str, distillation: str) -> None:
    objective, out = make(pooling=kind, distillation=distillation), output()
    assert objective.mixing is not None
    parts = torch.stack(
        [objective.distill(target, unit(COUNT, 0) @ out.visual.T) for target in objective.targets(teachers)]
    )
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.01)
    first = total(objective(out, teachers)).item()
    for _ in range(30):
        optimizer.zero_grad()
        objective.distilled(teachers, out.texts["en"] @ out.visual.T).backward()
        optimizer.step()
    weights = objective.mixing.softmax(dim=0)
    assert weights.argmax() == parts.argmin() and weights.max() > 1 / 3 + 0.01
    assert total(objective(out, teachers)).item() != first


@pytest.mark.parametrize("kind", ["maximum", "minimum", "mean", "each"])
def test_other_objectives_have_nothing_to_learn(kind: str) -> None:
    assert not list(make(pooling=kind).parameters())
    assert not list(make(pooling="learned_teachers", stage="translate_train").parameters())
    assert mixing(make(pooling=kind), 0.01) == {}


def test_learned_weights_play_with_the_network_and_follow_its_schedule() -> None:
    objective = make(pooling="learned_teachers")
    (player,) = mixing(objective, 0.01).values()
    assert player.module is objective and player.losses is None
    assert (player.learning_rate, player.follows_schedule) == (0.01, True)


def test_a_missing_caption_is_left_out_of_its_language_only(teachers: Tensor) -> None:
    whole = make()(output(), teachers)
    losses = make()(output({"de": [5, 0, 3]}), teachers)
    for name in whole.keys() - {"contrastive_de_loss", "distill_de_loss"}:
        torch.testing.assert_close(losses[name], whole[name], msg=name)
    rows = [5, 0, 3]
    own = (unit(COUNT, 1) @ unit(COUNT, 9).T)[rows][:, rows]
    pooled = teachers.amax(dim=0)[rows][:, rows]
    torch.testing.assert_close(losses["contrastive_de_loss"], 0.3 * ContrastiveLoss(0.2)(own))
    torch.testing.assert_close(losses["distill_de_loss"], 0.7 * MatrixDistillation(0.1)(pooled, own))


def test_a_video_without_english_is_not_distilled(teachers: Tensor) -> None:
    english, german = [4, 1, 0], [0, 2, 4]  # videos 0 and 4 have both
    of_english = teachers[:, english][:, :, english]
    losses = make()(output({"en": english, "de": german}), of_english)
    own = unit(COUNT, 1) @ unit(COUNT, 9).T
    both = [0, 4]
    wanted = MatrixDistillation(0.1)(teachers.amax(dim=0)[both][:, both], own[both][:, both])
    torch.testing.assert_close(losses["distill_de_loss"], 0.7 * wanted)
    torch.testing.assert_close(losses["contrastive_de_loss"], 0.3 * ContrastiveLoss(0.2)(own[german][:, german]))


def test_a_language_that_no_video_has_adds_nothing(teachers: Tensor) -> None:
    losses = make()(output({"zh": []}), teachers)
    assert losses["contrastive_zh_loss"] == 0 and losses["distill_zh_loss"] == 0 and total(losses).isfinite()


def test_everything_empty_is_zero_and_no_nan(teachers: Tensor) -> None:
    losses = make()(output(empty=torch.ones(COUNT, dtype=torch.bool)), teachers)
    assert losses["english_loss"] == 0 and losses["contrastive_en_loss"] > 0


def test_teachers_of_other_widths_and_without_gradient() -> None:
    wide = F.normalize(torch.randn(COUNT, 8), dim=1).requires_grad_()
    scores = teacher_scores([(unit(COUNT, 1), unit(COUNT, 2)), (wide, wide)])
    assert scores.shape == (2, COUNT, COUNT) and not scores.requires_grad
    torch.testing.assert_close(scores[1].diagonal(), torch.ones(COUNT))


def test_distillation_needs_teachers_and_english(teachers: Tensor) -> None:
    with pytest.raises(ValueError, match="at least one teacher"):
        C2KDObjective(C2KDSection(), count=0)
    with pytest.raises(ValueError, match="needs the teachers' scores"):
        make()(output())
    out = output()
    german = MultilingualOutput({"de": out.texts["de"]}, {"de": out.rows["de"]}, out.visual)
    with pytest.raises(ValueError, match="no captions in 'en'"):
        make()(german, teachers)
