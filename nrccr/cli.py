"""The command line. Heavy imports stay inside the commands, so that `nrccr --help` answers at once."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nrccr.errors import Interrupted, UserError

if TYPE_CHECKING:
    from nrccr.config import Config
    from nrccr.training.checkpoint import RunFolder

app = typer.Typer(
    help="Find a video with a query in a language that has no human-labelled training data. "
    "With --debug, anywhere, an error shows its traceback.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Root = Annotated[Path, typer.Option(help="Folder that holds the collections, often named VisualSearch.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; default: the first GPU, or else the CPU.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Configuration overrides.")]
ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG.yaml")]


@app.command()
def train(
    config: ConfigFile,
    root: Root,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default: runs/<config name>-s<seed>.")] = None,
    device: Device = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the run in the folder first.")] = False,
    test: Annotated[bool, typer.Option("--test", help="Test the best weights at the end.")] = False,
) -> None:
    """Train a model, validating after every epoch."""
    if resume and overwrite:
        raise UserError("--resume and --overwrite exclude each other; give one")

    from nrccr.config import load_config
    from nrccr.training.checkpoint import RunFolder

    loaded = load_config(config, overrides or [])
    folder = RunFolder(out if out is not None else Path("runs") / f"{config.stem}-s{loaded.seed}")
    _train(loaded, root, folder, device, resume=resume, overwrite=overwrite, test=test)
    if test:
        _test(folder.path, root, [], "test", None, device)


@app.command()
def test(
    path: Annotated[Path, typer.Argument(metavar="RUN_DIR_OR_CHECKPOINT")],
    root: Root,
    overrides: Overrides = None,
    split: Annotated[str, typer.Option(help="test or val.")] = "test",
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: <RUN_DIR>/<split>.")] = None,
    device: Device = None,
) -> None:
    """Test a run or a published checkpoint: writes metrics.json and ranks.tsv, prints a table."""
    if split not in ("test", "val"):
        raise UserError(f"--split {split}: give test or val")
    _test(path, root, overrides or [], "test" if split == "test" else "val", out, device)


@app.command()
def check(config: ConfigFile, root: Root, overrides: Overrides = None) -> None:
    """Validate a collection on disk before hours of training; exits with code 2 if something is wrong."""
    from nrccr.config import load_config
    from nrccr.data.check import check_collection
    from nrccr.data.collections import locate
    from nrccr.tables import counts_table, say

    data = load_config(config, overrides or []).data
    collection = locate(
        root, data.collection, target=data.target, translator=data.translator, feature=data.feature
    )
    report = check_collection(collection, mismatch_tolerance=data.mismatch_tolerance)
    say(counts_table(report, title=f"{collection.name} in {collection.folder}"))
    for note in report.notes:
        say(f"note: {note}")
    for problem in report.problems:
        say(f"problem: {problem}")
    if report.problems:
        raise UserError(f"{collection.folder}: {len(report.problems)} problems found, listed above; mend them first")
    say("no problems found")


def _train(
    config: Config, root: Path, folder: RunFolder, device: str | None, *, resume: bool, overwrite: bool, test: bool
) -> None:
    from dataclasses import asdict

    from nrccr.data.datasets import Reader
    from nrccr.data.tokens import CaptionTokenizer
    from nrccr.distributed import Runtime, choose_device, make_deterministic
    from nrccr.models.nrccr import build_discriminator, build_network
    from nrccr.models.text import backbone_config, build_backbone
    from nrccr.tables import counts_line, say
    from nrccr.training.loop import Trainer

    chosen = choose_device(device)
    if resume:
        folder.require_resumable(config)
    else:
        folder.refuse(overwrite=overwrite)
    make_deterministic(config.seed)
    runtime = Runtime(chosen, config.train.precision)
    tokenizer = CaptionTokenizer(config.text.model, config.text.max_tokens)
    reader = Reader.open(config, root, tokenizer)
    pairs, queries = reader.pairs(), reader.queries("val")
    if test:
        reader.queries("test")  # a broken test split is told now, not after hours
    backbone = build_backbone(
        backbone_config(config.text.model, config.text.backbone),
        pretrained=config.text.model if config.text.pretrained else None,
    )
    network = build_network(config, backbone, reader.features.width)
    discriminator = build_discriminator(config, int(backbone.config.hidden_size))
    trainer = Trainer(config, network, discriminator, pairs, queries, runtime, folder)
    counts = {"train": asdict(pairs.counts), "val": asdict(queries.counts)}
    for split, found in counts.items():
        say(counts_line(split, found))
    state = folder.load_state() if resume else None
    if state is not None:
        trainer.resume(state)
        for change in folder.take_up(config, chosen, pairs.fingerprint(), trainer.progress.step):
            say(f"note: {change}")
        say(f"{folder.path}: goes on after epoch {trainer.progress.epoch}, step {trainer.progress.step}")
    else:


        def save_backbone(target: Path) -> None:
            backbone.config.save_pretrained(target)
            tokenizer.save(target)

        folder.begin(config, chosen, counts, pairs.fingerprint(), save_backbone)
    best = trainer.run()
    say(f"{folder.path}: best validation R@1+5+10 {best.best:.2f} in epoch {best.best_epoch}")


def _test(
    path: Path, root: Path, overrides: list[str], split: Literal["test", "val"], out: Path | None, device: str | None
) -> None:
    from dataclasses import asdict

    from nrccr.config import resolved_switches
    from nrccr.data.datasets import Reader
    from nrccr.evaluation.evaluator import evaluate
    from nrccr.retriever import load_retriever
    from nrccr.tables import counts_line, metrics_table, say

    retriever = load_retriever(path, overrides, device)
    config = retriever.config
    reader = Reader.open(config, root, retriever.tokenizer)
    if reader.features.width != retriever.feature_width:
        raise UserError(
            f"{reader.features.folder}: features are {reader.features.width} wide, {retriever.checkpoint} was trained "
            f"on {retriever.feature_width}; give the features it was trained on as data.feature=NAME"
        )
    folder = out if out is not None else (path if path.is_dir() else path.parent) / split
    _require_writable(folder)
    queries = reader.queries(split)
    say(counts_line(split, asdict(queries.counts)))
    metrics = evaluate(
        retriever.network,
        queries,
        batch_size=config.evaluation.batch_size,
        target_weight=config.evaluation.target_weight,
        kind=config.switch("score"),
        device=retriever.device,
        save_scores=config.evaluation.save_scores,
        header={
            "collection": reader.collection.name,
            "split": split,
            "checkpoint": str(retriever.checkpoint),
            "switches": resolved_switches(config),
        },
        folder=folder,
    )
    say(metrics_table(metrics, config))
    say(f"written: {folder}")


def _require_writable(folder: Path) -> None:
    """Find out before hours of encoding that results cannot be kept."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UserError(f"{folder}: cannot be written; give another folder with --out")


def main() -> None:
    """Run the command line: a user's error is one line and exit code 2; `--debug` shows its traceback before."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments or ["--help"], standalone_mode=False)
    except BaseException as error:
        if len(arguments) < len(sys.argv) - 1:
            traceback.print_exc()
        message, code = _explain(error)
        typer.echo(f"nrccr: {' '.join(message.split())}", err=True)
        raise SystemExit(code) from None


def _explain(error: BaseException) -> tuple[str, int]:
    """One line and an exit code for an error that a user can do something about; others are raised again."""
    if isinstance(error, UserError):
        return str(error), 2
    if isinstance(error, Interrupted):
        return str(error), 130
    if isinstance(error, KeyboardInterrupt):
        return "stopped", 130
    if hasattr(error, "format_message"):  # a usage error
        return f"{error.format_message()} (see `nrccr --help`)", 2
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or error}", 2
    if type(error).__name__ == "OutOfMemoryError":
        return "the device is out of memory; lower train.batch_size or evaluation.batch_size", 2
    raise error
