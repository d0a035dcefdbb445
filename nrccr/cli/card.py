"""`nrccr card`: the model card of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nrccr.errors import UserError


def card(
    run: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run folder, or a saved model.")],
    test: Annotated[
        Path | None,
        typer.Option(help="Folder of `nrccr test` with the results; default: <RUN_DIR>/test, if there is one."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: <RUN_DIR>/README.md.")] = None,
    license: Annotated[str | None, typer.Option(help="Licence of the weights, such as cc-by-4.0.")] = None,
) -> None:
    """Write a model card: training data, results with intervals, use, limits, licence, versions."""
    if not (run / "config.yaml").is_file():
        raise UserError(f"{run}: no run folder (config.yaml); give one, or a saved model")
    if out is not None and out.is_dir():
        raise UserError(f"--out {out}: is a folder; give a file")

    from nrccr.files import refuse_links, write_text
    from nrccr.systems.card import model_card
    from nrccr.systems.loading import weights_of
    from nrccr.systems.saving import CARD, require_test_of, subject_of
    from nrccr.systems.settings import load_config
    from nrccr.terminal import say

    weights = weights_of(run)
    subject = subject_of(run, load_config(run / "config.yaml", alone=True), test, license)
    if test is not None:
        require_test_of(weights, test)
    if out is None:
        refuse_links(run, [CARD])  # the run may be a stranger's
    path = out if out is not None else run / CARD
    write_text(path, model_card(subject))
    say(f"written: {path}")
