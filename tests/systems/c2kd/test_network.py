"""C2KD's network: against loops, invariances, both readings of the text's mean, any encoder, published names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from transformers import PreTrainedTokenizerFast

import nrccr
from nrccr.data.batch import PooledTextBatch, TextBatch, VideoBatch
from nrccr.errors import UserError
from nrccr.models.backbone import backbone_config, build_backbone
from nrccr.models.fast import use_fast_layers
from nrccr.systems.c2kd.batch import MultilingualBatch
from nrccr.systems.c2kd.network import C2KD, GatedUnit, PoolMask, TransformerBlock
from nrccr.systems.c2kd.objective import C2KDObjective, teacher_scores
from nrccr.systems.c2kd.published import is_c2kd, published
from nrccr.systems.c2kd.settings import C2KDSection
from nrccr.systems.retriever import Retriever
from nrccr.training.task import total

FEATURES, JOINT, WIDTH = 6, 10, 8
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
    "xlm-roberta": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
}


@pytest.fixture
def encoder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Folder of a small encoder of any kind, with a tokeniser; BERT unless a test asks for another."""
    kind = getattr(request, "param", "bert")
    config = {"model_type": kind, "vocab_size": 60, "max_position_embeddings": 40, "pad_token_id": 0}
    if kind == "xlm-roberta":
        config["pad_token_id"] = 1
    folder = tmp_path / "encoder"
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(60)}, unk_token="w3"))
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", unk_token="w3").save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config | ENCODERS[kind]))
    return folder


def build(encoder: Path, pool_mask: PoolMask = "own") -> C2KD:
    torch.manual_seed(0)
    backbone = build_backbone(backbone_config(str(encoder), {}), pretrained=None)
    network = C2KD(backbone, FEATURES, JOINT, width=WIDTH, pool_mask=pool_mask)
    for parameter in network.video.parameters():  # sharper than at the start: masks then matter
        if parameter.ndim == 2:
            parameter.data *= 5
    return network.eval()


def text(lengths: list[int], longest: int, padding: int = 0, seed: int = 1) -> TextBatch:
    tokens = torch.randint(5, 60, (len(lengths), longest), generator=torch.Generator().manual_seed(seed))
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    return TextBatch(tokens.masked_fill(~mask, padding), mask)


def video(lengths: list[int], longest: int, seed: int = 2) -> VideoBatch:
    frames = torch.randn(len(lengths), longest, FEATURES, generator=torch.Generator().manual_seed(seed))
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    return VideoBatch(frames * mask[:, :, None], mask)


def test_gated_unit_in_closed_form() -> None:
    unit, states = GatedUnit(3, 2), torch.randn(4, 5, 3)
    mapped = states @ unit.linear.weight.T + unit.linear.bias
    wanted = mapped / (1 + (-(mapped @ unit.gate.weight.T + unit.gate.bias)).exp())
    torch.testing.assert_close(unit(states), wanted)


def test_a_block_equals_the_loop() -> None:
    torch.manual_seed(3)
    block, states, mask = TransformerBlock(8, 2), torch.randn(1, 5, 8), torch.tensor([[True, True, True, False, False]])
    query, key, value = block.query_key_value(block.attention_norm(states[0])).chunk(3, dim=1)  # each (5, 8)
    attended = torch.zeros(5, 8)
    for head in (slice(0, 4), slice(4, 8)):
        for i in range(5):
            scores = torch.stack([query[i, head] @ key[j, head] / 4**0.5 for j in range(3)])
            attended[i, head] = scores.softmax(0) @ value[:3, head]
    wanted = states[0] + block.output(attended)
    wanted = wanted + block.outer(F.gelu(block.inner(block.mlp_norm(wanted))))
    torch.testing.assert_close(block(states, mask)[0], wanted)


@pytest.mark.parametrize("encoder", list(ENCODERS), indirect=True)
def test_any_encoder_unit_length_and_independent_of_padding_and_neighbours(encoder: Path) -> None:
    network = build(encoder)
    padding = network.text.backbone.config.pad_token_id
    together = network.embed_text(text([3, 7, 5], 9, padding))
    alone = text([3, 7, 5], 9, padding)
    assert together.shape == (3, JOINT)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    for row, length in enumerate((3, 7, 5)):
        single = network.embed_text(TextBatch(alone.tokens[row : row + 1, :length], alone.mask[row : row + 1, :length]))
        torch.testing.assert_close(together[row], single[0], atol=1e-5, rtol=0)


def test_videos_padding_order_scale_and_the_empty_one(encoder: Path) -> None:
    network = build(encoder)
    whole = video([4, 0, 6], 6)
    found = network.embed_visual(whole)
    padded = VideoBatch(F.pad(whole.frames, (0, 0, 0, 3)), F.pad(whole.mask, (0, 3)))
    torch.testing.assert_close(network.embed_visual(padded), found, atol=1e-6, rtol=0)
    scaled = VideoBatch(7 * whole.frames, whole.mask)  # rows are brought to unit length
    torch.testing.assert_close(network.embed_visual(scaled), found, atol=1e-6, rtol=0)
    backwards = VideoBatch(whole.frames[2:].flip(1), whole.mask[2:])  # no positions: frames are a set
    torch.testing.assert_close(network.embed_visual(backwards)[0], found[2], atol=1e-6, rtol=0)
    noise = VideoBatch(torch.randn_like(whole.frames), torch.zeros_like(whole.mask))
    torch.testing.assert_close(network.embed_visual(noise), found[[1, 1, 1]], atol=1e-6, rtol=0)
    network.video.nothing.data += torch.arange(WIDTH)  # all alike would vanish in LayerNorm
    changed = network.embed_visual(whole)
    assert torch.equal(changed[[0, 2]], found[[0, 2]]) and not torch.allclose(changed[1], found[1], atol=1e-3)


@pytest.mark.parametrize("encoder", list(ENCODERS), indirect=True)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_captions_in_parts_of_like_length_are_the_same(encoder: Path, count: int) -> None:
    network = build(encoder)
    padding = network.text.backbone.config.pad_token_id
    captions, rows = text([3, 9, 5, 1, 9, 2, 4][:count], 9, padding), {"en": torch.arange(count)}
    batch = MultilingualBatch.of({"en": captions}, rows, video([1], 1), padding=padding)
    assert len(batch.texts) == min(count, 4)
    found = network.text.in_parts(batch.texts, batch.places)
    torch.testing.assert_close(found, network.text(captions), atol=1e-6, rtol=0)
    pooled = PooledTextBatch(captions.tokens, captions.mask, captions.mask.flip(1))
    released, whole = build(encoder, "labse"), MultilingualBatch.of({"en": pooled}, rows, video([1], 1))
    assert torch.equal(released.text.in_parts(whole.texts, whole.places), released.text(pooled))


def test_the_released_reading_averages_over_the_positions_of_labse(encoder: Path) -> None:
    released, own = build(encoder, "labse"), build(encoder)
    batch = text([3, 7], 9)
    states = own.text.backbone(batch.tokens, attention_mask=batch.mask.long()).last_hidden_state
    pool = torch.arange(9) < torch.tensor([5, 4])[:, None]  # beyond the first caption's tokens, short of the second's
    means = torch.stack([states[0, :5].mean(0), states[1, :4].mean(0)])
    wanted = F.normalize(own.text.project(own.text.norm(means)), dim=1)
    pooled = PooledTextBatch(batch.tokens, batch.mask, pool)
    torch.testing.assert_close(released.embed_text(pooled), wanted.detach())
    assert not torch.allclose(own.embed_text(batch), wanted, atol=1e-3)
    torch.testing.assert_close(own.embed_text(pooled), own.embed_text(batch))  # corrected: its own mask
    same = PooledTextBatch(batch.tokens, batch.mask, batch.mask)
    torch.testing.assert_close(released.embed_text(same), own.embed_text(batch))
    with pytest.raises(ValueError, match="LaBSE's mask"):
        released.embed_text(batch)


def test_an_unknown_reading_is_refused(encoder: Path) -> None:
    with pytest.raises(ValueError, match="choose labse or own"):
        build(encoder, "padded")  # type: ignore[arg-type]


@pytest.mark.parametrize("pool_mask", ["own", "labse"])
@pytest.mark.parametrize("encoder", ["bert", "xlm-roberta"], indirect=True)
def test_languages_together_equal_each_alone(encoder: Path, pool_mask: PoolMask) -> None:
    network = build(encoder, pool_mask)
    padding = network.text.backbone.config.pad_token_id
    parts: dict[str, TextBatch] = {"en": text([3, 4, 2], 4, padding), "de": text([6, 9], 9, padding, seed=5)}
    if pool_mask == "labse":
        parts = {
            name: PooledTextBatch(
                part.tokens, part.mask, torch.arange(part.mask.shape[1]) < torch.full((len(part.mask), 1), 4)
            )
            for name, part in parts.items()
        }
    rows = {"en": torch.arange(3), "de": torch.tensor([2, 0])}
    out = network(MultilingualBatch.of(parts, rows, video([4, 0, 6], 6), padding=padding))
    for name, part in parts.items():
        torch.testing.assert_close(out.texts[name], network.embed_text(part), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.visual, network.embed_visual(video([4, 0, 6], 6)), atol=1e-6, rtol=0)
    assert out.rows == rows and out.empty is None
    doubled = out.map(lambda tensor: torch.cat([tensor, tensor]))  # as gathered from two processes
    assert doubled.empty is None and doubled.texts["de"].shape == (4, JOINT) and doubled.rows["en"].shape == (6,)


def test_embedding_leaves_the_mode_and_gives_no_gradient(encoder: Path) -> None:
    network = build(encoder).train()
    first, second = (network.embed_text(text([3, 7], 9)) for _ in range(2))
    assert torch.equal(first, second) and not first.requires_grad and network.training
    assert not network.embed_visual(video([2], 3)).requires_grad


def test_teachers_precomputed_equal_teachers_in_the_loop(encoder: Path) -> None:
    student, teachers = build(encoder), [build(encoder), build(encoder)]
    for seed, teacher in enumerate(teachers):
        torch.manual_seed(seed)
        for parameter in teacher.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
        teacher.train()  # embedding is in evaluation mode all the same
    captions, videos = text([3, 7, 5, 2, 9, 4], 9), video([4, 2, 6, 1, 3, 5], 6)
    stored = [(teacher.embed_text(captions), teacher.embed_visual(videos)) for teacher in teachers]
    chosen = torch.tensor([4, 0, 3])
    own, clips = (
        TextBatch(captions.tokens[chosen], captions.mask[chosen]),
        VideoBatch(videos.frames[chosen], videos.mask[chosen]),
    )
    out = student(MultilingualBatch.of({"en": own}, {"en": torch.arange(3)}, clips))
    objective = C2KDObjective(C2KDSection(), count=2)
    in_loop = teacher_scores([(teacher.embed_text(own), teacher.embed_visual(clips)) for teacher in teachers])
    precomputed = teacher_scores([(texts[chosen], visual[chosen]) for texts, visual in stored])
    assert not torch.allclose(in_loop[0], in_loop[1], atol=1e-3)
    losses = [total(objective(out, scores)).item() for scores in (in_loop, precomputed)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_every_parameter_gets_a_gradient(encoder: Path) -> None:
    network = build(encoder).train()
    out = network(MultilingualBatch.of({"en": text([3, 4], 5)}, {"en": torch.arange(2)}, video([3, 0], 4)))
    (out.texts["en"] * torch.randn(2, JOINT)).sum().add((out.visual * torch.randn(2, JOINT)).sum()).backward()
    without = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    assert not without


def test_bfloat16_gives_unit_vectors_in_float32(encoder: Path) -> None:
    network = build(encoder)
    batch = MultilingualBatch.of({"en": text([3, 4], 5)}, {"en": torch.arange(2)}, video([3, 0], 4))
    exact = network(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = network(batch)
    for found, wanted in ((rounded.texts["en"], exact.texts["en"]), (rounded.visual, exact.visual)):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
        torch.testing.assert_close(found, wanted, atol=0.1, rtol=0)


def test_a_batch_moves_itself_whole() -> None:
    english = PooledTextBatch(torch.ones(1, 2), torch.ones(1, 2), torch.ones(1, 2))
    batch = MultilingualBatch.of({"en": english}, {"en": torch.arange(1)}, video([1], 1), empty=torch.tensor([True]))
    moved = batch.to("meta")
    tensors = [*vars(moved.texts[0]).values(), moved.places, *moved.rows.values(), *vars(moved.visual).values()]
    given = [value for value in (*tensors, moved.empty) if isinstance(value, Tensor)]
    assert len(given) == 8 and {tensor.device.type for tensor in given} == {"meta"}
    assert isinstance(moved.texts[0], PooledTextBatch) and moved.english is None


# Our names -> the published ones.
PUBLISHED = {
    "text.backbone.": "fusion_text.",
    "text.norm.": "text_proj.0.",
    "text.project.linear.": "text_proj.1.fc.",
    "text.project.gate.": "text_proj.1.cg.fc.",
    "video.embed.linear.": "video_token_proj.fc.",
    "video.embed.gate.": "video_token_proj.cg.fc.",
    "video.embed_norm.": "video_norm_layer.",
    "video.project.linear.": "video_proj.fc.",
    "video.project.gate.": "video_proj.cg.fc.",
    "video.cls": "fusion_video.cls_token",
    "video.nothing": "fusion_video.masking_token",
    **{
        f"video.blocks.{i}.{ours}.": f"fusion_video.blocks.{i}.{theirs}."
        for i in range(2)
        for ours, theirs in (
            ("attention_norm", "norm1"), ("query_key_value", "attn.qkv"), ("output", "attn.proj"),
            ("mlp_norm", "norm2"), ("inner", "mlp.fc1"), ("outer", "mlp.fc2"),
        )
    },
}  # fmt: skip


def published_state(network: C2KD, prefix: str = "") -> dict[str, Tensor]:
    state = {}
    for name, value in network.state_dict().items():
        ((ours, theirs),) = [pair for pair in PUBLISHED.items() if name.startswith(pair[0])]
        state[prefix + theirs + name.removeprefix(ours)] = value.clone()
    state[prefix + "fusion_video.cls_token"] = state[prefix + "fusion_video.cls_token"].reshape(1, 1, -1)
    unused = (
        "fusion_text.pooler.dense.weight", "fusion_text.embeddings.position_ids", "text_proj_t2t.0.weight",
        "davenet.conv1.weight", "audio_proj.fc.weight", "audio_token_proj.fc.weight", "audio_norm_layer.bias",
        "text_token_proj.fc.bias", "text_norm_layer.weight", "fusion_video.norm.weight", "fusion.cls_token",
        "learnable_weights",
    )  # fmt: skip
    return state | {prefix + name: torch.ones(2) for name in unused}


def load(path: Path, encoder: Path, *overrides: str) -> Retriever:
    return nrccr.load(path, text_model=encoder, overrides=[f"c2kd.labse={encoder}", *overrides])


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("encoder", list(ENCODERS), indirect=True)
def test_published_weights_come_back(encoder: Path, tmp_path: Path, prefix: str) -> None:
    network, path = use_fast_layers(build(encoder)), tmp_path / "latest_model.pth"
    torch.save({"state_dict": published_state(network, prefix), "epoch": 3, "arch": "X"}, path)
    model = nrccr.load(path, text_model=encoder, overrides=["switches.pool_mask=own"])
    loaded = model.network
    assert not loaded.training and loaded.feature_width == model.feature_width == FEATURES
    padding = network.text.backbone.config.pad_token_id
    assert torch.equal(loaded.embed_text(text([3, 7], 9, padding)), network.embed_text(text([3, 7], 9, padding)))
    assert torch.equal(loaded.embed_visual(video([3, 0], 4)), network.embed_visual(video([3, 0], 4)))
    assert load(path, encoder).network.text.pool_mask == "labse"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.update({"extra.weight": torch.ones(1)}), "unknown tensor extra.weight"),
        (lambda state: state.update({"video_proj.fc.bias": 3}), "video_proj.fc.bias is no tensor"),
        (lambda state: state.pop("fusion_video.masking_token"), "video.nothing"),
        (lambda state: state.pop("text_proj.1.fc.weight"), "lacks the matrix text.project.linear.weight"),
        (lambda state: state.update({"text_proj.0.weight": torch.ones(5)}), "text.norm.weight"),
        (lambda state: state.pop("fusion_text.embeddings.word_embeddings.weight"), "text.model="),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_one_line(encoder: Path, tmp_path: Path, change: Any, says: str) -> None:
    state, path = published_state(build(encoder)), tmp_path / "latest_model.pth"
    change(state)
    torch.save({"state_dict": state}, path)
    with pytest.raises(UserError) as caught:
        load(path, encoder)
    assert "\n" not in str(caught.value) and says in str(caught.value) and str(path) in str(caught.value)


def test_other_checkpoints_are_not_ours(encoder: Path, tmp_path: Path) -> None:
    path = tmp_path / "latest_model.pth"
    for other in ({}, {"state_dict": {}}, {"state_dict": [1]}, {"model": [{}], "opt": {}}):
        assert not is_c2kd(other) and published(path, other) is None
        torch.save(other, path)
        with pytest.raises(UserError, match="not a published checkpoint of nrccr, mlcmr, c2kd .*; give a run folder"):
            load(path, encoder)
