"""Libraries of extras: one line where they are missing, the same names in every list."""

from __future__ import annotations

import math
import subprocess
import tomllib
from pathlib import Path

import pytest

from nrccr.errors import UserError
from nrccr.extras import need

CHECKOUT = Path(__file__).resolve().parents[1]


def test_an_installed_module_is_given() -> None:
    assert need("math", "search") is math


def test_a_missing_one_names_the_command_that_installs_it() -> None:
    with pytest.raises(UserError, match=r"no_such_library is not installed.*nrccr\[search\].*setup.sh search"):
        need("no_such_library", "search")


def test_an_error_inside_an_installed_module_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_installed.py").write_text("import no_such_part\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_part"):
        need("half_installed", "search")


def test_every_extra_has_its_pins() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    for extra in project["optional-dependencies"]:
        pins = (CHECKOUT / f"requirements-{extra}.txt").read_text()
        assert "==" in pins, extra


def test_an_unknown_extra_is_refused() -> None:
    done = subprocess.run(["scripts/setup.sh", "nothing"], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr == "setup: there is no extra nothing; see requirements-*.txt\n"
