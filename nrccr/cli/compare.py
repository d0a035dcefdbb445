"""`nrccr compare`: two tests with intervals, or several query languages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nrccr.cli.options import SplitOption, split_of
from nrccr.errors import UserError


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN_A RUN_B...", help="Tested runs, or test folders.")],
    split: SplitOption = "test",
    languages: Annotated[
        bool, typer.Option("--languages", help="Query languages of one run or of several: mean and rank variance.")
    ] = False,
    resamples: Annotated[int, typer.Option(min=100, help="Resamples of the bootstrap.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
) -> None:
    """Compare two tests of the same queries, with 95 % intervals (paired bootstrap over items), or languages."""
    if len(runs) != 2 and not languages:
        given = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
        raise UserError(f"{given} given; compare takes two, or with --languages any number")

    from nrccr.evaluation.compare import bootstrap, common_ranks, outcomes_of, rank_variance, read_outcome
    from nrccr.report.screen import comparison_table, languages_table
    from nrccr.terminal import say

    if languages:
        outcomes = [outcome for path in runs for outcome in outcomes_of(path, split_of(split))]
        if len(outcomes) < 2:
            raise UserError(f"{runs[0]}: has one query language; name the tests of others, too")
        ranks = common_ranks(outcomes)
        say(languages_table(outcomes, rank_variance(ranks), len(ranks[0])))
    else:
        outcomes = [read_outcome(path, split_of(split)) for path in runs]
        alike = runs[0].name == runs[1].name  # such as two folders of one language
        names = [str(run) if alike else run.name for run in runs]
        say(comparison_table(bootstrap(outcomes[0], outcomes[1], resamples, seed), *names))
