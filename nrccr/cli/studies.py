"""The commands that compare, tabulate and normalise; `nrccr.cli` adds them to its own. Heavy imports stay inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nrccr.cli.options import ConfigFile, Device, Overrides, SplitName, integers, split_of
from nrccr.errors import UserError


def noise(
    config: ConfigFile,
    overrides: Overrides = None,
    root: Annotated[Path | None, typer.Option(help="Folder of collections; left out: a generated one.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of all; default: runs/noise, or runs/noise-quick.")] = None,
    translators: Annotated[
        str, typer.Option(help="Values of data.translator, cleanest first.")
    ] = "noise0,noise20,noise40",
    models: Annotated[
        str, typer.Option(help="basic, nrccr, no-similarity, no-feature, no-cycle, no-adversary.")
    ] = "basic,nrccr",
    seeds: Annotated[str, typer.Option(help="Seeds of each model with each translator.")] = "0,1,2",
    quick: Annotated[
        bool, typer.Option("--quick", help="One seed, two translators, three epochs, a small collection.")
    ] = False,
    device: Device = None,
) -> None:
    """Compare models under translation noise; what is finished is kept, so that a stopped comparison goes on."""
    from nrccr.cli.comparisons import compare_under_noise

    names, compared, chosen = translators.split(","), models.split(","), integers("--seeds", seeds)
    if quick:
        names, chosen = [names[0], names[-1]], chosen[:1]
    extra = ["train.epochs=3"] if quick else []
    sizes = (150, 30, 60) if quick else None
    place = out if out is not None else Path("runs/noise-quick" if quick else "runs/noise")
    compare_under_noise(config, [*extra, *(overrides or [])], root, sizes, place, names, compared, chosen, device)


def table(
    runs: Annotated[
        list[Path] | None, typer.Option(help="Folder to look for finished runs in; repeat it for more. Default: runs.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for tables.md and tables.tex.")] = None,
    docs: Annotated[
        Path | None, typer.Option(help="Markdown file whose marked part the papers' tables become.")
    ] = None,
) -> None:
    """Put finished runs into the papers' tables: published figures beside ours, mean and deviation over seeds."""
    from nrccr.report.tables import make_tables, to_rich, update_docs, write_tables
    from nrccr.terminal import say

    usual = Path("runs")
    folders = runs if runs is not None else [usual] if usual.is_dir() else []
    papers, others = make_tables(folders)
    for made in (*papers, *others):
        say(to_rich(made))
    if out is not None:
        write_tables(out, [*papers, *others])
        say(f"written: {out}/tables.md, tables.tex")
    if docs is not None:
        update_docs(docs, papers)
        say(f"written: {docs}")


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN_A RUN_B...", help="Tested runs, or test folders.")],
    split: SplitName = "test",
    languages: Annotated[
        bool, typer.Option("--languages", help="The runs differ in query language: rank variance and mean recall.")
    ] = False,
    resamples: Annotated[int, typer.Option(min=100, help="Of the bootstrap.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
) -> None:
    """Compare two tests of the same queries, with 95 % intervals (paired bootstrap over items), or languages."""
    if len(runs) < 2 or (len(runs) > 2 and not languages):
        raise UserError(f"{len(runs)} runs given; compare takes two, or with --languages two or more")

    from nrccr.cli.comparisons import compare_runs

    compare_runs(runs, split_of(split), languages, resamples, seed)


def qbnorm(
    sims_test_path: Annotated[Path, typer.Option("--sims_test_path", help="Scores, test captions x items.")],
    sims_train_test_path: Annotated[
        Path | None, typer.Option("--sims_train_test_path", help="Scores of the bank, its captions x the same items.")
    ] = None,
    test_query_masks_path: Annotated[
        Path | None, typer.Option("--test_query_masks_path", help="Booleans, items x captions: false leaves one out.")
    ] = None,
    gallery_bank_path: Annotated[
        Path | None, typer.Option("--gallery_bank_path", help="Scores of bank items x the same items; for dual_*.")
    ] = None,
    method: Annotated[str, typer.Option(help="is, dis, dual_is, dual_dis, csls, nnn, dsl or sinkhorn.")] = "dis",
    beta: Annotated[float, typer.Option(help="Inverse temperature.")] = 20.0,
    k: Annotated[int, typer.Option(help="Activated items (dis), neighbours (csls, nnn) or rounds (sinkhorn).")] = 1,
    alpha: Annotated[float, typer.Option(help="Weight of the bias of nnn.")] = 0.75,
    tune: Annotated[bool, typer.Option("--tune", help="Choose beta, k and alpha on validation scores.")] = False,
    sims_val_path: Annotated[
        Path | None, typer.Option("--sims_val_path", help="With --tune: scores, validation captions x their items.")
    ] = None,
    sims_train_val_path: Annotated[
        Path | None, typer.Option("--sims_train_val_path", help="With --tune: the bank against validation items.")
    ] = None,
    val_query_masks_path: Annotated[
        Path | None, typer.Option("--val_query_masks_path", help="With --tune: as --test_query_masks_path.")
    ] = None,
    gallery_bank_val_path: Annotated[
        Path | None, typer.Option("--gallery_bank_val_path", help="With --tune: as --gallery_bank_path.")
    ] = None,
) -> None:
    """Normalise scores in files (.npy, .npz, pickled arrays) with a query bank: metrics before and after."""
    if tune != (sims_val_path is not None):
        raise UserError("--tune and --sims_val_path go together; give both or neither")

    from nrccr.evaluation.qbnorm import Files
    from nrccr.evaluation.qbnorm import qbnorm as run

    validation = None
    if sims_val_path is not None:
        validation = Files(sims_val_path, sims_train_val_path, gallery_bank_val_path, val_query_masks_path)
    test_files = Files(sims_test_path, sims_train_test_path, gallery_bank_path, test_query_masks_path)
    run(test_files, validation, method, beta, k, alpha)
