"""The README's picture is what its script draws."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

CHECKOUT = Path(__file__).resolve().parents[1]


def test_picture_is_up_to_date(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "docs").mkdir()
    script = shutil.copy(CHECKOUT / "scripts" / "draw_pipeline.py", tmp_path / "scripts")
    subprocess.run([sys.executable, script], check=True)
    drawn = (tmp_path / "docs" / "pipeline.svg").read_text(encoding="utf-8")
    assert drawn == (CHECKOUT / "docs" / "pipeline.svg").read_text(encoding="utf-8")
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
