"""Trust in translations, the schedule of steps, and the terms against what they are made of."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nrccr.data.batch import TextBatch
from nrccr.losses.multipositive import MultiPositiveContrast
from nrccr.models.words import WordVectors, pair_rows
from nrccr.systems.quartet.data import BACK
from nrccr.systems.quartet.network import LanguageOutput, Quartet, QuartetOutput
from nrccr.systems.quartet.objective import QuartetObjective, Trust
from nrccr.systems.settings import build_config
from nrccr.training.optim import Apart, adam, share_of_rate


def unit(rows: int, seed: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed)), dim=1)


def output(**changes: object) -> QuartetOutput:
    """Four captions of three items; German for all, Chinese for two."""

    def text(rows: list[int], seed: int) -> LanguageOutput:
        return LanguageOutput(unit(len(rows), seed), torch.tensor(rows), None, [], [])

    fields = {
        "texts": {"en": text([0, 1, 2, 3], 0), "de": text([0, 1, 2, 3], 1), "zh": text([1, 3], 2)},
        "visual": unit(4, 3),
        "masked_visual": None,
        "teachers": {},
        "scale": torch.tensor(10.0),
        "items": torch.tensor([0, 0, 1, 2]),
        "pairs": torch.tensor([5, 0, 3, 2]),
        "epoch": torch.tensor(1),
    }
    return QuartetOutput(**{**fields, **changes})  # type: ignore[arg-type]


PLAIN = ["model=quartet", *(f"loss.{name}=0" for name in ("similarity", "feature", "cycle", "adversary"))]


def objective(*overrides: str, trust: Trust | None = None) -> QuartetObjective:
    return QuartetObjective(build_config([], [*PLAIN, *overrides]), trust)


def test_all_languages_are_rows_of_one_softmax() -> None:
    out = output()
    losses = objective("quartet.trust=false", "quartet.languages=0", "quartet.guidance=0")(out)
    rows = torch.cat([text.vectors for text in out.texts.values()])
    items = torch.cat([out.items[text.rows] for text in out.texts.values()])
    expected = MultiPositiveContrast()(rows @ out.visual.T, items, out.items, out.scale)
    assert [name for name in losses if name.endswith("_loss")] == ["rank_loss"]
    torch.testing.assert_close(losses["rank_loss"], expected)


def test_a_language_that_is_missing_changes_no_other_term() -> None:
    both = objective("quartet.trust=false")(output())
    texts = {language: text for language, text in output().texts.items() if language != "zh"}
    one = objective("quartet.trust=false")(output(texts=texts))
    # Weights are shared among the languages that are there.
    torch.testing.assert_close(2 * both["languages_de_loss"], one["languages_de_loss"])
    torch.testing.assert_close(2 * both["guidance_de_loss"], one["guidance_de_loss"])


@pytest.mark.parametrize("ranking", ["contrast", "triplet"])
def test_a_batch_without_any_translation_into_a_language(ranking: str) -> None:
    """Its own terms are left out, all others are numbers."""
    with_all = output()
    none = LanguageOutput(unit(0, 2), torch.tensor([], dtype=torch.int64), None, [], [])
    teachers = {"de": unit(4, 5), "zh": unit(0, 6)}
    out = output(texts={**with_all.texts, "zh": none, BACK: none}, teachers=teachers)
    weights = ("loss.similarity=1", "loss.feature=1", "loss.cycle=1", "quartet.pooling=attention")
    losses = objective(f"quartet.ranking={ranking}", "quartet.trust=false", *weights)(out)
    assert {name for name in losses if name.endswith("_loss")} == {
        *("rank_loss", "languages_de_loss", "guidance_de_loss", "similarity_de_loss", "feature_de_loss"),
    }
    assert all(math.isfinite(value.item()) for value in losses.values())


def test_guidance_is_kl_to_the_source_language() -> None:
    out = output()
    found = objective("quartet.trust=false", "quartet.guidance_temperature=0.2", "quartet.guidance=1")(out)
    total = 0.0
    for language in ("de", "zh"):
        rows = out.texts[language].rows
        english = out.texts["en"].vectors[rows] @ out.visual[rows].T / 0.2
        own = out.texts[language].vectors @ out.visual[rows].T / 0.2
        ways = [
            torch.nn.functional.kl_div(
                student.log_softmax(1), teacher.log_softmax(1), log_target=True, reduction="batchmean"
            )
            for student, teacher in ((own, english), (own.T, english.T))
        ]
        total += 0.25 * float(sum(ways))
    assert float(found["guidance_de_loss"] + found["guidance_zh_loss"]) == pytest.approx(total, rel=1e-5)


def test_trust_is_a_moving_average_that_weighs_from_its_epoch_on() -> None:
    trust = Trust(["de", "zh"], 6, momentum=0.8, begins=3)
    pairs = torch.tensor([4, 1])
    trust.update("zh", pairs, torch.tensor([0.0, 0.5]))
    trust.update("zh", pairs, torch.tensor([0.0, 0.5]))
    expected = [0.8 * 0.8, 0.8 * (0.8 + 0.1) + 0.1]
    np.testing.assert_allclose(trust.average[1, pairs].numpy(), expected, rtol=1e-6)
    assert trust.average[0].tolist() == [1.0] * 6 and trust.average[1, 0] == 1.0
    assert trust.weights("zh", pairs, torch.tensor(2)).tolist() == [1.0, 1.0]
    weights = trust.weights("zh", pairs, torch.tensor(3))
    np.testing.assert_allclose(weights.numpy(), np.array(expected) / np.mean(expected), rtol=1e-6)


def test_trust_of_nothing_gives_no_nan() -> None:
    trust = Trust(["de"], 2, momentum=0.0, begins=1)
    trust.update("de", torch.arange(2), torch.zeros(2))
    assert trust.weights("de", torch.arange(2), torch.tensor(1)).tolist() == [0.0, 0.0]


def test_a_distrusted_translation_pulls_less() -> None:
    trust = Trust(["de", "zh"], 6, momentum=0.8, begins=3)
    trust.average[0, 5] = 0.0
    out = output(epoch=torch.tensor(3))
    german = out.texts["de"].vectors.requires_grad_()
    losses = objective("quartet.languages=0", "quartet.guidance=0", "quartet.trust_momentum=0.99", trust=trust)(out)
    before = torch.autograd.grad(losses["rank_loss"], german)[0].norm(dim=1)
    plain = objective("quartet.languages=0", "quartet.guidance=0", "quartet.trust=false")(out)
    after = torch.autograd.grad(plain["rank_loss"], german)[0].norm(dim=1)
    assert float(before[0] / after[0]) < 0.9  # the caption of pair 5


@pytest.mark.parametrize("start", [0.01, 0.02, 0.03, 0.07])
def test_a_temperature_at_its_least_trains_and_comes_back(start: float) -> None:
    part = torch.nn.Identity()
    part.width = 3  # type: ignore[assignment]
    network = Quartet(part, part, 4, dropout=0.0, temperature=(start, start))  # type: ignore[arg-type]
    network.limited_scale().backward()
    assert network.log_scale.grad is not None
    assert network.log_scale.grad.item() == pytest.approx(1 / start)
    optimizer = torch.optim.SGD([network.log_scale], 0.1)
    for wish, held in ((-1, True), (-1, True), (1, False)):  # of the loss, whose gradient it is: lower, lower, higher
        optimizer.zero_grad()
        scale = network.limited_scale()
        assert scale.item() == pytest.approx(1 / start)
        (wish * scale * start).backward()
        optimizer.step()
        assert (network.log_scale.item() > -math.log(start)) is held
    assert network.limited_scale().item() == pytest.approx(math.exp(-0.1) / start)


def test_rates_of_a_step() -> None:
    config = build_config([], [*PLAIN, "train.schedule=cosine", "train.warmup=4"]).train
    assert share_of_rate(0, 100, config) == 0.25 and share_of_rate(3, 100, config) == pytest.approx(1, abs=3e-3)
    assert share_of_rate(50, 100, config) == pytest.approx(0.5)
    assert share_of_rate(100, 100, config) == pytest.approx(0, abs=1e-12)
    assert share_of_rate(7, 100, build_config([], []).train) == 1.0


def test_a_part_may_learn_in_its_own_way() -> None:
    module = torch.nn.ModuleDict({"text": torch.nn.Linear(2, 2), "other": torch.nn.Linear(2, 2)})
    groups = adam(module, 0.1, {"text.": Apart(0.01, decay=2.0)}).param_groups
    assert [(group["lr"], group["weight_decay"], len(group["params"])) for group in groups] == [
        (0.1, 0.0, 2),
        (0.01, 2.0, 2),
    ]
    assert [group["lr"] for group in adam(module, 0.1).param_groups] == [0.1]


def test_decay_shrinks_a_part_apart_from_its_gradients() -> None:
    module = torch.nn.ModuleDict({"text": torch.nn.Linear(2, 2), "other": torch.nn.Linear(2, 2)})
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    optimizer = adam(module, 0.1, {"text.": Apart(0.01, decay=2.0)})
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, value in module.named_parameters():
        torch.testing.assert_close(value, before[name] * (0.98 if name.startswith("text.") else 1.0))


def test_words_are_the_sum_of_a_captions_words_over_the_root_of_their_number() -> None:
    words = WordVectors(20, 3, dropped=0.5).eval()
    tokens = torch.tensor([[2, 5, 6, 7, 3], [2, 9, 3, 0, 0], [2, 3, 0, 0, 0]])  # 2 and 3 are special, 0 is padding
    own = words.table.weight
    expected = torch.stack([(own[5] + own[6] + own[7]) / 3**0.5, own[9], torch.zeros(3)])
    wider = torch.cat([tokens, torch.zeros(3, 4, dtype=torch.long)], dim=1)
    found = words([TextBatch(tokens, tokens > 0), TextBatch(wider, wider > 0), TextBatch(tokens[1:], tokens[1:] > 0)])
    for ours, wanted in zip(found, (expected, expected, expected[1:]), strict=True):
        torch.testing.assert_close(ours, wanted)
    words.train()
    seen = {tuple(words([TextBatch(tokens[:1], tokens[:1] > 0)])[0][0].tolist()) for _ in range(64)}
    assert len(seen) == 8  # every subset of three words


def test_words_that_are_left_out_do_not_count_and_the_table_begins_near_zero() -> None:
    torch.manual_seed(0)
    words = WordVectors(8, 3, dropped=0.25)
    words.table.weight.data[5:8] = torch.eye(3)
    tokens = torch.tensor([[2, 5, 6, 7, 3]]).expand(2000, -1)
    (found,) = words([TextBatch(tokens, tokens > 0)])
    kept = found > 0
    torch.testing.assert_close(found, kept / kept.sum(dim=1, keepdim=True).clamp(min=1).sqrt())
    assert float(kept.float().mean()) == pytest.approx(0.75, abs=0.03)
    assert WordVectors(500, 16, dropped=0.25).table.weight.std().item() == pytest.approx(0.005, rel=0.05)


def test_pairs_are_summed_as_words_are_and_one_left_out_takes_its_pairs_along() -> None:
    torch.manual_seed(0)
    words = WordVectors(30, 3, dropped=0.5, pairs=2)
    assert words.pairs is not None and words.width == 5
    assert words.pairs.weight.std().item() == pytest.approx(0.005, rel=0.05)
    words.eval()
    tokens = torch.tensor([[2, 5, 6, 5, 3, 0], [2, 9, 7, 3, 0, 0], [2, 9, 3, 0, 0, 0], [2, 3, 0, 0, 0, 0]])

    def of(first: int, second: int) -> torch.Tensor:
        assert words.pairs is not None
        return words.pairs.weight[(first * 1_000_003 + second * 998_244_353) % (2**31 - 1) % 16384]

    expected = torch.stack([(of(5, 6) + of(6, 5)) / 2**0.5, of(9, 7), torch.zeros(2), torch.zeros(2)])
    alone = WordVectors(30, 3, dropped=0.5).eval()
    alone.table.load_state_dict(words.table.state_dict())
    for padded in (tokens, torch.cat([tokens, torch.zeros(4, 3, dtype=torch.long)], dim=1)):
        (found,) = words([TextBatch(padded, padded > 0)])
        torch.testing.assert_close(found[:, 3:], expected)
        torch.testing.assert_close(found[:, :3], alone([TextBatch(padded, padded > 0)])[0])
    single = tokens[2:, :3]  # no caption of the batch has two words
    assert torch.equal(words([TextBatch(single, single > 0)])[0][:, 3:], torch.zeros(2, 2))
    words.train()
    many = tokens[:1].expand(500, -1)
    (found,) = words([TextBatch(many, many > 0)])
    whole = {tuple(row.tolist()) for row in found[:, 3:]}
    kept = [tuple(part.tolist()) for part in (torch.zeros(2), of(5, 6), of(6, 5), (of(5, 6) + of(6, 5)) / 2**0.5)]
    assert len(whole) == 4 and all(min(_far(one, other) for other in kept) < 1e-6 for one in whole)


def _far(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def test_pairs_spread_over_all_rows() -> None:
    """Of 60 x 60 words about as many rows are hit as by chance; the order of a pair counts."""
    first, second = torch.meshgrid(torch.arange(1000, 1060), torch.arange(1000, 1060), indexing="ij")
    rows = pair_rows(torch.stack([first.flatten(), second.flatten()], dim=1))[:, 0]
    chance = 16384 * (1 - (1 - 1 / 16384) ** 3600)
    assert len(rows.unique()) > 0.97 * chance and 0 <= int(rows.min()) and int(rows.max()) < 16384
    assert pair_rows(torch.tensor([[250_000, 249_999]])) != pair_rows(torch.tensor([[249_999, 250_000]]))
