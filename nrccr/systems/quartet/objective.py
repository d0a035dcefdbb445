"""Quartet's objective: one ranking over all languages and views, and the terms that bring languages together.

N captions of the source language in the batch, K target languages, n captions of a language, R captions of all
languages and views, C items and views, D joint-space width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nrccr.config.schema import Config
from nrccr.losses.adversarial import accuracy, discriminator_loss, discriminator_terms, non_saturating_encoder_loss
from nrccr.losses.distill import SimilarityDistillation
from nrccr.losses.feature import FeatureDistillation
from nrccr.losses.multipositive import MultiPositiveContrast
from nrccr.losses.similarity import similarity
from nrccr.losses.triplet import TripletLoss
from nrccr.losses.trust import pair_probability
from nrccr.processes import as_first, gather
from nrccr.systems.quartet.data import BACK
from nrccr.systems.quartet.network import LanguageOutput, QuartetOutput
from nrccr.systems.quartet.settings import QuartetSection


class Trust(nn.Module):
    """How much each translation of the training set is trusted: a moving average over epochs, kept in the state.

    Args:
        languages: the target languages.
        pairs: captions of the source language in the training set.
        momentum: of the average.
        begins: the first epoch, from 1, in which it weighs; before, and for a pair that no step has seen, trust is 1.
    """

    def __init__(self, languages: list[str], pairs: int, momentum: float, begins: int) -> None:
        super().__init__()
        self.momentum = momentum
        self.begins = begins
        self.places = {language: index for index, language in enumerate(languages)}
        self.average: Tensor
        self.register_buffer("average", torch.ones(len(languages), pairs))  # (K, pairs)

    @torch.no_grad()
    def update(self, language: str, pairs: Tensor, probability: Tensor) -> None:
        """Take the probabilities (n,) of the pairs at `pairs` (n,) into the average."""
        probability = as_first(probability.detach().clone())  # the same memory in all processes, to the bit
        own = self.average[self.places[language]]
        own[pairs] = self.momentum * own[pairs] + (1 - self.momentum) * probability

    def weights(self, language: str, pairs: Tensor, epoch: Tensor) -> Tensor:
        """Weights (n,) of these pairs in an epoch (a scalar), their mean 1 over the batch once they weigh."""
        own = self.average[self.places[language]][pairs]
        scaled = own / own.mean().clamp(min=torch.finfo(own.dtype).tiny)
        return torch.where(epoch >= self.begins, scaled, torch.ones_like(scaled))


class QuartetObjective:
    """L = L_rank + w_l L_languages + w_g L_guidance, and with their weights NRCCR's distillations, cycle and adversary.

    A term of weight zero is left out of the sum, and what only it needs out of the network.

    Args:
        config: the run's configuration.
        trust: of the translations; none where all weigh alike.
    """

    def __init__(self, config: Config, trust: Trust | None) -> None:
        self.own = config.section(QuartetSection)
        self.weights = config.loss
        self.trust = trust
        self.contrast = MultiPositiveContrast()
        self.triplet = TripletLoss(config.loss.margin)
        self.guide = SimilarityDistillation(self.own.guidance_temperature, "kl")
        self.distill = SimilarityDistillation(config.loss.temperature, "kl")
        self.feature = FeatureDistillation("smooth_l1")

    def __call__(self, out: QuartetOutput, discriminator: nn.Module | None = None) -> dict[str, Tensor]:
        """The losses, weights applied.

        Args:
            out: the network's output for the batch.
            discriminator: already updated on this batch; none where the adversary's weight is zero.

        Returns:
            Scalars by name; the total is the sum of those that end in `_loss`. `temperature` is that of the contrast.
        """
        own, w = self.own, self.weights
        source, *others = (language for language in out.texts if language != BACK)
        trusted = {language: self._trusted(language, out) for language in others}  # each (n,)
        losses = {"rank_loss": self._rank(out, trusted), "temperature": 1 / out.scale.detach()}
        for language in others:
            text = out.texts[language]
            if not len(text.rows):  # nothing to compare, and a mean of nothing is no number
                continue
            english = out.texts[source].vectors[text.rows]  # (n, D)
            items = out.items[text.rows]
            if own.languages:
                found = self._compare(english, text.vectors, items, out.scale, trusted[language])
                losses[f"languages_{language}_loss"] = own.languages / len(others) * found
            if own.guidance:
                guided = self.guide(english, text.vectors, out.visual[text.rows])
                losses[f"guidance_{language}_loss"] = own.guidance / len(others) * guided
            if w.similarity and language in out.teachers:
                taught = self.distill(out.teachers[language], text.vectors, out.visual[text.rows])
                losses[f"similarity_{language}_loss"] = w.similarity / len(others) * taught
            if w.feature and language in out.teachers:
                losses[f"feature_{language}_loss"] = (
                    w.feature / len(others) * self.feature(out.teachers[language], text.vectors)
                )
        back = out.texts.get(BACK)
        if w.cycle and back is not None and len(back.rows):
            again = out.texts[source].vectors[back.rows]
            losses["cycle_loss"] = w.cycle * self._compare(again, back.vectors, out.items[back.rows], out.scale, None)
        if discriminator is not None:
            losses["adversary_loss"] = w.adversary * self._confuse(out, others, discriminator)
        return losses

    def _rank(self, out: QuartetOutput, trusted: Mapping[str, Tensor]) -> Tensor:
        """Every language's captions and their views against the items and theirs, in one softmax (1-to-K)."""
        texts = {language: text for language, text in out.texts.items() if language != BACK}
        if self.own.ranking == "triplet":
            there = [text for text in texts.values() if len(text.rows)]
            parts = [self.triplet(text.vectors, out.visual[text.rows], _same(out, text)) for text in there]
            return torch.stack([part / len(out.items) for part in parts]).sum()
        rows, items, weights = [], [], []
        for language, text in texts.items():
            weight = trusted.get(language, torch.ones(len(text.rows), device=text.rows.device))
            for vectors in (text.vectors, text.masked):
                if vectors is not None:
                    rows.append(vectors)
                    items.append(out.items[text.rows])
                    weights.append(weight)
        columns = [out.visual] if out.masked_visual is None else [out.visual, out.masked_visual]
        ranked: Tensor = self.contrast(
            similarity(torch.cat(rows), torch.cat(columns)),  # (R, C)
            torch.cat(items),
            out.items.repeat(len(columns)),
            out.scale,
            torch.cat(weights),
        )
        return ranked

    def _compare(self, first: Tensor, second: Tensor, items: Tensor, scale: Tensor, weights: Tensor | None) -> Tensor:
        """Contrast of captions (n, D) with their translations (n, D); captions of one item belong together."""
        if self.own.ranking == "triplet":
            found: Tensor = self.triplet(first, second, items[:, None] == items) / len(items)
        else:
            found = self.contrast(similarity(second, first), items, items, scale, weights)
        return found

    def _trusted(self, language: str, out: QuartetOutput) -> Tensor:
        """The weights (n,) of a language's captions, after the batch's own probabilities are taken into the average."""
        text = out.texts[language]
        rows = text.rows
        if self.trust is None:
            return torch.ones(len(rows), device=rows.device)
        pairs, scores = out.pairs[rows], similarity(text.vectors, out.visual)  # (n, N)
        probability = pair_probability(scores, rows, out.items[rows], out.items, self.own.trust_temperature)
        self.trust.update(language, pairs, probability)
        return self.trust.weights(language, pairs, out.epoch)

    def discriminate(self, out: QuartetOutput, discriminator: nn.Module) -> dict[str, Tensor]:
        """The discriminator's loss on detached backbone states, and how often it is right in both kinds."""
        source, *others = (language for language in out.texts if language != BACK)
        real = _logits(out.texts[source], discriminator, detached=True)
        fake = torch.cat([_logits(out.texts[language], discriminator, detached=True) for language in others])
        if not len(fake):  # no translation in the batch: there is nothing to tell apart
            return {"discriminator_loss": 0 * real.sum()}
        first, second = discriminator_terms(real, fake)
        of_source, of_target = accuracy(real, fake)
        return {
            "discriminator_loss": discriminator_loss(real, fake),
            "discriminator_source": first.detach(),
            "discriminator_target": second.detach(),
            "discriminator_source_accuracy": of_source,
            "discriminator_target_accuracy": of_target,
        }

    def _confuse(self, out: QuartetOutput, others: list[str], discriminator: nn.Module) -> Tensor:
        logits = torch.cat([_logits(out.texts[language], discriminator, detached=False) for language in others])
        return non_saturating_encoder_loss(logits) if len(logits) else logits.sum()


def _same(out: QuartetOutput, text: LanguageOutput) -> Tensor:
    """(n, n), true where two captions are of one item."""
    items = out.items[text.rows]
    return items[:, None] == items


def _logits(text: LanguageOutput, discriminator: nn.Module, *, detached: bool) -> Tensor:
    """The discriminator's logits of a language's captions, those of all processes."""
    states = [part.detach() if detached else part for part in text.states]
    logits = torch.cat([discriminator(part, mask) for part, mask in zip(states, text.mask, strict=True)])
    return gather(logits)[0]
