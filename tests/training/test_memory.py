"""A training keeps the memory that a step frees: the next step finds it without asking the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, statistics, sys
import torch
from nrccr.distributed import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory(torch.device("cpu"))
faults = []
for _ in range(20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)  # 64 MB, freed at once
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
sys.stdout.write(str(round(statistics.median(faults[10:]))))
"""
# The median: a small object that outlives a step may lie in what it freed, and one later step then takes new pages.


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone is told to keep memory")
def test_freed_memory_is_there_for_the_next_step() -> None:
    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    if faults("leave") < 100:
        pytest.skip("this system gives large memory without a fault for each page")
    assert faults("keep") < 20
