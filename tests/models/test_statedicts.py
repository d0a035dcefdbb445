"""State dicts: what wrappers put into names is taken out in one place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BertConfig

from nrccr.errors import UserError
from nrccr.models.statedicts import Trained, require_same_sizes, unwrapped, without_wrappers
from nrccr.safeload.unpickle import load_checkpoint
from nrccr.systems.c2kd.published import published as c2kd
from nrccr.systems.mlcmr.published import published as mlcmr
from nrccr.systems.nrccr.published import published as nrccr

PREFIXES = ["module.", "module.module.", "_orig_mod.", "module._orig_mod."]


@pytest.mark.parametrize("prefix", [*PREFIXES, "_orig_mod.module.module."])
def test_names_lose_what_wrappers_put_there(prefix: str) -> None:
    assert unwrapped(f"{prefix}encoder.layer.0.weight") == "encoder.layer.0.weight"
    assert unwrapped(f"{prefix}encoder._orig_mod.layer._orig_mod.0.weight") == "encoder.layer.0.weight"


@pytest.mark.parametrize("name", ["a.module.weight", "my_module.weight", "modules.weight", "not_orig_mod.weight"])
def test_other_names_stay(name: str) -> None:
    assert unwrapped(name) == name


def test_a_tensor_under_both_names_is_refused() -> None:
    with pytest.raises(UserError, match=r"x\.pt: holds tensors twice"):
        without_wrappers({"a": torch.ones(1), "module.a": torch.zeros(1)}, Path("x.pt"))


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    ("system", "place"), [(nrccr, "nrccr_video/runs_0/model_best.pth.tar"), (mlcmr, "mlcmr"), (c2kd, "c2kd")]
)
def test_wrapped_checkpoints_are_read_as_the_plain_ones(system: object, place: str, prefix: str, shared: Path) -> None:
    folder = shared / "golden" / place
    path = folder if folder.is_file() else next(iter(sorted([*folder.rglob("*.pth.tar"), *folder.rglob("*.pth")])))
    plain = load_checkpoint(path)
    wrapped = dict(plain)
    if system is c2kd:
        wrapped["state_dict"] = {f"{prefix}{unwrapped(name)}": value for name, value in plain["state_dict"].items()}
    else:
        wrapped["model"] = [
            {f"{prefix}{unwrapped(name)}": value for name, value in part.items()} for part in plain["model"]
        ]
    found, expected = system(path, wrapped), system(path, plain)  # type: ignore[operator]
    assert found is not None and found.config == expected.config
    assert found.weights.keys() == expected.weights.keys()
    assert all(torch.equal(value, expected.weights[name]) for name, value in found.weights.items())


def test_sizes_of_tables_that_are_none() -> None:
    """A stranger's weights: what has no rows says nothing of sizes, and is refused where weights are loaded."""
    table = "text.backbone.embeddings.{}_embeddings.weight"
    weights = {table.format("word"): torch.zeros(()), table.format("position"): torch.zeros(())}
    require_same_sizes(BertConfig(), Trained(weights, Path("weights")), "bert")
