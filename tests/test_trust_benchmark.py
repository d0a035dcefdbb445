"""benchmarks/trust.py on a few translations whose wrong words are known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]


def measure(run: Path, root: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, CHECKOUT / "benchmarks" / "trust.py", run, "--root", root, "--out", out],
        env=os.environ | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_precision_by_hand(tmp_path: Path) -> None:
    """Ten Chinese translations, of two to four words; the two least trusted have lost all and none of theirs."""
    texts = tmp_path / "root" / "generated" / "TextData"
    texts.mkdir(parents=True)
    (texts / "generatedtrain_noise20_enc2zh.caption.txt").write_text("v0#zh#0 x\n", "utf-8")
    lost = [4, 0, 0, 0, 0, 1, 0, 0, 0, 2]  # of four words, by caption
    lines = [
        {"item": "v0", "number": at, "clean": list("abcd"), "noisy": list("abcd"[count:])}
        for at, count in enumerate(lost)
    ]
    lines[9]["noisy"] = ["c", "d", "x", "y"]
    errors = texts / "generatedtrain_noise20_enc2zh.errors.jsonl"
    errors.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(
        "model: quartet\nloss: {similarity: 0, feature: 0}\n"
        "data: {collection: generated, languages: [zh], translator: noise20}\n",
        "utf-8",
    )
    rows = [f"{at / 10}\tv0#enc#{caption}\tzh\tx\n" for at, caption in enumerate([0, 1, 9, 2, 3, 4, 6, 7, 8, 5])]
    (run / "trust.tsv").write_text("trust\tcaption\tlanguage\ttranslation\n" + "".join(rows), "utf-8")
    done = measure(run, tmp_path / "root", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "trust.json").read_text())
    assert found["zh"] == found["all"] and found["all"]["captions"] == 10
    assert found["all"]["wrong"] == pytest.approx(0.3) and found["all"]["lost"] == pytest.approx(7 / 40)
    least = found["all"]["least_trusted"]
    assert list(least) == ["20%"], "fifty of ten cannot be looked at, nor 5 % of them"
    assert least["20%"] == pytest.approx(
        {"captions": 2, "wrong": 0.5, "lost": 0.5, "among_the_noisiest": 0.5, "by_chance": 0.2}
    )
    # Places of distrust 10, 8, 1 for noise 10, 9, 8, and the mean place 4 for the rest: covariance over deviations.
    noise = [10, 4, 9, 4, 4, 4, 4, 4, 4, 8]
    gap = [(10 - at - 5.5) * (place - 5.5) for at, place in enumerate(noise)]
    spread = sum((place - 5.5) ** 2 for place in noise) * sum((at - 4.5) ** 2 for at in range(10))
    assert found["all"]["spearman"] == pytest.approx(sum(gap) / spread**0.5)
    errors.unlink()
    assert "what it should have been" in measure(run, tmp_path / "root", tmp_path / "out").stderr
