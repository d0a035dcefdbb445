"""Each term of Quartet's objective against the loss that it is made of, weights and pairs written out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from nrccr.losses.distill import SimilarityDistillation
from nrccr.losses.feature import FeatureDistillation
from nrccr.losses.multipositive import MultiPositiveContrast
from nrccr.losses.triplet import TripletLoss
from nrccr.losses.trust import pair_probability
from nrccr.systems.quartet.data import BACK
from nrccr.systems.quartet.network import LanguageOutput, QuartetOutput
from nrccr.systems.quartet.objective import Trust
from tests.systems.quartet.test_objective import objective, output, unit

CONTRAST = MultiPositiveContrast()
TARGETS = {"de": [0, 1, 2, 3], "zh": [1, 3]}
ALL = ("quartet.pooling=attention", "loss.similarity=0.4", "loss.feature=0.1", "loss.cycle=0.5", "loss.adversary=0.01",
       "loss.temperature=0.2")  # fmt: skip
NO_TRUST = ("quartet.trust=false", "quartet.languages=0.6")


class FirstState(nn.Module):
    """A discriminator of a caption's first state."""

    def __init__(self) -> None:
        super().__init__()
        self.classify = nn.Linear(8, 2)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = self.classify(states[:, 0])
        return logits


def text(rows: list[int], seed: int) -> LanguageOutput:
    states = torch.randn(len(rows), 3, 8, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    masked = unit(len(rows), seed + 10)
    return LanguageOutput(unit(len(rows), seed), torch.tensor(rows), masked, [states], [torch.ones(len(rows), 3)])


@pytest.fixture
def out() -> QuartetOutput:
    """Four captions of three items, with views, teachers, back-translations of two and states for a discriminator."""
    languages = {"en": [0, 1, 2, 3], **TARGETS, BACK: [0, 2]}
    return output(
        texts={language: text(rows, seed) for seed, (language, rows) in enumerate(languages.items())},
        visual=unit(4, 20),
        masked_visual=unit(4, 21),
        teachers={language: unit(len(rows), 30 + len(rows)) for language, rows in TARGETS.items()},
    )


def test_every_term_of_the_contrast(out: QuartetOutput) -> None:
    discriminator = FirstState()
    losses = objective(*ALL, *NO_TRUST)(out, discriminator)
    english, spoken = out.texts["en"].vectors, ["en", *TARGETS]
    rows = [part for name in spoken for part in (out.texts[name].vectors, out.texts[name].masked) if part is not None]
    items = torch.cat([out.items[out.texts[name].rows] for name in spoken for _ in range(2)])
    assert out.masked_visual is not None
    columns = torch.cat([out.visual, out.masked_visual])
    wanted = {"rank_loss": CONTRAST(torch.cat(rows) @ columns.T, items, torch.cat([out.items, out.items]), out.scale)}
    for language, places in TARGETS.items():
        own, taught, visual = out.texts[language].vectors, out.teachers[language], out.visual[places]
        pairs = out.items[places]
        compared = CONTRAST(own @ english[places].T, pairs, pairs, out.scale)
        wanted[f"languages_{language}_loss"] = 0.3 * compared
        wanted[f"guidance_{language}_loss"] = 0.15 * SimilarityDistillation(0.07, "kl")(english[places], own, visual)
        wanted[f"similarity_{language}_loss"] = 0.2 * SimilarityDistillation(0.2, "kl")(taught, own, visual)
        wanted[f"feature_{language}_loss"] = 0.05 * FeatureDistillation()(taught, own)
    again, pairs = out.texts[BACK], out.items[[0, 2]]
    wanted["cycle_loss"] = 0.5 * CONTRAST(again.vectors @ english[[0, 2]].T, pairs, pairs, out.scale)
    logits = torch.cat([discriminator(out.texts[name].states[0], out.texts[name].mask[0]) for name in TARGETS])
    wanted["adversary_loss"] = 0.01 * F.binary_cross_entropy_with_logits(logits, torch.ones(6, 2))
    assert losses.pop("temperature") == pytest.approx(0.1)
    assert losses.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(losses[name], value, msg=name)


def test_the_triplets_are_means_and_no_caption_of_an_item_is_a_negative_of_another(out: QuartetOutput) -> None:
    english, triplet = out.texts["en"].vectors, TripletLoss(0.9)
    # Captions 0 and 1 are of one item; the German of either lies nearest to the other.
    german = replace(out.texts["de"], vectors=english[[1, 0, 2, 3]])
    out = replace(out, texts={**out.texts, "de": german})
    losses = objective("quartet.ranking=triplet", "loss.margin=0.9", "loss.cycle=0.5", *NO_TRUST)(out)

    def same(rows: list[int]) -> Tensor:
        return out.items[rows][:, None] == out.items[rows]

    ranked = [
        triplet(out.texts[name].vectors, out.visual[rows], same(rows)) / 4
        for name, rows in {"en": [0, 1, 2, 3], **TARGETS}.items()
    ]
    torch.testing.assert_close(losses["rank_loss"], sum(ranked))
    for language, rows in TARGETS.items():
        compared = triplet(english[rows], out.texts[language].vectors, same(rows)) / len(rows)
        torch.testing.assert_close(losses[f"languages_{language}_loss"], 0.3 * compared)
    back = triplet(english[[0, 2]], out.texts[BACK].vectors, same([0, 2])) / 2
    torch.testing.assert_close(losses["cycle_loss"], 0.5 * back)


def test_trust_takes_the_batch_in_and_weighs_translations_in_both_terms(out: QuartetOutput) -> None:
    out = replace(out, epoch=torch.tensor(3))
    trust = Trust(["de", "zh"], 6, momentum=0.8, begins=3)
    made = objective("quartet.trust_temperature=0.4", "quartet.guidance=0", "quartet.languages=1", trust=trust)
    losses = made(out)
    weights = {"en": torch.ones(4)}
    for at, (language, rows) in enumerate(TARGETS.items()):
        own = out.texts[language].vectors
        average = 0.8 + 0.2 * pair_probability(own @ out.visual.T, torch.tensor(rows), out.items[rows], out.items, 0.4)
        torch.testing.assert_close(trust.average[at, out.pairs[rows]], average)
        weights[language] = average / average.mean()
        pairs = out.items[rows]
        compared = CONTRAST(own @ out.texts["en"].vectors[rows].T, pairs, pairs, out.scale, weights[language])
        torch.testing.assert_close(losses[f"languages_{language}_loss"], 0.5 * compared)
    parts = [(text.vectors, text.masked, weights[name]) for name, text in out.texts.items() if name != BACK]
    rows_of = torch.cat([part for one, view, _ in parts for part in (one, view) if part is not None])
    items = torch.cat([out.items[out.texts[name].rows] for name in weights for _ in range(2)])
    assert out.masked_visual is not None
    scores = rows_of @ torch.cat([out.visual, out.masked_visual]).T
    weight = torch.cat([own for *_, own in parts for _ in range(2)])
    torch.testing.assert_close(
        losses["rank_loss"], CONTRAST(scores, items, torch.cat([out.items, out.items]), out.scale, weight)
    )


def test_the_discriminator_and_who_learns_from_it(out: QuartetOutput) -> None:
    made, discriminator = objective(*ALL, *NO_TRUST), FirstState()
    told = made.discriminate(out, discriminator)
    real, fake = (
        torch.cat([discriminator(out.texts[name].states[0], out.texts[name].mask[0]) for name in names])
        for names in (["en"], TARGETS)
    )
    wanted = [F.binary_cross_entropy_with_logits(real, torch.ones(4, 2)),
              F.binary_cross_entropy_with_logits(fake, torch.zeros(6, 2))]  # fmt: skip
    torch.testing.assert_close(told["discriminator_loss"], sum(wanted) / 2)
    torch.testing.assert_close([told["discriminator_source"], told["discriminator_target"]], wanted)
    assert told["discriminator_source_accuracy"] == (real[:, 1] > real[:, 0]).float().mean()
    assert told["discriminator_target_accuracy"] == (fake[:, 1] <= fake[:, 0]).float().mean()
    told["discriminator_loss"].backward()
    assert all(own.states[0].grad is None for own in out.texts.values()), "the discriminator learns alone"
    made(out, discriminator)["adversary_loss"].backward()
    assert {name for name, own in out.texts.items() if own.states[0].grad is not None} == set(TARGETS)


def test_terms_of_weight_zero_are_left_out(out: QuartetOutput) -> None:
    """Their teachers and back-translations are there."""
    kinds = {"rank_loss", "languages_de_loss", "languages_zh_loss", "guidance_de_loss", "guidance_zh_loss"}
    assert {name for name in objective(*NO_TRUST)(out) if name.endswith("_loss")} == kinds
    for weight in ("languages", "guidance"):
        left = objective("quartet.trust=false", f"quartet.{weight}=0")(out)
        assert {name for name in left if name.endswith("_loss")} == {
            name for name in kinds if not name.startswith(weight)
        }


def test_the_discriminator_sees_every_part_of_a_language(out: QuartetOutput) -> None:
    made, discriminator = objective(*ALL, *NO_TRUST), FirstState()
    english = out.texts["en"]
    (states,), (mask,) = english.states, english.mask
    parts = replace(english, states=[states[:1], states[1:]], mask=[mask[:1], mask[1:]])
    whole, split = (
        made.discriminate(replace(out, texts={**out.texts, "en": text}), discriminator) for text in (english, parts)
    )
    torch.testing.assert_close(split, whole)
    assert not any(value.requires_grad for name, value in whole.items() if name != "discriminator_loss")


def test_without_translations_the_discriminator_learns_nothing(out: QuartetOutput) -> None:
    none = {language: text([], 1) for language in TARGETS}
    discriminator = FirstState()
    told = objective(*ALL, *NO_TRUST).discriminate(replace(out, texts={**out.texts, **none}), discriminator)
    assert told["discriminator_loss"] == 0
    told["discriminator_loss"].backward()
    assert all(not own.grad.any() for own in discriminator.parameters() if own.grad is not None)
