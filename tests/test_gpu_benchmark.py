"""benchmarks/gpu.py, which runs where a GPU is lent, rehearsed on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_a_rehearsal_measures_steps_and_trains_on_several_devices(
    tiny_config: Path, tiny_collection: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [
            sys.executable, CHECKOUT / "benchmarks" / "gpu.py", tiny_config, "--root", tiny_collection, "--devices",
            "cpu,cpu", "--steps", "1", "--out", tmp_path / "results", "--ours", "train.log_every=3",
            "evaluation.batch_size=4",
        ],
        env=os.environ | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout, done.stderr)
    found = json.loads((tmp_path / "results" / "gpu.json").read_text())
    step = found["step"]
    assert step["precision"] == {"plain": "fp32", "ours": "bf16"} and step["batch_size"] == 8 and step["flop"] > 0
    assert step["ratio"] > 0 and 0 < step["share_of_peak"]
    first = [step["losses"][name][0] for name in ("plain", "ours")]
    assert first[0] == pytest.approx(first[1], rel=0.05)
    assert list(found["devices"]) == ["cpu", "cpu,cpu"] and "tests" not in found
    for own in found["devices"].values():
        assert own["exit"] == 0 and 0 < own["SumR"] <= 600
