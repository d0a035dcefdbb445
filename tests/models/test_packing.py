"""Several batches in one call of a backbone have the states, and the gradients, of a call each."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoConfig, AutoModel

from nrccr.data.batch import TextBatch
from nrccr.models import packing
from nrccr.models.backbone import backbone_states, build_backbone
from nrccr.models.packing import NAME, _attention, has_varlen_kernel, packed_states, packs, real_tokens

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


@pytest.mark.parametrize("real_only", [False, True])
@pytest.mark.parametrize("kind", [*TOGETHER, "deberta-v2", "modernbert"])
def test_states_and_gradients_are_those_of_a_call_each(kind: str, real_only: bool, texts: list[TextBatch]) -> None:
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
    found = backbone_states(ours, texts, real_only=real_only)
    if real_only:  # both without what nobody reads
        silent = [~text.mask.unsqueeze(-1) for text in texts]
        read = [states.masked_select(own) for states, own in zip(found, silent, strict=True)]
        assert not packs(ours) or not torch.cat(read).any()
        found = [states.masked_fill(own, 0.0) for states, own in zip(found, silent, strict=True)]
        wanted = [states.masked_fill(own, 0.0) for states, own in zip(wanted, silent, strict=True)]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    for one, other in zip(gradients(found, ours), gradients(wanted, plain), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("real_only", [False, True])
@pytest.mark.parametrize("kind", TOGETHER)
def test_all_layers_see_all_batches_at_once(kind: str, real_only: bool, texts: list[TextBatch]) -> None:
    """And of real tokens alone no padding: neither word vectors nor layers."""
    backbone = build_backbone(configuration(kind), None).eval()
    seen: list[int] = []
    for module in backbone.modules():
        if isinstance(module, torch.nn.LayerNorm | torch.nn.Linear):
            module.register_forward_hook(lambda _, inputs, out: seen.append(inputs[0].shape[:-1].numel()))
    backbone.get_input_embeddings().register_forward_hook(lambda _, inputs, out: seen.append(inputs[0].numel()))
    backbone_states(backbone, texts, real_only=real_only)
    passing = sum(int(text.mask.sum()) if real_only else text.tokens.numel() for text in texts)
    assert seen and set(seen) == {passing} and sum(int(text.mask.sum()) for text in texts) < 60


@pytest.mark.parametrize("kind", TOGETHER)
def test_one_padded_span_is_spans_of_one_length(kind: str, texts: list[TextBatch]) -> None:
    """What another device than a processor does, forwards and backwards."""
    torch.manual_seed(0)
    backbone = build_backbone(configuration(kind), None).eval()
    spans, cells = real_tokens(texts), real_tokens(texts, one_span=True)
    assert {span.keys for span in spans.spans} == {None} and sum(span.captions for span in spans.spans) == 9
    (only,) = cells.spans
    assert only.captions == 9 and only.keys is not None and int(only.keys.sum()) == len(cells.positions)
    ids = torch.cat([text.tokens.flatten() for text in texts])
    found = []
    for layout in (spans, cells):
        vectors = backbone.get_input_embeddings()(layout.take(ids))
        found.append(layout.put(packed_states(backbone, vectors, layout), texts))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    for one, other in zip(gradients(found[0], backbone), gradients(found[1], backbone), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", TOGETHER)
def test_the_varlen_kernel_gets_each_caption_between_its_bounds(
    kind: str, texts: list[TextBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts[1].mask[2] = False  # a caption without a token has no bounds
    backbone = build_backbone(configuration(kind), None).eval()
    vectors = torch.randn(sum(text.tokens.numel() for text in texts), backbone.get_input_embeddings().weight.shape[1])
    padded, packed = (real_tokens(texts, one_span=True) for _ in range(2))
    wanted = packed_states(backbone, padded.take(vectors), padded)
    calls = []

    def by_caption(query: Tensor, key: Tensor, value: Tensor, *bounds: Any) -> Tensor:
        starts, same, longest, most = bounds
        assert starts is same and starts.dtype == torch.int32 and longest == most == int(starts.diff().max())
        calls.append(starts.tolist())
        flat = [states.tensor_split(starts[1:-1].tolist()) for states in (query, key, value)]
        each = zip(*flat, strict=True)
        own = [functional.scaled_dot_product_attention(*(of.transpose(0, 1) for of in one)) for one in each]
        return torch.cat([context.transpose(0, 1) for context in own])

    monkeypatch.setattr("nrccr.models.packing.has_varlen_kernel", lambda query, options: True)
    monkeypatch.setattr("nrccr.models.packing.varlen_attn", by_caption)
    found = packed_states(backbone, packed.take(vectors), packed)
    assert len(calls) == 2 and calls[0][-1] == len(found)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_the_varlen_kernel_is_for_gpus_in_half_precision_without_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(
        dtype: torch.dtype = torch.bfloat16,
        shape: tuple[int, int] = (9, 64),
        device: str = "cuda",
        gradient: bool = False,
        **options: float,
    ) -> bool:
        query = SimpleNamespace(device=torch.device(device), dtype=dtype, shape=(1, 4, *shape), requires_grad=gradient)
        return has_varlen_kernel(query, options)  # type: ignore[arg-type]

    gpu = {"capability": (8, 0), "built": True, "fused": False}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: gpu["capability"])
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: gpu["built"])
    monkeypatch.setattr(torch.backends.cuda, "flash_sdp_enabled", lambda: gpu["fused"])
    monkeypatch.setattr("nrccr.models.packing.varlen_attn", print)  # as any torch since 2.10 has it
    assert asked() and asked(torch.float16, dropout=0.0, scaling=0.125)
    assert not asked(torch.float32) and not asked(device="cpu") and not asked(dropout=0.1) and not asked(scaling=0.5)
    assert not asked(shape=(9, 36)) and not asked(shape=(9, 512)) and not asked(shape=(0, 64))
    assert not asked(gradient=True)  # where runs have to repeat
    gpu["fused"] = True
    assert asked(gradient=True)
    for lacks in ({"capability": (7, 5)}, {"built": False}):
        with monkeypatch.context() as other:
            for name, value in lacks.items():
                other.setitem(gpu, name, value)
            assert not asked()
    gpu["capability"] = (9, 0)
    assert asked()
    monkeypatch.setattr("nrccr.models.packing.varlen_attn", None)
    assert not asked()


@pytest.mark.gpu
def test_the_varlen_kernel_equals_padded_attention_on_a_gpu(
    texts: list[TextBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = torch.device("cuda")
    monkeypatch.setattr(torch.backends.cuda, "flash_sdp_enabled", lambda: True)  # that it is asked with gradients too
    if not has_varlen_kernel(torch.empty(1, 2, 3, 16, device=device, dtype=torch.bfloat16), {}):
        pytest.skip("torch or this GPU has no such kernel")
    kernel = Mock(wraps=packing.varlen_attn)
    monkeypatch.setattr(packing, "varlen_attn", kernel)
    texts[1].mask[2] = False  # a caption without a token
    backbone = build_backbone(configuration("bert"), None).eval().to(device)
    layout = real_tokens([text.to(device) for text in texts])
    vectors = torch.randn(len(layout.positions), 32, device=device, requires_grad=True)
    weights = torch.randn(len(layout.positions), 32, device=device)
    found = []
    for own in (layout, replace(layout, bounds=None)):
        with torch.autocast("cuda", torch.bfloat16):
            states = packed_states(backbone, vectors, own).float()
        found.append((states, *torch.autograd.grad((states * weights).sum(), vectors)))
        assert kernel.call_count == backbone.config.num_hidden_layers  # of the first way alone
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.05)


def test_padding_and_order_change_nothing(texts: list[TextBatch]) -> None:
    """A caption's states are the same alone, wider padded with other ids there, and among others in another order."""
    torch.manual_seed(0)
    backbone = build_backbone(configuration("xlm-roberta"), None).eval()
    wanted = backbone_states(backbone, texts, real_only=True)
    wider = []
    for text in reversed(texts):
        tokens = torch.nn.functional.pad(text.tokens.where(text.mask, 7), (0, 3), value=7).flip(0)
        mask = torch.nn.functional.pad(text.mask, (0, 3)).flip(0)
        wider.append(TextBatch(tokens, mask, lengths=text.mask.sum(dim=1).flip(0).numpy()))
    for states, own in zip(reversed(backbone_states(backbone, wider, real_only=True)), wanted, strict=True):
        torch.testing.assert_close(states.flip(0)[:, : own.shape[1]], own, rtol=1e-5, atol=1e-5)
        assert not states[:, own.shape[1] :].any()
    length = int(texts[1].mask[2].sum())
    alone = TextBatch(texts[1].tokens[2:3, :length], texts[1].mask[2:3, :length])
    (states,) = backbone_states(backbone, [alone], real_only=True)
    torch.testing.assert_close(states[0], wanted[1][2, :length], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("captions", [0, 2])
def test_batches_without_captions_or_words(captions: int, texts: list[TextBatch]) -> None:
    """They have states, of zeros, and change no other."""
    backbone = build_backbone(configuration("bert"), None).eval()
    nothing = TextBatch(torch.full((captions, 3), PADDING), torch.zeros(captions, 3, dtype=torch.bool))
    empty, *found = backbone_states(backbone, [nothing, *texts], real_only=True)
    assert empty.shape == (captions, 3, 32) and not empty.any()
    for one, other in zip(found, backbone_states(backbone, texts, real_only=True), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_the_order_of_what_passes(texts: list[TextBatch]) -> None:
    """Captions in order of length; a flat store of states can be read in that order."""
    layout = real_tokens(texts)
    assert layout.order is not None and layout.lengths is not None
    lengths = torch.cat([text.mask.sum(dim=1) for text in texts])
    assert torch.equal(torch.from_numpy(layout.lengths), lengths[layout.order]) and (np.diff(layout.lengths) >= 0).all()
    captions = [row[mask] for text in texts for row, mask in zip(text.tokens, text.mask, strict=True)]
    flat = layout.take(torch.cat([text.tokens.flatten() for text in texts]))
    assert torch.equal(flat, torch.cat([captions[index] for index in layout.order]))


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
    many = [part.repeat(20_000, 1, 1, 1) for part in (query, key, value, keys)]
    drawn = _attention(*many, {"dropout": 0.2})
    assert not torch.equal(drawn[0], drawn[1])
    torch.testing.assert_close(drawn.mean(dim=0, keepdim=True), wanted, rtol=0, atol=0.015)
    sums = _attention(query, key, torch.ones_like(value), keys, {"dropout": 0.2})  # of the weights that are left
    torch.testing.assert_close(sums, sums[..., :1].expand_as(sums))
    assert len(sums[..., 0].unique()) > 2, "each query drops keys of its own"


def test_another_attention_takes_a_call_each(texts: list[TextBatch]) -> None:
    backbone = build_backbone(configuration("bert"), None).eval()
    wanted = backbone_states(backbone, texts)
    backbone.set_attn_implementation("eager")
    assert not packs(backbone)
    for one, other in zip(backbone_states(backbone, texts), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
