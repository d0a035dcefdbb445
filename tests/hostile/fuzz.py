"""Coverage-guided fuzzing of every parser of `tests/hostile/readers.py`, with atheris (the extra `fuzz`).

    python -m tests.hostile.fuzz                          every parser, 60 seconds each: 69 parsers take 75 minutes
    python -m tests.hostile.fuzz captions ranks           those alone
    python -m tests.hostile.fuzz --seconds 5              a look at each: the test marked `slow` takes 2 seconds
    python -m tests.hostile.fuzz captions --corpus DIR    keep what it learns, and begin with it the next time

The budget before a release is 60 seconds a parser on one core (`OMP_NUM_THREADS=1`). A single input may take 10 seconds
and 2 GiB of memory, and is at most 16 KiB long. A parser passes if each input gave a result or a refusal in one line.
Any other input is written to `--findings`, and `parse(NAME, content, folder)` repeats what it did; it becomes a test of
`tests/hostile/test_found.py`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

INPUT_SECONDS, INPUT_BYTES, MEMORY_MIB = 10, 16 * 2**10, 2048
SEEDS = 20  # damaged copies of the valid file to begin with, besides itself


def fuzz(name: str, seconds: int, corpus: Path, findings: Path) -> None:
    """Fuzz one parser in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=["nrccr"], enable_loader_override=False):
        from tests.hostile.readers import PARSERS, parse
        from tests.hostile.samples import mutated
    import random

    valid = PARSERS[name].valid()
    for number in range(SEEDS + 1):
        content = mutated(valid, random.Random(number)) if number else valid
        (corpus / f"seed-{number}").write_bytes(content)
    folder = Path(tempfile.mkdtemp(prefix="nrccr-fuzz-")) / "files"

    def once(data: bytes) -> None:
        parse(name, data, folder)

    options = [
        f"-max_total_time={seconds}",
        f"-timeout={INPUT_SECONDS}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-max_len={max(INPUT_BYTES, len(valid))}",
        f"-artifact_prefix={findings}/{name}-",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], once)
    atheris.Fuzz()


def main() -> int:
    """Fuzz parsers one after the other, each in a process of its own; the exit code is 1 after a finding."""
    parser = argparse.ArgumentParser(description="Fuzz parsers.")
    parser.add_argument("parsers", nargs="*", help="names in tests/hostile/readers.py; default: all")
    parser.add_argument("--seconds", type=int, default=60, help="for each parser")
    parser.add_argument("--corpus", type=Path, help="folder of inputs to begin with and to add to")
    parser.add_argument("--findings", type=Path, default=Path("findings"), help="folder of what fails")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        fuzz(given.parsers[0], given.seconds, given.corpus, given.findings)
        return 0
    from tests.hostile.readers import PARSERS

    unknown = [name for name in given.parsers if name not in PARSERS]
    if unknown:
        parser.error(f"{unknown[0]}: no such parser; known: {', '.join(PARSERS)}")
    given.findings.mkdir(parents=True, exist_ok=True)
    failed = False
    for name in given.parsers or PARSERS:
        failed |= not _in_process(name, given.seconds, given.corpus, given.findings)
    return int(failed)


def _in_process(name: str, seconds: int, kept: Path | None, findings: Path) -> bool:
    """Fuzz one parser in another process and say how it went; returns whether nothing was found."""
    with tempfile.TemporaryDirectory(prefix="nrccr-corpus-") as temporary:
        corpus = Path(temporary) if kept is None else kept / name
        corpus.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-W", "ignore", "-m", __spec__.name, name, "--child", f"--seconds={seconds}",
                   f"--corpus={corpus}", f"--findings={findings}"]  # fmt: skip
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
        said = done.stderr.decode(errors="replace")
        runs = re.search(r"number_of_executed_units: (\d+)", said) or re.search(r"Done (\d+) runs", said)
        memory = re.search(r"peak_rss_mb: +(\d+)", said)
        reached = len(list(corpus.iterdir()))
    parts = [f"{runs[1] if runs else '?'} inputs", f"{reached} kept", f"{memory[1] if memory else '?'} MiB"]
    print(f"{name}: {', '.join(parts)}, {'nothing found' if done.returncode == 0 else 'FAILED'}", flush=True)
    if done.returncode:
        (findings / f"{name}.txt").write_text(said[-20_000:], encoding="utf-8")
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
