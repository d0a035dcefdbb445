"""C2KD's objectives: zero-shot and translate-train baselines, and distillation from teachers that read English.

N videos in the batch, n captions in a language, K teachers, D joint-space width. S^l are the student's cosines in
language l, T^k the cosines of teacher k between English captions and videos.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from nrccr.data.batch import ENGLISH
from nrccr.losses.contrastive import ContrastiveLoss
from nrccr.losses.matrix_distill import MatrixDistillation
from nrccr.losses.matrix_smooth_l1 import matrix_smooth_l1
from nrccr.losses.similarity import similarity
from nrccr.systems.c2kd.network import MultilingualOutput
from nrccr.systems.c2kd.settings import C2KDSection
from nrccr.training.task import Player

# True names: the published option "max" ran the minimum, "min" the maximum.
POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "maximum": lambda scores: scores.amax(dim=0),
    "minimum": lambda scores: scores.amin(dim=0),
    "mean": lambda scores: scores.mean(dim=0),
}


class C2KDObjective(nn.Module):
    """L = lambda NCE'(en) + sum over languages l of lambda NCE(l) + (1 - lambda) KD(l).

    English is among the languages, so its contrast counts twice, once without empty samples (NCE'), and it is distilled
    too. The baselines have weights of one: zero-shot is NCE'(en), translate-train adds NCE(l) of the other languages.

    The K score matrices of the teachers become the student's distillation targets by `c2kd.pooling`: `maximum`,
    `minimum`, `mean` pool them entry by entry; `each` adds up a loss for every teacher; `learned_teachers` weights
    these losses, `learned_pools` those of the three poolings. Learned weights are a softmax of the one parameter
    `mixing`, see the function `mixing`, and replace 1 - lambda; nothing holds them off the easiest teacher.
    """

    def __init__(self, settings: C2KDSection, count: int = 0) -> None:
        """Choose the objective.

        Args:
            settings: its constants: `balance` is lambda, `temperature` T of the contrastive terms and
                `distill_temperature` tau of the distillation, which is `kl` or, as an ablation, `smooth_l1`.
            count: K, the number of teachers.

        Raises:
            ValueError: distillation without teachers.
        """
        super().__init__()
        if settings.stage == "distill" and count < 1:
            raise ValueError("distillation needs at least one teacher")
        self.settings = settings
        self.contrast = ContrastiveLoss(settings.temperature)
        self.distill: Callable[[Tensor, Tensor], Tensor] = (
            MatrixDistillation(settings.distill_temperature) if settings.distillation == "kl" else matrix_smooth_l1
        )
        mixed = {"learned_teachers": count, "learned_pools": len(POOLS)}.get(settings.pooling, 0)
        learns = settings.stage == "distill" and mixed
        self.mixing = nn.Parameter(torch.full((mixed,), 0.33)) if learns else None  # published start

    def forward(self, out: MultilingualOutput, teachers: Tensor | None = None) -> dict[str, Tensor]:
        """The losses, weights applied.

        Args:
            out: the student's output for the batch.
            teachers: (K, n, n) of the English captions and their videos, see `teacher_scores`; only distillation needs
                it. A video without an English caption is not distilled.

        Returns:
            Scalars by name; the total is the sum of those that end in `_loss`. Learned weights are `weight_k`.

        Raises:
            ValueError: no English captions, or distillation without teachers.
        """
        if ENGLISH not in out.texts:
            raise ValueError(f"the batch has no captions in {ENGLISH!r}, which every objective needs")
        stage, balance = self.settings.stage, self.settings.balance if self.settings.stage == "distill" else 1.0
        scores = {  # each (n, n)
            language: similarity(text, out.visual[out.rows[language]]) for language, text in out.texts.items()
        }
        losses = {"english_loss": balance * self.contrast(_without_empty(scores[ENGLISH], out))}
        if stage == "translate_train":
            others = (language for language in scores if language != ENGLISH)
            return losses | {f"contrastive_{language}_loss": self.contrast(scores[language]) for language in others}
        if stage == "distill":
            if teachers is None:
                raise ValueError("distillation needs the teachers' scores")
            for language, own in scores.items():
                losses[f"contrastive_{language}_loss"] = balance * self.contrast(own)
                losses[f"distill_{language}_loss"] = self.distilled(*_of_same_videos(teachers, own, language, out))
            if self.mixing is not None:
                losses |= {f"weight_{index}": share for index, share in enumerate(self.mixing.detach().softmax(dim=0))}
        return losses

    def distilled(self, teachers: Tensor, student: Tensor) -> Tensor:
        """The distillation of one language, weight applied: teachers (K, n, n), student (n, n) -> scalar."""
        targets = self.targets(teachers)
        parts = torch.stack([self.distill(target, student) for target in targets])  # (number of targets,)
        if self.mixing is not None:
            return (self.mixing.softmax(dim=0) * parts).sum()
        return (1 - self.settings.balance) * parts.sum()

    def targets(self, teachers: Tensor) -> Sequence[Tensor]:
        """Distillation targets of the student: teachers (K, n, n) -> one or more (n, n)."""
        if self.settings.pooling in POOLS:
            return [POOLS[self.settings.pooling](teachers)]
        if self.settings.pooling == "learned_pools":
            return [pool(teachers) for pool in POOLS.values()]
        return list(teachers)


def mixing(objective: C2KDObjective, learning_rate: float) -> dict[str, Player]:
    """The learned weights as a player that learns from the total loss (published rate 0.01); none without them."""
    return {} if objective.mixing is None else {"mixing": Player(objective, learning_rate, follows_schedule=True)}


def teacher_scores(embeddings: Sequence[tuple[Tensor, ...]]) -> Tensor:
    """The teachers' scores of a batch, from embeddings computed now or once for the whole training set.

    Args:
        embeddings: for each teacher its English captions and their videos, both (n, D) of unit length, D its own.

    Returns:
        (K, n, n), row = caption, without gradient.
    """
    with torch.no_grad():
        return torch.stack([similarity(text, visual) for text, visual in embeddings])


def _without_empty(scores: Tensor, out: MultilingualOutput) -> Tensor:
    """English scores (n, n) without the rows and columns of samples that are empty."""
    kept = out.kept.get(ENGLISH)
    return scores if kept is None else scores[kept][:, kept]


def _of_same_videos(teachers: Tensor, own: Tensor, language: str, out: MultilingualOutput) -> tuple[Tensor, Tensor]:
    """The teachers' scores and a language's own, of the videos that have captions in it and in English."""
    if language == ENGLISH:
        return teachers, own
    english, rows, kept = out.rows[ENGLISH], out.rows[language], out.kept.get(language)
    place = rows.new_zeros(len(out.visual))  # (N,) of each video among the English captions, if it has one
    place[english] = torch.arange(len(english), device=rows.device)
    if kept is not None:
        rows, own = rows[kept], own[kept][:, kept]
    order = place[rows]  # (n,)
    return teachers[:, order][:, :, order], own
