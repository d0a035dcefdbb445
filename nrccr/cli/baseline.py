"""`nrccr baseline`: frozen encoders on the same split, so that what training buys is visible."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nrccr.cli.options import ConfigFile, Device, Overrides, Root
from nrccr.errors import UserError

if TYPE_CHECKING:
    from nrccr.config.schema import Config
    from nrccr.training.runfolder import RunFolder


def baseline(
    config: ConfigFile,
    root: Root,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default: runs/baseline-<config name>-s<seed>.")] = None,
    device: Device = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the run in the folder first.")] = False,
) -> None:
    """Fit a frozen pair of encoders on the training split, if need be, and test it: a run folder, as of train."""
    from nrccr.cli.test import EvaluationOptions, test_run
    from nrccr.systems.settings import load_config
    from nrccr.training.runfolder import RunFolder

    loaded = load_config(config, overrides or [])
    folder = RunFolder(out if out is not None else Path("runs") / f"baseline-{config.stem}-s{loaded.seed}")
    fit_run(loaded, root, folder, device, overwrite=overwrite)
    test_run(folder.path, root, EvaluationOptions(device=device))


def fit_run(config: Config, root: Path, folder: RunFolder, device: str | None, *, overwrite: bool) -> None:
    """Fit into a run folder.

    Args:
        config: of the run.
        root: folder of the collections.
        folder: what to write.
        device: see nrccr.distributed.choose_device.
        overwrite: delete an existing run.

    Raises:
        UserError: a system that is trained, damaged data, no such encoder, or a folder that cannot be used.
    """
    from nrccr.distributed import choose_device, make_deterministic, peak_memory
    from nrccr.models.encoders import with_encoder
    from nrccr.report.screen import counts_line
    from nrccr.safeload.unpickle import save_weights
    from nrccr.systems.table import has_part, part_of
    from nrccr.terminal import say
    from nrccr.training.features import describe_features

    if not has_part(config.model, "fit"):
        raise UserError(f"model={config.model}: is trained, by `nrccr train`; give a configuration of a baseline")
    config, note = with_encoder(config, root)  # and recorded so: the run's own folder of the encoder has no name
    if note:
        say(note)
    chosen = choose_device(device)
    folder.refuse(overwrite=overwrite)
    with folder.held():
        make_deterministic(config.seed)
        fitted = part_of(config.model, "fit").fit(config, root, chosen)
        for split, counts in fitted.counts.items():
            say(counts_line(split, counts))
        record = fitted.record | {"features": describe_features(fitted.places)}
        folder.begin(config, chosen, fitted.counts, fitted.fingerprint, record, fitted.model.save_encoders)
        save_weights(fitted.model.network.state_dict(), folder.weights)
        folder.finish(0, 0, peak_memory(chosen))
    say(f"{folder.path}: {fitted.line}")
