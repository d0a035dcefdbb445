"""`nrccr bank`: the query bank of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nrccr.cli.launch import in_processes
from nrccr.cli.options import Devices, Overrides, Root
from nrccr.data.layouts import SPLITS
from nrccr.errors import UserError


def bank(
    path: Annotated[Path, typer.Argument(metavar="RUN_DIR_OR_CHECKPOINT")],
    root: Root,
    size: Annotated[int, typer.Option(min=1, help="How many captions.")],
    overrides: Overrides = None,
    split: Annotated[
        str, typer.Option(help="Where they come from: train, val, or with --transductive test.")
    ] = "train",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw.")] = 0,
    transductive: Annotated[bool, typer.Option("--transductive", help="Let test queries into the bank.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: <RUN_DIR>/bank.")] = None,
    device: Devices = None,
) -> None:
    """Sample a query bank for `nrccr test ... evaluation.normalise=METHOD` and score it against the test items."""
    chosen = next((name for name in SPLITS if name == split), None)
    if chosen is None:
        raise UserError(f"--split {split}: give train or val, or with --transductive test")
    if chosen == "test" and not transductive:
        raise UserError(
            "--split test: its queries are what a test measures; give train or val, or --transductive if results that "
            "saw all test queries are what you want"
        )

    def work() -> None:
        from nrccr.data.queries import Sample
        from nrccr.evaluation.banks import WRITTEN, BankFolder, write_bank
        from nrccr.evaluation.rule import Rule
        from nrccr.files import refuse_links
        from nrccr.report.screen import counts_line
        from nrccr.systems.base import splits_of
        from nrccr.systems.loading import load_retriever
        from nrccr.terminal import say

        retriever = load_retriever(path, overrides or [], device)
        rule = Rule.of(retriever.config, retriever.device)
        samples = list(splits_of(retriever, root, chosen, Sample(size, seed)))
        tested = list(splits_of(retriever, root, "test"))
        if any(sample.by_language for sample in samples):
            what = f"model={retriever.config.model}: its queries are in several languages, a query bank holds one"
            raise UserError(f"{what}; use `nrccr test --tune`, which draws one for each")
        folder = bank_folder(path, out)
        for sample in samples:
            places = [Path(sample.folder, name) for name in WRITTEN]
            if out is None:  # the folder itself is in the run's
                refuse_links(folder.parent, [Path(folder.name, place) for place in places])
            else:
                refuse_links(folder, places)
        for sample, test in zip(samples, tested, strict=True):
            label = f"bank from {chosen}" + (f", queries in {sample.language}" if len(samples) > 1 else "")
            say(counts_line(label, {"captions": len(sample.headline.ids), "items": len(sample.gallery)}))
            place = BankFolder(folder / sample.folder, retriever.checkpoint)
            draw = {"seed": seed, "transductive": transductive}
            if not write_bank(retriever.network, sample, test, rule, place, draw):
                say(
                    "note: scores.npz left out, it needs more than evaluation.memory_mb; a test scores the bank by "
                    "itself"
                )
        say(f"written: {folder}")

    in_processes(device, work)


def bank_folder(path: Path, chosen: Path | None) -> Path:
    """The folder of the bank of a run or checkpoint."""
    return chosen if chosen is not None else (path if path.is_dir() else path.parent) / "bank"
