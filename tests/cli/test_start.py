"""What the command line does before any command: version, completion, and a quick start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nrccr

Command = Callable[..., Any]
CHECKOUT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "accelerate", "pydantic", "tensorboard", "safetensors", "numpy", "rich")


def started(code: str, **variables: str) -> str:
    """What Python code prints in a process of its own."""
    paths = {"PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | paths | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout


def test_version(nrccr_command: Command) -> None:
    done = nrccr_command("--version")
    assert (done.code, done.out, done.err) == (0, f"nrccr {nrccr.__version__}\n", "")


def test_help_names_every_command_without_heavy_imports() -> None:
    code = (
        "import sys\nfrom nrccr.cli.app import main\nsys.argv = ['nrccr', '--help']\n"
        f"try: main()\nfinally: print('loaded:', [name for name in {HEAVY} if name in sys.modules])"
    )
    printed = started(code)
    assert printed.endswith("loaded: []\n")
    for command in ("train", "test", "bank", "check", "generate", "rank", "noise", "table", "compare", "qbnorm"):
        assert f"\n  {command} " in printed


def test_the_shell_completes_commands_and_configurations() -> None:
    code = "import sys\nsys.argv = ['nrccr']\nfrom nrccr.cli.app import main\nmain()"

    def completed(words: str, position: int) -> list[str]:
        variables = {"_NRCCR_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(position)}
        return started(code, **variables).split()

    assert completed("nrccr ge", 1) == ["generate"]
    assert completed("nrccr train mlcmr/g", 2) == ["mlcmr/generated"]


def test_an_unknown_option_or_command_is_one_line(nrccr_command: Command) -> None:
    for wrong in ("--no-such-option", "no-such-command"):
        done = nrccr_command(wrong)
        assert done.code == 2 and len(done.err.splitlines()) == 1 and done.err.startswith("nrccr: "), done.err
