"""`nrccr qbnorm`: score files normalised with a query bank."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nrccr.errors import UserError


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

    from nrccr.evaluation.qbnorm import ScoreFiles, normalised_metrics
    from nrccr.evaluation.tune import settings_of
    from nrccr.report.screen import qbnorm_table
    from nrccr.terminal import say

    validation = None
    if sims_val_path is not None:
        validation = ScoreFiles(sims_val_path, sims_train_val_path, gallery_bank_val_path, val_query_masks_path)
    test_files = ScoreFiles(sims_test_path, sims_train_test_path, gallery_bank_path, test_query_masks_path)
    settings = settings_of(method, beta, k, alpha)
    before, after, settings, means = normalised_metrics(test_files, validation, settings)
    if means is not None:
        chosen = ", ".join(f"{name}={value:g}" for name, value in settings.used().items())
        say(f"chosen on validation: {chosen}, geometric mean {means[1]:.1f} (before {means[0]:.1f})")
    say(qbnorm_table(before, after, settings))
