"""C2KD's objectives: zero-shot and translate-train baselines, and distillation from teachers that read English.

N videos in the batch, n captions in a language, K teachers, D joint-space width. S^l are the student's cosines in
language l, T^k the cosines of teacher k between English captions and videos.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nrccr.data.batch import ENGLISH
from nrccr.losses.contrastive import ContrastiveLoss
from nrccr.losses.matrix_distill import MatrixDistillation
from nrccr.losses.matrix_smooth_l1 import matrix_smooth_l1
from nrccr.losses.similarity import similarity
from nrccr.systems.c2kd.network import MultilingualOutput
from nrccr.systems.c2kd.settings import Distillation, Stage, TeacherPooling
from nrccr.training.task import Player

# True names: the published option "max" ran the minimum, "min" the maximum.
POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "maximum": lambda scores: scores.amax(dim=0),
    "minimum": lambda scores: scores.amin(dim=0),
    "mean": lambda scores: scores.mean(dim=0),
}


@dataclass(frozen=True)
class C2KDLosses:
    """Weights and constants of the objective.

    Attributes:
        stage: which objective.
        temperature: T of the contrastive terms.
        distill_temperature: tau of the distillation.
        balance: lambda, the share of the contrastive terms; the distillation has 1 - lambda.
        pooling: how K matrices become the student's target. `maximum`, `minimum`, `mean`: pooled entry by entry.
            `each`: the sum of a loss for every teacher. `learned_teachers`: these losses with learned weights.
            `learned_pools`: the losses of the three poolings with learned weights. Learned weights are a softmax and
            replace 1 - lambda; nothing holds them off the easiest teacher.
        distillation: `kl`, or `smooth_l1` as an ablation.
    """

    stage: Stage = "distill"
    temperature: float = 0.05
    distill_temperature: float = 0.1
    balance: float = 0.1
    pooling: TeacherPooling = "maximum"
    distillation: Distillation = "kl"


class C2KDObjective(nn.Module):
    """L = lambda NCE'(en) + sum over languages l of lambda NCE(l) + (1 - lambda) KD(l).

    English is among the languages, so its contrast counts twice, once without empty samples (NCE'), and it is distilled
    too. The baselines have weights of one: zero-shot is NCE'(en), translate-train adds NCE(l) of the other languages.

    With learned weights it has one parameter, `mixing`, which learns beside the network, see `mixing` below; otherwise
    none.
    """

    def __init__(self, losses: C2KDLosses, count: int = 0) -> None:
        """Choose the objective.

        Args:
            losses: its constants.
            count: K, how many teachers there will be.

        Raises:
            ValueError: distillation without teachers, or an unknown name.
        """
        super().__init__()
        if losses.stage not in ("zero_shot", "translate_train", "distill"):
            raise ValueError(f"stage is {losses.stage!r}: choose zero_shot, translate_train or distill")
        if losses.pooling not in (*POOLS, "each", "learned_teachers", "learned_pools"):
            raise ValueError(
                f"pooling is {losses.pooling!r}: choose {', '.join(POOLS)}, each, learned_teachers or learned_pools"
            )
        if losses.distillation not in ("kl", "smooth_l1"):
            raise ValueError(f"distillation is {losses.distillation!r}: choose kl or smooth_l1")
        if losses.stage == "distill" and count < 1:
            raise ValueError("distillation needs at least one teacher")
        self.losses = losses
        self.contrast = ContrastiveLoss(losses.temperature)
        self.distill: Callable[[Tensor, Tensor], Tensor] = (
            MatrixDistillation(losses.distill_temperature) if losses.distillation == "kl" else matrix_smooth_l1
        )
        mixed = {"learned_teachers": count, "learned_pools": len(POOLS)}.get(losses.pooling, 0)
        learns = losses.stage == "distill" and mixed
        self.mixing = nn.Parameter(torch.full((mixed,), 0.33)) if learns else None  # published start

    def forward(self, out: MultilingualOutput, teachers: Tensor | None = None) -> dict[str, Tensor]:
        """The losses, weights applied.

        Args:
            out: the student's view of the batch.
            teachers: (K, n, n) of the English captions and their videos, see `teacher_scores`; only distillation needs
                it. A video without an English caption is not distilled.

        Returns:
            Scalars by name; the total is the sum of those that end in `_loss`. Learned weights are shown as `weight_k`.

        Raises:
            ValueError: no English captions, or distillation without teachers.
        """
        if ENGLISH not in out.texts:
            raise ValueError(f"the batch has no captions in {ENGLISH!r}, which every objective needs")
        stage, balance = self.losses.stage, self.losses.balance if self.losses.stage == "distill" else 1.0
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
        return (1 - self.losses.balance) * parts.sum()

    def targets(self, teachers: Tensor) -> Sequence[Tensor]:
        """What the student shall be like: teachers (K, n, n) -> one or more (n, n)."""
        if self.losses.pooling in POOLS:
            return [POOLS[self.losses.pooling](teachers)]
        if self.losses.pooling == "learned_pools":
            return [pool(teachers) for pool in POOLS.values()]
        return list(teachers)


def mixing(objective: C2KDObjective, learning_rate: float) -> dict[str, Player]:
    """The learned weights as a player that learns from the total loss (published rate 0.01); nobody without them."""
    return {} if objective.mixing is None else {"mixing": Player(objective, learning_rate, follows_schedule=True)}


def teacher_scores(embeddings: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
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
    if out.empty is None:
        return scores
    kept = (~out.empty[out.rows[ENGLISH]]).nonzero().squeeze(1)
    return scores[kept][:, kept]


def _of_same_videos(teachers: Tensor, own: Tensor, language: str, out: MultilingualOutput) -> tuple[Tensor, Tensor]:
    """The teachers' scores and a language's own, of the videos that have captions in it and in English."""
    english, rows = out.rows[ENGLISH], out.rows[language]
    if language == ENGLISH:
        return teachers, own
    place = torch.full((len(out.visual),), -1, device=rows.device)  # (N,) of each video among the English captions
    place[english] = torch.arange(len(english), device=rows.device)
    order = place[rows]  # (n,)
    if len(english) < len(out.visual):
        kept = (order >= 0).nonzero().squeeze(1)
        order, own = order[kept], own[kept][:, kept]
    return teachers[:, order][:, :, order], own
