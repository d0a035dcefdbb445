"""What the commands do that compare runs; the command line imports this when one of them runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from nrccr.cli.commands import test_run, train_run
from nrccr.config.schema import Config
from nrccr.data.collections import GENERATED
from nrccr.data.generated.collection import Recipe, generate, read_recipe
from nrccr.errors import UserError
from nrccr.evaluation.compare import bootstrap, common_ranks, rank_variance, read_outcome
from nrccr.files import write_text
from nrccr.report import noise
from nrccr.report.screen import comparison_table, languages_table, noise_table
from nrccr.systems.settings import load_config
from nrccr.terminal import say
from nrccr.training.runfolder import RunFolder


def compare_under_noise(
    config: Path,
    overrides: Sequence[str],
    root: Path | None,
    videos: tuple[int, int, int] | None,
    out: Path,
    translators: Sequence[str],
    models: Sequence[str],
    seeds: Sequence[int],
    device: str | None,
) -> None:
    """Train and test every model with every translator and seed; a table on screen and as noise.md, noise.json, a plot.

    A run that is finished is kept, one that was stopped goes on.

    Args:
        config: the configuration file.
        overrides: `key=value`, for every run.
        root: folder of the collections; None takes a generated one in `out`, made with `videos` in the splits.
        videos: sizes of that one's splits; None takes the usual ones.
        out: folder of all runs.
        translators: values of `data.translator`.
        models: names in `analysis.noise.MODELS`.
        seeds: of each model with each translator.
        device: see nrccr.distributed.choose_device.

    Raises:
        UserError: an unknown model, a configuration that a finished run does not have, no data.
    """
    system = load_config(config, overrides).model
    if system != "nrccr":
        raise UserError(f"{config}: a configuration of {system}; noise compares models of nrccr")
    unknown = [model for model in models if model not in noise.MODELS]
    if unknown:
        raise UserError(f"--models {unknown[0]}: unknown; choose from {', '.join(noise.MODELS)}")
    cells = noise.cells(models, translators, seeds)
    configs = {cell: load_config(config, [*overrides, *cell.overrides]) for cell in cells}
    folders = {cell: RunFolder(out / cell.name) for cell in cells}
    for cell, folder in folders.items():
        if folder.config.is_file():
            folder.require_resumable(configs[cell])
            if (folder.path / "test" / "metrics.json").is_file() and load_config(folder.config) != configs[cell]:
                raise UserError(f"{folder.path}: finished with other epochs or patience; give another --out")
    place = root if root is not None else _own_collection(out, configs[cells[0]], translators, videos)
    found: dict[noise.Cell, dict[str, Any]] = {}
    for number, cell in enumerate(cells, start=1):
        metrics = folders[cell].path / "test" / "metrics.json"
        say(f"{number} of {len(cells)}: {cell.name}{', finished before' if metrics.is_file() else ''}")
        if not metrics.is_file():
            resume = folders[cell].config.is_file()
            train_run(configs[cell], place, folders[cell], device, resume=resume, overwrite=False, test=True)
            test_run(folders[cell].path, place, [], "test", None, device)
        found[cell] = json.loads(metrics.read_text(encoding="utf-8"))
    rows = noise.collect(found)
    write_text(out / "noise.md", noise.to_markdown(rows))
    write_text(out / "noise.json", noise.to_json(rows))
    noise.plot(rows, out / "noise.png")
    say(noise_table(rows))
    say(f"written: {out}/noise.md, noise.json, noise.png")


def _own_collection(out: Path, config: Config, translators: Sequence[str], videos: tuple[int, int, int] | None) -> Path:
    """The generated collection beside the runs, made if it is not there."""
    if config.data.collection != GENERATED.names[0]:
        raise UserError(f"{config.data.collection}: give the folder of the collections as --root")
    rates = [noise.rate_of(name) for name in translators]
    known = tuple(rate / 100 for rate in rates if rate is not None)
    if len(known) < len(rates):
        raise UserError(
            f"--translators {','.join(translators)}: those of the generated collection are noise0, noise20 ..."
        )
    root = out / "VisualSearch"
    recipe = Recipe(rates=known) if videos is None else Recipe(rates=known, videos=videos)
    folder = root / GENERATED.names[0]
    if not folder.is_dir():
        say(f"written: {generate(root, recipe)}")
    elif recipe != read_recipe(folder):
        raise UserError(f"{folder}: made for another comparison; give another --out, or this one as --root {root}")
    return root


def compare_runs(
    runs: Sequence[Path], split: Literal["test", "val"], languages: bool, resamples: int, seed: int
) -> None:
    """Compare two tests by a paired bootstrap, or the ranks of several query languages.

    Raises:
        UserError: runs that were not tested, or on other items.
    """
    outcomes = [read_outcome(path, split) for path in runs]
    if languages:
        ranks = common_ranks(outcomes)
        say(languages_table(outcomes, rank_variance(ranks), len(ranks[0])))
    else:
        alike = runs[0].name == runs[1].name  # folders of one language, say
        names = [str(run) if alike else run.name for run in runs]
        say(comparison_table(bootstrap(outcomes[0], outcomes[1], resamples, seed), *names))
