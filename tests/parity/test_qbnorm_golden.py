"""QB-Norm's numbers from the published script."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nrccr.evaluation.normalise import normalise

BETAS = {"20.000": 20.0, "0.503": 1 / 1.99}


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("beta", BETAS)
def test_arrays(shared: Path, beta: str, k: int) -> None:
    folder = shared / "golden" / "qbnorm"
    with np.load(folder / "arrays.npz") as arrays:
        test, bank, expected = arrays["test"], arrays["bank"], arrays[f"qbnorm_beta{beta}_k{k}"]
    activated = json.loads((folder / "expected.json").read_text())[f"activated_beta{beta}_k{k}"]
    found = normalise(test, bank, beta=BETAS[beta], k=k)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert int((found != test).any(axis=1).sum()) == activated
