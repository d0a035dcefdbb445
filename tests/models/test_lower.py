"""A backbone cut below its first layer that trains gives the states, and the gradients, of the whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from nrccr.data.batch import LowerStates, TextBatch
from nrccr.errors import UserError
from nrccr.models.backbone import backbone_states, build_backbone, freeze_backbone, lower_states
from nrccr.models.lower import cut
from tests.models.test_packing import PADDING, TOGETHER, configuration

SIZES = ((3, 9), (4, 5), (2, 7))  # captions and width of each batch


def backbone(kind: str, layers: list[int] | None) -> Any:
    """A small encoder without dropout in which some layers train; none: nothing does."""
    torch.manual_seed(0)
    made = build_backbone(configuration(kind), None).eval()
    freeze_backbone(made, "all_frozen" if layers is None else "frozen", layers or [])
    return made


@pytest.fixture
def texts() -> list[TextBatch]:
    torch.manual_seed(1)
    made = []
    for captions, width in SIZES:
        mask = torch.arange(width) < torch.randint(2, width + 1, (captions, 1))
        mask[0] = True
        made.append(TextBatch(torch.randint(3, 50, (captions, width)).where(mask, PADDING), mask))
    return made


def with_states(text: TextBatch, states: Tensor) -> TextBatch:
    """A batch that brings states (N, L, H) of the lower part, those of padding left out."""
    places = (text.mask.flatten().cumsum(0).view_as(text.mask) - 1).where(text.mask, 0)
    return replace(text, lower=LowerStates(states[text.mask], places))


def gradients(made: Any, texts: list[TextBatch], states: list[Tensor]) -> dict[str, Tensor]:
    made.zero_grad()
    parts = [part * text.mask.unsqueeze(-1) for part, text in zip(states, texts, strict=True)]
    sum((part * torch.arange(part.numel()).view_as(part).cos()).sum() for part in parts).backward()  # type: ignore[union-attr]
    return {name: own.grad for name, own in made.named_parameters() if own.grad is not None}


@pytest.mark.parametrize("kind", TOGETHER)
def test_layers_above_give_the_states_and_gradients_of_all(kind: str, texts: list[TextBatch]) -> None:
    made = backbone(kind, [1])
    parts = cut(made)
    assert parts.frozen == 1 and parts.upper is not None
    whole = backbone_states(made, texts)
    wanted = gradients(made, texts, whole)
    below = lower_states(parts.lower, texts)
    cached = [with_states(text, part) for text, part in zip(texts, below, strict=True)]
    cached[1] = texts[1]  # a batch without states passes the lower part on its way
    found = backbone_states(made, cached)
    for text, one, other in zip(texts, found, whole, strict=True):
        torch.testing.assert_close(one[text.mask], other[text.mask], rtol=1e-5, atol=1e-5)
    own = gradients(made, texts, found)
    assert own.keys() == wanted.keys() and all("1." in name for name in own)
    for name, value in own.items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "electra", "deberta-v2", "modernbert"])
def test_a_frozen_backbone_is_not_computed_at_all(
    kind: str, texts: list[TextBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = backbone(kind, None)
    parts = cut(made)
    assert (parts.upper, parts.frozen) == (None, len(next(iter(_lists(made)))))
    below = lower_states(parts.lower, texts)
    for text, one, other in zip(texts, below, backbone_states(made, texts), strict=True):
        torch.testing.assert_close(one[text.mask], other[text.mask], rtol=1e-5, atol=1e-5)
    cached = [with_states(text, part) for text, part in zip(texts, below, strict=True)]
    monkeypatch.setattr(type(made), "forward", None)
    for text, one, other in zip(texts, backbone_states(made, cached), below, strict=True):
        assert torch.equal(one[text.mask], other[text.mask])


def _lists(made: Any) -> list[torch.nn.ModuleList]:
    return [module for module in made.modules() if isinstance(module, torch.nn.ModuleList)]


def test_dropout_is_off_below_and_on_above(texts: list[TextBatch]) -> None:
    made = backbone("bert", [1]).train()
    parts = cut(made)
    assert torch.equal(lower_states(parts.lower, texts)[0], lower_states(parts.lower, texts)[0])
    assert made.training and all(module.training for module in made.modules())
    cached = [with_states(text, part) for text, part in zip(texts, lower_states(parts.lower, texts), strict=True)]
    assert not torch.equal(backbone_states(made, cached)[0], backbone_states(made, cached)[0])


def test_the_parts_are_the_backbones_own_modules() -> None:
    made = backbone("bert", [1])
    names = made.state_dict().keys()
    parts = cut(made)
    assert parts.upper is not None and made.state_dict().keys() == names
    assert parts.lower.encoder.layer[0] is made.encoder.layer[0] and len(made.encoder.layer) == 2
    assert parts.upper.encoder.layer[0] is made.encoder.layer[1] and len(parts.lower.encoder.layer) == 1


@pytest.mark.parametrize(("layers", "frozen"), [([0, 1], 0), ([], 2)])
def test_all_layers_may_lie_on_one_side(layers: list[int], frozen: int, texts: list[TextBatch]) -> None:
    made = backbone("bert", layers)
    parts = cut(made)
    assert parts.frozen == frozen and (parts.upper is None) == (not layers)
    cached = [with_states(text, part) for text, part in zip(texts, lower_states(parts.lower, texts), strict=True)]
    for text, one, other in zip(texts, backbone_states(made, cached), backbone_states(made, texts), strict=True):
        torch.testing.assert_close(one[text.mask], other[text.mask], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["deberta-v2", "modernbert"])
def test_layers_that_cannot_be_computed_apart_are_one_line(kind: str) -> None:
    with pytest.raises(UserError, match=f"text.cache: the layers of a {kind} cannot be computed apart") as caught:
        cut(backbone(kind, [1]))
    assert "\n" not in str(caught.value) and "text.freeze=all_frozen" in str(caught.value)


def test_trained_embeddings_are_one_line() -> None:
    made = backbone("bert", [1])
    made.embeddings.requires_grad_(True)
    with pytest.raises(UserError, match="text.cache: the embeddings of the backbone train"):
        cut(made)
