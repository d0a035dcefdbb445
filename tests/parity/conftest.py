"""The golden video checkpoint, read the way a user would read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nrccr.safeload.unpickle import load_checkpoint
from nrccr.systems.nrccr.published import Published, read_published


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    """Folder of the golden video collection and checkpoint."""
    return shared / "golden" / "nrccr_video"


@pytest.fixture
def published(golden: Path) -> Published:
    """The golden checkpoint, interpreted."""
    path = golden / "runs_0" / "model_best.pth.tar"
    return read_published(path, load_checkpoint(path), [f"text.model={golden / 'bert'}"])
