"""A short attack on the served page; the long one is `python -m tests.search.attack`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.search.conftest import TESTED
from tests.search.serving import render

pytest.importorskip("gradio", reason="needs the extra serve")
pytest.importorskip("av", reason="needs the extra extract")


@pytest.mark.slow
def test_short_attack(index: Path, tmp_path: Path) -> None:
    from tests.search.attack import attack

    lines = [*attack(index, render(tmp_path / "media", TESTED), "人唱红球", (20, 5.0, 10_000.0))]
    assert len(lines) == 7 and "206" in lines[5], lines
