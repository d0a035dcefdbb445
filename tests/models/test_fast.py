"""Linear layers by oneDNN are torch's own; dropout drops as often as torch's own."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nrccr.models import fast
from nrccr.models.fast import Dropout, Linear, dropout, linear, maker, use_fast_layers


@pytest.fixture(autouse=True, params=[True, False], ids=["oneDNN", "torch"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways, whatever this machine takes by itself."""
    if request.param and not fast.HAS_ONEDNN:
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(fast, "ASKS_ONEDNN", request.param)


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ("processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\n", "AuthenticAMD"),
        ("processor\t: 0\nvendor_id\t: GenuineIntel\n", "GenuineIntel"),
        ("processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\n", ""),
    ],
)
def test_maker_of_the_processor(told: str, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "_CPUINFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(told, encoding="ascii")
    assert maker() == wanted


def test_maker_where_there_is_no_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "_CPUINFO", tmp_path / "none")
    monkeypatch.setattr(platform, "processor", lambda: "AMD64 Family 25 Model 33 Stepping 2, AuthenticAMD")
    assert maker() == "AuthenticAMD"


@pytest.mark.parametrize("vendor", ["AuthenticAMD", "GenuineIntel"])
@pytest.mark.parametrize("units", ["AVX2", "AVX512"])
def test_onednn_is_asked_on_amds_processors_with_avx512_alone(
    vendor: str, units: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast, "maker", lambda: vendor)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: units)
    assert fast.asks_onednn() == (fast.HAS_ONEDNN and vendor == "AuthenticAMD" and units == "AVX512")


def test_onednn_is_asked_where_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(fast, "product", lambda *of: asked.append(of) or functional.linear(*of))
    linear(torch.ones(2, 3), torch.ones(4, 3))
    assert bool(asked) == fast.ASKS_ONEDNN


def with_gradients(layer: nn.Linear, states: Tensor) -> list[Tensor]:
    """Output and gradients of states, weight and bias."""
    states = states.clone().requires_grad_()
    layer.zero_grad()
    out = layer(states)
    (out * torch.arange(out.numel()).view_as(out).cos()).sum().backward()
    return [out.detach(), *(part.grad for part in (states, *layer.parameters()) if part.grad is not None)]


@pytest.mark.parametrize(("inputs", "outputs", "bias"), [(12, 20, True), (20, 12, True), (12, 1, False)])
@pytest.mark.parametrize("shape", [(5,), (3, 7), (2, 3, 4)])
def test_output_and_gradients(inputs: int, outputs: int, bias: bool, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(inputs, outputs, bias=bias)
    states = torch.randn(*shape, inputs)
    wanted = with_gradients(layer, states)
    found = with_gradients(use_fast_layers(layer), states)
    assert type(layer) is Linear and len(found) == len(wanted) == 3 + bias
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("inputs", "outputs"), [(512, 520), (520, 512), (24, 40)])
def test_gradients_over_many_rows(inputs: int, outputs: int) -> None:
    """Rows are summed in blocks, of which the last is shorter; a high weight is turned first."""
    torch.manual_seed(0)
    layer = nn.Linear(inputs, outputs).double()
    states = torch.randn(2 * fast._ROWS + 101, inputs)
    wanted = with_gradients(layer, states.double())
    found = with_gradients(use_fast_layers(layer.float()), states)
    for ours, theirs in zip(found, wanted, strict=True):
        error = (ours - theirs).abs().max() / theirs.abs().max()
        assert error < 1e-5


def test_slices_and_transposed_states() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 4)
    for states in (torch.randn(6, 9).T, torch.randn(9, 12)[:, ::2], torch.randn(1, 6).expand(9, 6)):
        torch.testing.assert_close(linear(states, layer.weight, layer.bias), layer(states))


def test_what_is_frozen_gets_no_gradient() -> None:
    layer = use_fast_layers(nn.Linear(6, 4))
    layer.weight.requires_grad_(False)
    states = torch.randn(3, 6)
    layer(states).sum().backward()
    assert layer.weight.grad is None and layer.bias.grad is not None
    layer.requires_grad_(False)
    assert not layer(states).requires_grad


def test_other_layers_and_states_stay() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.MultiheadAttention(4, 2), nn.LayerNorm(3), nn.Dropout(0.3))
    assert type(use_fast_layers(nn.Dropout(0.3, inplace=True))) is nn.Dropout
    before = {name: value.clone() for name, value in network.state_dict().items()}
    kinds = [type(module) for module in network.modules()]
    use_fast_layers(network)
    ours = {nn.Linear: Linear, nn.Dropout: Dropout}
    assert [type(module) for module in network.modules()] == [ours.get(kind, kind) for kind in kinds]
    after = network.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("case", ["float64", "bfloat16", "autocast", "meta", "empty"])
def test_torch_computes_what_onednn_does_not(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> Tensor:
        raise AssertionError("oneDNN was asked")

    monkeypatch.setattr(fast, "product", never)
    dtype = {"float64": torch.float64, "bfloat16": torch.bfloat16}.get(case, torch.float32)
    states = torch.ones(0 if case == "empty" else 5, 3, dtype=dtype, device="meta" if case == "meta" else "cpu")
    weight = torch.ones(2, 3, dtype=dtype, device=states.device)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=case == "autocast"):
        found, wanted = linear(states, weight), functional.linear(states, weight)
    assert (found.shape, found.dtype, found.device) == (wanted.shape, wanted.dtype, wanted.device)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.83])
def test_dropout(rate: float) -> None:
    torch.manual_seed(0)
    layer = use_fast_layers(nn.Dropout(rate))
    states = torch.full((3, 333, 101), 2.0, requires_grad=True)
    out = layer(states)
    out.sum().backward()
    kept = out != 0
    count = kept.numel()
    assert abs(kept.float().mean().item() - (1 - rate)) < 4 * (rate * (1 - rate) / count) ** 0.5
    for axis in ((1, 2), (0, 2), (0, 1)):  # no row or column is dropped oftener than others
        shares = kept.float().mean(dim=axis)
        assert (shares - (1 - rate)).abs().max() < 5 * (rate * (1 - rate) * len(shares) / count) ** 0.5
    flat = kept.flatten().float() - (1 - rate)
    assert abs((flat[1:] * flat[:-1]).mean().item()) < 5 * rate * (1 - rate) / count**0.5  # halves of one number
    torch.testing.assert_close(out[kept], torch.full_like(out[kept], 2 / (1 - rate)))
    assert states.grad is not None
    torch.testing.assert_close(states.grad, out.detach() / 2)


def test_dropout_repeats_with_the_generator_and_rests_in_evaluation() -> None:
    layer, states = use_fast_layers(nn.Dropout(0.5)), torch.ones(7, 5)
    generator = torch.get_rng_state()
    first, second = layer(states), layer(states)
    torch.set_rng_state(generator)
    assert torch.equal(layer(states), first) and not torch.equal(first, second)
    assert layer.eval()(states) is states
    assert torch.equal(dropout(states, 0.0), states) and not dropout(states, 1.0).any()
    assert dropout(torch.ones(3, device="meta"), 0.5).device.type == "meta"
    assert dropout(torch.ones(3, dtype=torch.bfloat16), 0.5).dtype == torch.bfloat16
