"""Fixtures of the tests of reports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nrccr.report.finished import ReportRun
from tests.report.generated_runs import generated_runs


@pytest.fixture
def noisy(
    tmp_path_factory: pytest.TempPathFactory, nrccr_command: Callable[..., Any], tiny_config: Path
) -> list[ReportRun]:
    """The basic model and NRCCR on a small generated collection with noisy translations."""
    return generated_runs(tmp_path_factory.getbasetemp(), nrccr_command, tiny_config)
