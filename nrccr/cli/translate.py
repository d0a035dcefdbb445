"""`nrccr translate`: the translated caption files of a collection."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nrccr.cli.options import Device
from nrccr.errors import UserError

if TYPE_CHECKING:
    from nrccr.data.collections import SplitName
    from nrccr.translation.files import Job, Translates


def translate(
    collection: Annotated[Path, typer.Argument(metavar="COLLECTION", help="Folder of one collection: ROOT/vatex.")],
    to: Annotated[str, typer.Option(help="Target language, an ISO code: zh, de.")],
    model: Annotated[str | None, typer.Option(help="Marian, NLLB or M2M100 model, a folder or hub name.")] = None,
    back_model: Annotated[
        str | None, typer.Option(help="Model of the way back into English, which a Marian model needs.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="Program instead of a model: a text a line in, a text a line out.")
    ] = None,
    back_engine: Annotated[str | None, typer.Option(help="Program of the way back into English.")] = None,
    translator: Annotated[
        str | None, typer.Option(help="Tag in the files' names, `data.translator`; default: the model's name.")
    ] = None,
    splits: Annotated[str, typer.Option(help="Splits whose files are made.")] = "train,val,test",
    task: Annotated[int, typer.Option(help="Task of a collection that has two.")] = 1,
    beams: Annotated[int, typer.Option(min=1, help="Width of a model's search.")] = 4,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Captions a batch; default: 32 of a model, 500 of a program.")
    ] = None,
    device: Device = None,
    overwrite: Annotated[bool, typer.Option(help="Replace files that were made otherwise.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Translate nothing; look for what went wrong.")] = False,
    lines: Annotated[int, typer.Option(min=0, help="Line numbers shown of each fault; 0: all.")] = 10,
) -> None:
    """Translate what people wrote, there and back, as training and testing need it; rerun to resume."""
    from nrccr.terminal import say
    from nrccr.translation.files import find_collection, jobs, translate_file

    if (model or back_model) and (engine or back_engine):
        raise UserError("--model and --engine: give a model or a program, not both")
    first = model or back_model or engine or back_engine
    if first is None and not (check and translator):
        raise UserError("give --model or --engine, or --check with --translator")
    found = find_collection(collection, to, translator or _tag(first or "", is_engine=not (model or back_model)), task)
    _require_tag(found.translator)
    todo = jobs(found, _splits(splits))
    if not check:
        forward = any(job.language == to for job in todo)
        two = (model, back_model) if model or back_model else (engine, back_engine)
        route = (found.layout.source, to)
        load = partial(_load, device=device, beams=beams) if model or back_model else _engines
        translators = load(two, route, forward)
        size = batch_size or (32 if model or back_model else 500)
        for job in todo:
            made = translate_file(job, translators[job.language], size, overwrite=overwrite)
            say(f"{job.out.name}: {'translated' if made else 'done already'}")
    _show_quality(todo, lines)


def _tag(name: str, *, is_engine: bool) -> str:
    """A tag for a model's name or a program's command."""
    name = name.split()[0] if is_engine and name.split() else name
    return re.sub(r"[^\w.+-]+", "-", Path(name).name, flags=re.ASCII).strip("-._") or "model"


def _require_tag(tag: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]{0,99}", tag, flags=re.ASCII):
        raise UserError(f"--translator {tag}: it stands in file names; give letters, digits, '.', '+', '-' and '_'")


def _splits(text: str) -> list[SplitName]:
    from nrccr.data.collections import SPLITS

    names = text.split(",")
    unknown = [name for name in names if name not in SPLITS]
    if unknown:
        raise UserError(f"--splits {text}: no split {unknown[0]!r}; choose from {','.join(SPLITS)}")
    return [split for split in SPLITS if split in names]


def _load(
    names: tuple[str | None, str | None], route: tuple[str, str], forward: bool, device: str | None, beams: int
) -> dict[str, Translates]:
    from nrccr.distributed import choose_device
    from nrccr.translation.translator import load_translator, reverse

    (model, back), (spoken, to) = names, route
    chosen = choose_device(device)
    found: dict[str, Translates] = {}
    if forward or back is None:
        if model is None:
            raise UserError("--back-model alone: training captions need --model too; or leave them out with --splits")
        there = load_translator(model, spoken, to, chosen, beams=beams)
        found[to] = there
        if back is None:
            found[spoken] = reverse(there, to, spoken)
    if back is not None:
        found[spoken] = load_translator(back, to, spoken, chosen, beams=beams, option="--back-model")
    return found


def _engines(commands: tuple[str | None, str | None], route: tuple[str, str], forward: bool) -> dict[str, Translates]:
    from nrccr.translation.engine import Engine

    (there, back), (spoken, to) = commands, route
    if back is None:
        raise UserError(f"--engine alone: the way back into {spoken} needs --back-engine")
    found: dict[str, Translates] = {spoken: Engine(back, "--back-engine")}
    if forward:
        if there is None:
            raise UserError("--back-engine alone: training captions need --engine too; or leave them out with --splits")
        found[to] = Engine(there)
    return found


def _show_quality(todo: list[Job], shown: int) -> None:
    """The table of all files, and below it the lines."""
    from rich.table import Table

    from nrccr.terminal import say
    from nrccr.translation.files import empty_lines
    from nrccr.translation.quality import inspect

    found = [inspect(job.source, job.out, job.language, empty_lines(job)) for job in todo]
    table = Table(title="translations that look wrong")
    table.add_column("file", overflow="fold")
    for name in ("captions", *found[0].kinds):
        table.add_column(name, justify="right")
    for quality in found:
        counts = [f"{len(numbers):,}" for numbers in quality.kinds.values()]
        table.add_row(quality.path.name, f"{quality.captions:,}", *counts)
    say(table)
    for quality in found:
        for kind, numbers in quality.kinds.items():
            if numbers:
                listed = ", ".join(map(str, numbers[: shown or None]))
                more = f" and {len(numbers) - shown} more" if shown and len(numbers) > shown else ""
                say(f"{quality.path.name}: {kind}: lines {listed}{more}")
