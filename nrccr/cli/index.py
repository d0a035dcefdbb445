"""`nrccr index`: an index of a feature folder, made, added to, or without some of its items."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from nrccr.cli.bank import bank_folder
from nrccr.cli.options import Device
from nrccr.errors import UserError


def index(
    out: Annotated[Path, typer.Option(help="Folder of the index.")],
    path: Annotated[Path | None, typer.Argument(metavar="[RUN_DIR_OR_CHECKPOINT]", show_default=False)] = None,
    features: Annotated[Path | None, typer.Option(help="Feature folder of the items.")] = None,
    add: Annotated[bool, typer.Option("--add", help="Add the items that the index lacks.")] = False,
    remove: Annotated[list[str] | None, typer.Option(help="Remove this item; may be given more than once.")] = None,
    kind: Annotated[str, typer.Option(help="exact, ivfpq (small) or hnsw (fast).")] = "exact",
    lists: Annotated[int, typer.Option(min=0, max=1 << 20, help="ivfpq: lists; 0: 4 sqrt(N).")] = 0,
    code_bytes: Annotated[int, typer.Option(min=1, max=512, help="ivfpq: bytes of a vector.")] = 32,
    links: Annotated[int, typer.Option(min=2, max=128, help="hnsw: neighbours of a vector.")] = 16,
    build_effort: Annotated[int, typer.Option(min=1, max=2000, help="hnsw: candidates while it is built.")] = 80,
    fps: Annotated[
        float | None,
        typer.Option(min=0.001, max=1000, help="Frames a second of the features; default: as extracted, or 1."),
    ] = None,
    normalise: Annotated[str | None, typer.Option(help="nnn: fold a bias against hubs in.")] = None,
    bank: Annotated[Path | None, typer.Option(help="nnn: folder of `nrccr bank`; default: <RUN_DIR>/bank.")] = None,
    k: Annotated[int, typer.Option(min=1, help="nnn: neighbours.")] = 1,
    alpha: Annotated[float, typer.Option(help="nnn: weight of the bias.")] = 0.75,
    device: Device = None,
) -> None:
    """Index videos or images for `nrccr search`, `moments` and `serve`."""
    changed = _changed(
        kind, {"lists": lists, "code_bytes": code_bytes, "links": links, "build_effort": build_effort}, normalise
    )
    if normalise is None and (bank is not None or k != 1 or alpha != 0.75):
        raise UserError("--bank, --k and --alpha are for --normalise nnn; give it too")
    if not math.isfinite(alpha):
        raise UserError(f"--alpha {alpha}: give a finite number")
    made_new = changed or kind != "exact" or fps is not None or normalise is not None
    if remove and (path or features or add or made_new or device is not None):
        raise UserError("--remove takes only --out; leave the rest out")
    if add and made_new:
        raise UserError("--add keeps how the index was made; leave the options of that out")
    if not remove and (path is None or features is None):
        raise UserError("give RUN_DIR_OR_CHECKPOINT and --features, or --remove")

    from nrccr.evaluation.banks import read_bank
    from nrccr.search import build
    from nrccr.search.vectors import KINDS, Shape
    from nrccr.systems.loading import load_retriever
    from nrccr.terminal import say

    if remove:
        build.remove(out, remove)
        say(f"{len(set(remove))} items removed from {out}")
        return
    assert path is not None and features is not None
    chosen = next((known for known in KINDS if known == kind), None)
    if chosen is None:
        raise UserError(f"--kind {kind}: give {', '.join(KINDS)}")
    shape = Shape(chosen, lists, code_bytes, links, build_effort)
    retriever = load_retriever(path, [], device)
    if add:
        say(f"{build.add(retriever, features, out)} items added to {out}")
        return
    hubs = None
    if normalise is not None:
        found = read_bank(bank_folder(path, bank), retriever.checkpoint, retriever.device)
        hubs = build.Hubs(found, k, alpha)
    count = build.build(retriever, features, out, (build.fps_of(features, fps), shape), hubs)
    say(f"{count} items in {out}")


USUAL = {"lists": 0, "code_bytes": 32, "links": 16, "build_effort": 80}
OWN = {"ivfpq": ("lists", "code_bytes"), "hnsw": ("links", "build_effort")}


def _changed(kind: str, given: dict[str, int], normalise: str | None) -> bool:
    """Whether options of one kind are given.

    Raises:
        UserError: they are another kind's.
    """
    if normalise not in (None, "nnn"):
        raise UserError(f"--normalise {normalise}: an index holds a bias of nnn alone; give nnn")
    changed = [name for name, value in given.items() if value != USUAL[name]]
    wrong = next((name for name in changed if name not in OWN.get(kind, ())), None)
    if wrong is not None:
        raise UserError(f"--{wrong.replace('_', '-')} is of no use with --kind {kind}; leave it out")
    return bool(changed)
