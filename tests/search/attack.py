"""An attack on `nrccr serve`: hostile requests, slow ones, many at once, files that vanish; nothing leaks or dies.

    python -m tests.search.attack INDEX --media DIR --query 狗跑 [--clients 200] [--seconds 60] [--rate 100000]

INDEX is copied; the copy and a copy of DIR, beside a file that must not be served, are what is attacked. Prints what
was sent and the times of answers under load. `tests/search/test_attack.py` runs a short one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nrccr.search import build
from nrccr.search.store import Draft, open_index, write_generation, writing
from tests.search.hostile_requests import (
    SECRET,
    Target,
    attack_bodies,
    attack_paths,
    attack_protocol,
    attack_slowly,
)
from tests.search.serving import served


@dataclass
class Load:
    """Times of answers in milliseconds, and their statuses."""

    times: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def __str__(self) -> str:
        median, last = np.percentile(self.times, [50, 99])
        return f"{len(self.times)} answers, median {median:.0f} ms, p99 {last:.0f} ms, {dict(self.statuses)}"


async def load(target: Target, clients: int, seconds: float, events: list[Callable[[], None]]) -> Load:
    """Clients that ask without a pause; `events` happen at equal distances meanwhile."""
    found, end = Load(), time.monotonic() + seconds
    search = json.dumps({"query": target.query, "top": 3}).encode()
    moments = json.dumps({"video": target.item, "query": target.query, "window": 2}).encode()
    requests = [
        *[("POST", "/api/search", search)] * 8,
        ("POST", "/api/moments", moments),
        ("GET", f"/media/{target.item}", b""),
    ]

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
        while time.monotonic() < end:
            number += 1
            method, path, body = requests[number % len(requests)]
            began = time.monotonic()
            head = f"{method} {path} HTTP/1.1\r\nHost: {target.host}\r\nRange: bytes=0-999\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
            found.times.append(1000 * (time.monotonic() - began))
            found.statuses[int(answer[9:12])] += 1
        writer.close()

    async def happen() -> None:
        for event in events:
            await asyncio.sleep(seconds / (len(events) + 1))
            await asyncio.to_thread(event)

    await asyncio.gather(happen(), *(client(number) for number in range(clients)))
    return found


def lose_files(target: Target) -> None:
    """A video, then the index are removed, and come back."""
    body = json.dumps({"query": target.query}).encode()
    file = next((target.folder / "media").glob(f"{target.item}.*"))
    away = file.rename(target.folder / "away")
    assert target.ask("GET", f"/media/{target.item}")[0] == 404 and target.ask("POST", "/api/search", body)[0] == 200
    away.rename(file)
    index, gone = target.folder / "index", target.folder / "gone"
    index.rename(gone)
    for _ in range(2):  # no folder, an empty one
        for path in ("/api/search", "/api/moments"):
            own = body if path == "/api/search" else json.dumps({"video": target.item, "query": "a"}).encode()
            assert target.ask("POST", path, own)[0] == 503
        assert target.ask("GET", "/api/health")[0] == target.ask("GET", f"/media/{target.item}")[0] == 503
        assert target.ask("GET", "/")[0] == 200
        index.mkdir(exist_ok=True)
    index.rmdir()
    gone.rename(index)
    assert target.ask("POST", "/api/search", body)[0] == 200


def attack(index: Path, media: Path, query: str, options: tuple[int, float, float]) -> Iterator[str]:
    """Everything, one after the other; a line for each part.

    Args:
        index: is copied.
        media: is copied.
        query: that finds something.
        options: clients, seconds of load, searches a second for a client.
    """
    clients, seconds, rate = options
    with tempfile.TemporaryDirectory(prefix="nrccr-attack-") as temporary:
        folder = Path(temporary)
        shutil.copytree(index, folder / "index")
        shutil.copytree(media, folder / "media")
        (folder / "secret.mp4").write_bytes(SECRET)
        (folder / "media" / "out.mp4").symlink_to(folder / "secret.mp4")
        (folder / "media" / "outside").symlink_to(folder)
        items = open_index(folder / "index").ids(2)
        with served(folder / "index", "--media", folder / "media", "--rate", rate) as (port, child):
            target = Target(port, folder, items[0], query)
            for part in (attack_paths, attack_bodies, attack_protocol, attack_slowly, lose_files):
                part(target)
                yield f"{part.__name__}: answers so far {dict(sorted(target.seen.items()))}"
            before = _held(child.pid)
            draft = open_index(folder / "index", mapped=False).draft()
            events = [partial(build.remove, folder / "index", [items[1]]), partial(_put, folder / "index", draft)] * 3
            done = asyncio.run(load(target, clients, seconds, events))
            assert set(done.statuses) <= {200, 206}, done.statuses
            yield f"{clients} clients, {seconds:.0f} s, load {os.getloadavg()[0]:.1f}: {done}"
            time.sleep(6)  # idle connections are closed after 5
            after = _held(child.pid)
            assert after["files"] <= before["files"] + 5, (before, after)
            yield f"files and MiB held before and after: {before} {after}"
            assert target.ask("GET", "/api/health")[0] == 200 and child.poll() is None
            child.send_signal(signal.SIGINT)
            _, said = child.communicate(timeout=30)
        assert child.returncode == 0 and "Traceback" not in said, said[-3000:]


def _put(index: Path, draft: Draft) -> None:
    with writing(index):
        write_generation(index, draft)


def _held(process: int) -> dict[str, int]:
    """Open files and resident MiB of a process."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return {"files": len(os.listdir(f"/proc/{process}/fd")), "MiB": int(resident.split()[1]) // 1024}


def main() -> None:
    """Attack, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("--media", type=Path, required=True)
    parser.add_argument("--query", required=True)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=10_000)
    given: Any = parser.parse_args()
    for line in attack(given.index, given.media, given.query, (given.clients, given.seconds, given.rate)):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
