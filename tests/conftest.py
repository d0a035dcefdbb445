"""Fixtures that every test folder may use."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

# Small tensors gain nothing from threads, and lose much where other processes hold the cores.
torch.set_num_threads(1)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden numbers and real captions beside the checkout; skips where it is missing."""
    if not SHARED.is_dir():
        pytest.skip("needs the folder ../shared (golden numbers, real captions), which this machine lacks")
    return SHARED
