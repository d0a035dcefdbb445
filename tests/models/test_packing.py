"""Several batches in one call of a backbone have the states, and the gradients, of a call each."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel

from nrccr.data.batch import TextBatch
from nrccr.models.backbone import backbone_states, build_backbone
from nrccr.models.packing import NAME, _attention, packs

PADDING = 1
SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "pad_token_id": PADDING,
}
OTHERS: dict[str, dict[str, Any]] = {
    "electra": {"embedding_size": 24},
    "distilbert": {"n_layers": 2, "dim": 32, "n_heads": 4, "hidden_dim": 64},
    "deberta-v2": {"relative_attention": True, "position_biased_input": False, "pos_att_type": "p2c|c2p"},
    "modernbert": {"local_attention": 4, "global_attn_every_n_layers": 2},
}
TOGETHER = ("bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta")


def configuration(kind: str) -> Any:
    sizes = SMALL if kind != "distilbert" else {"vocab_size": 50, "max_position_embeddings": 40, "pad_token_id": 1}
    return AutoConfig.for_model(kind, **sizes, **OTHERS.get(kind, {}))


@pytest.fixture
def texts() -> list[TextBatch]:
    """Three batches of other sizes and widths; none is as wide as its mask says in every row."""
    torch.manual_seed(1)
    made = []
    for captions, width in ((3, 9), (4, 5), (2, 7)):
        mask = torch.arange(width) < torch.randint(2, width + 1, (captions, 1))
        mask[0] = True
        made.append(TextBatch(torch.randint(3, 50, (captions, width)).where(mask, PADDING), mask))
    return made


def gradients(states: list[Tensor], backbone: Any) -> list[Tensor]:
    backbone.zero_grad()
    sum((part * torch.arange(part.numel()).view_as(part).cos()).sum() for part in states).backward()
    return [parameter.grad for parameter in backbone.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("kind", [*TOGETHER, "deberta-v2", "modernbert"])
def test_states_and_gradients_are_those_of_a_call_each(kind: str, texts: list[TextBatch]) -> None:
    torch.manual_seed(0)
    # Eager ModernBERT spreads the attention of a position whose window is all padding, SDPA gives zeros.
    attention = "sdpa" if kind == "modernbert" else "eager"
    plain: Any = AutoModel.from_config(configuration(kind), attn_implementation=attention).eval()
    torch.manual_seed(0)
    ours: Any = build_backbone(configuration(kind), None).eval()
    ours.load_state_dict(plain.state_dict(), strict=False)  # electra and others have no pooler to leave out
    assert packs(ours) == (kind in TOGETHER)
    wanted = [
        plain(
            inputs_embeds=plain.get_input_embeddings()(text.tokens), attention_mask=text.mask.long()
        ).last_hidden_state
        for text in texts
    ]
    found = backbone_states(ours, texts)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    for one, other in zip(gradients(found, ours), gradients(wanted, plain), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", TOGETHER)
def test_all_layers_see_all_batches_at_once(kind: str, texts: list[TextBatch]) -> None:
    backbone = build_backbone(configuration(kind), None).eval()
    seen: list[int] = []
    for module in backbone.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.register_forward_hook(lambda _, inputs, out: seen.append(inputs[0].shape[:-1].numel()))
    backbone_states(backbone, texts)
    assert seen and set(seen) == {sum(text.tokens.numel() for text in texts)}


def test_other_calls_and_the_saved_configuration_stay(texts: list[TextBatch]) -> None:
    torch.manual_seed(0)
    plain: Any = AutoModel.from_config(configuration("xlm-roberta"), add_pooling_layer=False).eval()
    torch.manual_seed(0)
    ours: Any = build_backbone(configuration("xlm-roberta"), None).eval()
    call = {"input_ids": texts[0].tokens, "attention_mask": texts[0].mask.long()}
    torch.testing.assert_close(ours(**call).last_hidden_state, plain(**call).last_hidden_state)
    assert NAME not in ours.config.to_json_string()


def test_a_decoder_does_not_pack() -> None:
    config = configuration("bert")
    config.is_decoder = True
    assert not packs(build_backbone(config, None))


def test_dropout_of_attention_is_torchs_on_average() -> None:
    """The mean of many draws is attention without dropout; each draw differs."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, 5, 4) for _ in range(3))
    keys = torch.tensor([True, True, True, False, False])[None, None, None]
    wanted = _attention(query, key, value, keys, {})
    drawn = torch.cat([_attention(query, key, value, keys, {"dropout": 0.2}) for _ in range(4000)])
    assert not torch.equal(drawn[0], drawn[1])
    torch.testing.assert_close(drawn.mean(dim=0, keepdim=True), wanted, rtol=0, atol=0.04)


def test_another_attention_takes_a_call_each(texts: list[TextBatch]) -> None:
    backbone = build_backbone(configuration("bert"), None).eval()
    wanted = backbone_states(backbone, texts)
    backbone.set_attn_implementation("eager")
    assert not packs(backbone)
    for one, other in zip(backbone_states(backbone, texts), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
