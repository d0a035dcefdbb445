"""`nrccr noise`: models under translation noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nrccr.cli.options import ConfigFile, Device, Overrides, integers
from nrccr.errors import UserError

if TYPE_CHECKING:
    from nrccr.cli.train import Start
    from nrccr.config.schema import Config


def noise(
    config: ConfigFile,
    overrides: Overrides = None,
    root: Annotated[Path | None, typer.Option(help="Folder of collections; left out: a generated one.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the runs; default: runs/noise or runs/noise-quick.")
    ] = None,
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
    """Compare models under translation noise; rerun to resume: finished runs are kept."""
    names, compared, chosen = translators.split(","), models.split(","), integers("--seeds", seeds)
    if quick:
        names, chosen = [names[0], names[-1]], chosen[:1]
    extra = ["train.epochs=3"] if quick else []
    sizes = (150, 30, 60) if quick else None
    place = out if out is not None else Path("runs/noise-quick" if quick else "runs/noise")
    _compare(Comparison(config, [*extra, *(overrides or [])], names, compared, chosen), root, sizes, place, device)


@dataclass(frozen=True)
class Comparison:
    """The models, translators and seeds to compare.

    Attributes:
        config: the configuration file.
        overrides: `key=value`, for every run.
        translators: values of `data.translator`.
        models: names in the VARIANTS of the configuration's system.
        seeds: of each model with each translator.
    """

    config: Path
    overrides: Sequence[str]
    translators: Sequence[str]
    models: Sequence[str]
    seeds: Sequence[int]


def _compare(
    comparison: Comparison, root: Path | None, videos: tuple[int, int, int] | None, out: Path, device: str | None
) -> None:
    """Train and test every model with every translator and seed; a table on screen and as noise.md, noise.json, a plot.

    A run that is finished is kept, one that was stopped is resumed.

    Args:
        comparison: models, translators, seeds.
        root: folder of the collections; None takes a generated one in `out`.
        videos: sizes of the generated collection's splits; None takes the usual ones.
        out: folder of all runs.
        device: see nrccr.distributed.choose_device.

    Raises:
        UserError: an unknown model, a finished run of another configuration, no data.
    """
    from nrccr.cli.test import EvaluationOptions, test_run
    from nrccr.cli.train import cache_of, train_run
    from nrccr.files import write_text
    from nrccr.models.encoders import with_encoder
    from nrccr.report import noise as study
    from nrccr.report.screen import noise_table
    from nrccr.systems.settings import load_config
    from nrccr.systems.table import part_of
    from nrccr.terminal import say
    from nrccr.training.runfolder import RunFolder

    system = load_config(comparison.config, comparison.overrides).model
    variants = part_of(system, "settings").VARIANTS
    unknown = [model for model in comparison.models if model not in variants]
    if unknown:
        known = f"choose from {', '.join(variants)}" if variants else "it has no variants; give another configuration"
        raise UserError(f"--models {unknown[0]}: unknown to {comparison.config}, a configuration of {system}; {known}")
    cells = study.cells(
        {model: variants[model] for model in comparison.models}, comparison.translators, comparison.seeds
    )
    given = {cell: load_config(comparison.config, [*comparison.overrides, *cell.overrides]) for cell in cells}
    configs = {cell: with_encoder(config, root)[0] for cell, config in given.items()}  # as runs record them
    folders = {cell: RunFolder(out / cell.name) for cell in cells}
    for cell, folder in folders.items():
        if folder.config.is_file():
            folder.require_resumable(configs[cell])
            tested = (folder.path / "test" / "metrics.json").is_file()
            if tested and load_config(folder.config, alone=True) != configs[cell]:
                raise UserError(f"{folder.path}: finished with other epochs or patience; give another --out")
    data = root if root is not None else _generated(out, configs[cells[0]], comparison.translators, videos)
    found: dict[study.Cell, dict[str, Any]] = {}
    for number, cell in enumerate(cells, start=1):
        metrics = folders[cell].path / "test" / "metrics.json"
        say(f"{number} of {len(cells)}: {cell.name}{', finished before' if metrics.is_file() else ''}")
        if not metrics.is_file():
            start: Start = "resume" if folders[cell].config.is_file() else "new"
            train_run(configs[cell], data, folders[cell], device, start=start, test=True)
            test_run(folders[cell].path, data, EvaluationOptions(cache_of(configs[cell]), device=device))
        found[cell] = study.read_metrics(metrics)
    rows = study.collect(found)
    write_text(out / "noise.md", study.to_markdown(rows))
    write_text(out / "noise.json", study.to_json(rows))
    study.plot(rows, out / "noise.png")
    say(noise_table(rows))
    say(f"written: {out}/noise.md, noise.json, noise.png")


def _generated(out: Path, config: Config, translators: Sequence[str], videos: tuple[int, int, int] | None) -> Path:
    """The generated collection beside the runs, made if it is missing."""
    from nrccr.data.collections import GENERATED
    from nrccr.data.generated.collection import Recipe, generate, read_recipe
    from nrccr.report.noise import rate_of
    from nrccr.terminal import say

    if config.data.collection != GENERATED.names[0]:
        raise UserError(f"{config.data.collection}: give the folder of the collections as --root")
    rates = [rate_of(name) for name in translators]
    known = tuple(rate / 100 for rate in rates if rate is not None)
    if len(known) < len(rates):
        raise UserError(
            f"--translators {','.join(translators)}: give those of the generated collection, noise0, noise20 ..."
        )
    root = out / "VisualSearch"
    recipe = Recipe(rates=known) if videos is None else Recipe(rates=known, videos=videos)
    folder = root / GENERATED.names[0]
    if not folder.is_dir():
        say(f"written: {generate(root, recipe)}")
    elif recipe != read_recipe(folder):
        raise UserError(f"{folder}: made for another comparison; give another --out, or this one as --root {root}")
    return root
