"""The shared parts against loops over captions, heads and positions written from the specification."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from nrccr.models.attention import AttentionBlock, Projection, additive_mask
from nrccr.models.layers import JointMapping, mean_over_positions

LENGTHS = [5, 2, 3]  # of padded sequences of five positions
WIDTH, HEADS = 24, 4


def mask_of(lengths: list[int], longest: int) -> Tensor:
    return torch.arange(longest) < torch.tensor(lengths)[:, None]


def layer_norm(row: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
    mean, variance = row.mean(), row.var(correction=0)
    return (row - mean) / math.sqrt(variance.item() + 1e-5) * norm.weight + norm.bias


def brute(
    block: AttentionBlock,
    queries: Tensor,
    query_mask: Tensor,
    keys: Tensor,
    key_mask: Tensor,
    *,
    outer: bool,
    scale: float,
    residual: bool,
) -> Tensor:
    """One caption, one query row, one head at a time."""
    wide, narrow = 512 // HEADS, WIDTH // HEADS
    result = torch.zeros(len(queries), queries.shape[1], WIDTH)
    for n in range(len(queries)):
        for i, row in enumerate(queries[n]):
            heads = []
            for h in range(HEADS):
                q = (block.query.weight @ row + block.query.bias)[h * wide : (h + 1) * wide]
                scores, values = [], []
                for j, column in enumerate(keys[n]):
                    k = (block.key.weight @ column + block.key.bias)[h * wide : (h + 1) * wide]
                    seen = float(key_mask[n, j]) * (float(query_mask[n, i]) if outer else 1.0)
                    scores.append(q @ k / scale + (1.0 - seen) * -10000.0)
                    values.append((block.value.weight @ column + block.value.bias)[h * narrow : (h + 1) * narrow])
                weights = torch.stack(scores).softmax(dim=0)
                heads.append(sum(weight * value for weight, value in zip(weights, values, strict=True)))
            mixed = block.output.weight @ torch.cat(heads) + block.output.bias
            state = layer_norm(mixed + row if residual else mixed, block.norm)
            if block.feed_forward is not None:
                inner, out = block.feed_forward.inner, block.feed_forward.outer
                forwarded = out.weight @ (inner.weight @ state + inner.bias).clamp(min=0) + out.bias
                state = layer_norm(state + forwarded, block.feed_forward.norm)
            result[n, i] = state
    return result


def block_of(**options: Any) -> AttentionBlock:
    torch.manual_seed(0)
    block = AttentionBlock(WIDTH, HEADS, **options).eval()
    for norm in (module for module in block.modules() if isinstance(module, torch.nn.LayerNorm)):
        torch.nn.init.normal_(norm.weight), torch.nn.init.normal_(norm.bias)
    return block


READINGS: list[tuple[dict[str, Any], bool, float]] = [  # options, outer mask, divisor
    ({}, True, math.sqrt(WIDTH / HEADS)),
    ({"mask": "key"}, False, math.sqrt(WIDTH / HEADS)),
    ({"mask": "key", "scale": "key_width", "feed_forward": True}, False, math.sqrt(512 / HEADS)),
]


@torch.no_grad()
@pytest.mark.parametrize(("options", "outer", "scale"), READINGS, ids=["released", "corrected", "paper"])
def test_attention_is_the_loop(options: dict[str, Any], outer: bool, scale: float) -> None:
    block = block_of(**options)
    states, others = torch.randn(3, 5, WIDTH), torch.randn(3, 4, WIDTH)
    mask, other_mask = mask_of(LENGTHS, 5), mask_of([1, 4, 2], 4)
    reading: dict[str, Any] = {"outer": outer, "scale": scale}
    own = block(states, mask)
    expected = brute(block, states, mask, states, mask, residual=True, **reading)
    torch.testing.assert_close(own[mask], expected[mask], atol=1e-5, rtol=1e-5)
    # -10000 takes three digits of a padded row's scores in float32, here and in the loop.
    torch.testing.assert_close(own[~mask], expected[~mask], atol=1e-2, rtol=1e-2)
    cross = block.cross(block.heads_of(states), mask, block.heads_of(others), other_mask)
    assert cross.shape == (3, 5, WIDTH)
    expected = brute(block, states, mask, others, other_mask, residual=False, **reading)
    torch.testing.assert_close(cross[mask], expected[mask], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_padded_query_attends_to_everything_in_the_released_reading_alone() -> None:
    states, mask = torch.randn(3, 5, WIDTH), mask_of(LENGTHS, 5)
    seeing_all = block_of()(states, torch.ones(3, 5))
    released, key = block_of()(states, mask), block_of(mask="key")(states, mask)
    torch.testing.assert_close(released[~mask], seeing_all[~mask], atol=1e-2, rtol=1e-2)
    assert (key[~mask] - seeing_all[~mask]).abs().max() > 0.1
    assert (released[1, :2] - seeing_all[1, :2]).abs().max() > 0.1, "real queries must not see padding"
    torch.testing.assert_close(released[mask], key[mask])


def test_additive_mask() -> None:
    query, key = torch.tensor([[1, 1, 0]]), torch.tensor([[1, 0]])
    outer = additive_mask(query, key, "outer")
    assert outer.tolist() == [[[[-0.0, -10000], [-0.0, -10000], [-10000, -10000]]]]
    assert additive_mask(query, key, "key").tolist() == [[[[-0.0, -10000]]]]


def test_queries_and_keys_are_512_wide_whatever_the_heads() -> None:
    for heads in (1, 2, 8):
        block = AttentionBlock(WIDTH, heads)
        assert block.query.out_features == block.key.out_features == 512
        assert block.value.out_features == WIDTH and block.feed_forward is None


def test_pooling() -> None:
    states = torch.tensor([[[2.0], [4.0], [9.0]], [[1.0], [5.0], [6.0]], [[7.0], [8.0], [9.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 0, 0]]).bool()
    assert mean_over_positions(states, mask, "padded").tolist() == [[5.0], [4.0], [8.0]]
    assert mean_over_positions(states, mask, "masked").tolist() == [[3.0], [4.0], [0.0]]


@torch.no_grad()
def test_projection() -> None:
    torch.manual_seed(0)
    project = Projection(6, WIDTH, positions=7).eval()
    states = torch.randn(2, 4, 6)
    states[1, 2:] = 0  # padding passes through every layer
    projected = project(states)
    for n in range(2):
        for i in range(4):
            row = layer_norm(states[n, i], project.input_norm)
            row = (project.linear.weight @ row + project.linear.bias).clamp(min=0) + project.positions.weight[i]
            torch.testing.assert_close(projected[n, i], layer_norm(row, project.norm), atol=1e-5, rtol=1e-5)


def test_mapping() -> None:
    torch.manual_seed(0)
    mapping = JointMapping(6, 8, dropout=0.0)
    assert torch.equal(mapping.linear.bias, torch.zeros(8))
    bound = math.sqrt(6 / (6 + 8))
    assert bound / 2 < mapping.linear.weight.abs().max() <= bound, "Xavier-uniform"
    vectors = torch.randn(5, 6)
    mapped = mapping(vectors)
    linear = vectors @ mapping.linear.weight.T
    normalised = (linear - linear.mean(0)) / (linear.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(mapped, normalised / normalised.norm(dim=1, keepdim=True))
    torch.testing.assert_close(mapping.norm.running_mean, 0.1 * linear.mean(0))
    torch.testing.assert_close(mapping.norm.running_var, 0.9 + 0.1 * linear.var(0))


def test_mapping_stays_in_float32_under_autocast() -> None:
    mapping = JointMapping(6, 8).eval()
    vectors = torch.randn(5, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mapped = mapping(vectors)
    assert mapped.dtype == torch.float32
    torch.testing.assert_close(mapped, mapping(vectors))


def test_dropout_is_where_the_specification_has_it() -> None:
    block, project = AttentionBlock(WIDTH, HEADS), Projection(6, WIDTH, 4)
    rates = {module.p for part in (block, project) for module in part.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.1}
    assert JointMapping(6, 8).dropout.p == 0.2
    states, mask = torch.randn(3, 5, WIDTH), mask_of(LENGTHS, 5)
    assert not torch.equal(block(states, mask), block(states, mask))
    block.eval()
    assert torch.equal(block(states, mask), block(states, mask))


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_vectors_for_statistics_take_the_running_ones(rows: int) -> None:
    mapping = JointMapping(6, 8, dropout=0.0)
    mapping(torch.randn(5, 6))
    before = {name: value.clone() for name, value in mapping.named_buffers()}
    vectors = torch.randn(rows, 6)
    mapped = mapping(vectors)
    assert all(torch.equal(before[name], value) for name, value in mapping.named_buffers())
    torch.testing.assert_close(mapped, mapping.eval()(vectors))
    (wanted,) = torch.autograd.grad(mapped.sum(), mapping.linear.weight, retain_graph=True)
    mapping.train()(torch.randn(5, 6))  # moves the statistics before the gradients are taken
    (found,) = torch.autograd.grad(mapped.sum(), mapping.linear.weight)
    torch.testing.assert_close(found, wanted)
