"""`nrccr extract`: films and images -> a feature folder."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer

from nrccr.cli.options import Device
from nrccr.errors import UserError, not_written


def extract(
    sources: Annotated[list[Path], typer.Argument(metavar="FILES_OR_FOLDERS...", help="Films and images.")],
    model: Annotated[str, typer.Option(help="Vision model: a folder or hub name, or `pixels` (no weights).")],
    out: Annotated[Path, typer.Option(help="Feature folder to make.")],
    fps: Annotated[str, typer.Option(help="Frames taken a second of film, such as 1, 0.5 or 30000/1001.")] = "1",
    revision: Annotated[str | None, typer.Option(help="Of the hub's repository; the newest if none.")] = None,
    random_weights: Annotated[int | None, typer.Option(help="Seed of random weights instead of trained ones.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Frames encoded together.")] = 32,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Files decoded at the same time.")] = 2,
    device: Device = None,
    shard: Annotated[str, typer.Option(help="Extract one part of several, such as 2/8.")] = "1/1",
    merge: Annotated[bool, typer.Option("--merge", help="Only put finished shards together.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 2 if a file was skipped.")] = False,
) -> None:
    """Encode the frames of films and images. Rerun to resume; damaged files are skipped and listed at the end."""
    from nrccr.distributed import choose_device
    from nrccr.features.extract import Extractor, Pace, finish, unfinished
    from nrccr.features.fingerprint import extraction
    from nrccr.features.prepare import load_preparation
    from nrccr.features.sources import find_sources
    from nrccr.features.store import Store
    from nrccr.models.vision import load_vision
    from nrccr.terminal import say

    pace = Pace(_rate(fps), batch_size, workers, _part(shard))
    if out.exists():
        raise UserError(f"{out}: exists already; choose another folder or remove this one")
    target = choose_device(device)
    found, others = find_sources(sources)
    if others:
        say(f"{others:,} files with other endings are left alone")
    preparation = load_preparation(model, revision=revision, random=random_weights is not None)
    encoder = load_vision(model, revision=revision, seed=random_weights).to(target)
    try:
        store = Store(out, extraction(model, encoder, preparation, fps=pace.fps, batch_size=batch_size))
        if not merge:
            Extractor(encoder, preparation, pace, target).run(found, store)
        left = unfinished(found, store.parts())
        if left and not merge:
            say(f"{out}: shard {shard} is done; {len(left):,} of {len(found):,} files are left to other shards")
            return
        skipped = finish(found, store)
    except OSError as error:
        if isinstance(error, FileExistsError) and out.is_dir():
            say(f"{out}: another process has made it meanwhile")
            return
        raise not_written(out, error, "give another folder as --out") from error
    say(f"{out}: {len(found) - len(skipped):,} of {len(found):,} files")
    for source, reason in skipped:
        say(f"skipped {source.path}: {reason}")
    if strict and skipped:
        raise UserError(
            f"{out}: {len(skipped)} of {len(found)} files were skipped, and --strict is given; mend or remove them"
        )


def _rate(text: str) -> Fraction:
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= 1000 or rate.denominator > 1_000_000:
        raise UserError(f"--fps {text}: give frames a second, above 0 and at most 1000, such as 1, 0.5 or 30000/1001")
    return rate


def _part(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--shard {text}: give a part and how many there are, such as 2/8")
    return int(match[1]), int(match[2])
