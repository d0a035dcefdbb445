"""The command line. Heavy imports stay inside the commands, so that `nrccr --help` answers at once."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Annotated, Literal

import typer

from nrccr import __version__
from nrccr.cli.options import ConfigFile, Device, Overrides, Root, SplitName, integers, split_of
from nrccr.cli.studies import compare, noise, qbnorm, table
from nrccr.errors import Interrupted, UserError

app = typer.Typer(
    help="Find a video with a query in a language that has no human-labelled training data. "
    "With --debug, anywhere, an error shows its traceback.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
STOPPED = 130  # exit code after Ctrl-C, as of a shell
SPLITS: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nrccr {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of `nrccr` itself, which stand before the command."""


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

    from nrccr.cli.commands import test_run, train_run
    from nrccr.config.schema import load_config
    from nrccr.training.runfolder import RunFolder

    loaded = load_config(config, overrides or [])
    folder = RunFolder(out if out is not None else Path("runs") / f"{config.stem}-s{loaded.seed}")
    train_run(loaded, root, folder, device, resume=resume, overwrite=overwrite, test=test)
    if test:
        test_run(folder.path, root, [], "test", None, device)


@app.command()
def test(
    path: Annotated[Path, typer.Argument(metavar="RUN_DIR_OR_CHECKPOINT")],
    root: Root,
    overrides: Overrides = None,
    split: SplitName = "test",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write; default: <RUN_DIR>/<split>, or <RUN_DIR>/<split>-text-to-text."),
    ] = None,
    task: Annotated[
        str, typer.Option(help="text-to-visual, or text-to-text: queries against their translations.")
    ] = "text-to-visual",
    by_length: Annotated[bool, typer.Option("--by-length", help="Also recalls by the query's length.")] = False,
    device: Device = None,
    bank: Annotated[
        Path | None, typer.Option(help="Folder of the bank for evaluation.normalise; default: <RUN_DIR>/bank.")
    ] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="Choose beta, k and alpha of evaluation.normalise on the validation split.")
    ] = False,
) -> None:
    """Test a run or a published checkpoint: writes metrics.json and ranks.tsv, prints a table."""
    if task not in ("text-to-visual", "text-to-text"):
        raise UserError(f"--task {task}: give text-to-visual or text-to-text")

    from nrccr.cli.commands import test_run

    test_run(
        path,
        root,
        overrides or [],
        split_of(split),
        out,
        device,
        among_texts=task == "text-to-text",
        by_length=by_length,
        bank=bank,
        tune=tune,
    )


@app.command()
def bank(
    path: Annotated[Path, typer.Argument(metavar="RUN_DIR_OR_CHECKPOINT")],
    root: Root,
    size: Annotated[int, typer.Option(min=1, help="How many captions.")],
    overrides: Overrides = None,
    split: Annotated[
        str, typer.Option(help="Where they come from: train, val, or with --transductive test.")
    ] = "train",
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
    transductive: Annotated[bool, typer.Option("--transductive", help="Let test queries into the bank.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: <RUN_DIR>/bank.")] = None,
    device: Device = None,
) -> None:
    """Sample a query bank for `nrccr test ... evaluation.normalise=METHOD` and score it against the test items."""
    chosen = next((name for name in SPLITS if name == split), None)
    if chosen is None:
        raise UserError(f"--split {split}: give train or val, or with --transductive test")

    from nrccr.evaluation.banks import bank_run

    bank_run(path, root, overrides or [], chosen, size, seed, transductive, out, device)


@app.command()
def check(config: ConfigFile, root: Root, overrides: Overrides = None) -> None:
    """Validate a collection on disk before hours of training; exits with code 2 if something is wrong."""
    from nrccr.cli.commands import look_over
    from nrccr.config.schema import load_config
    from nrccr.report.screen import counts_table
    from nrccr.terminal import say

    loaded = load_config(config, overrides or [])
    collection, report = look_over(loaded, root)
    say(counts_table(report, title=f"{collection.name} in {collection.folder}"))
    for note in report.notes:
        say(f"note: {note}")
    for problem in report.problems:
        say(f"problem: {problem}")
    if report.problems:
        raise UserError(f"{collection.folder}: {len(report.problems)} problems found, listed above; mend them first")
    say("no problems found")


@app.command()
def generate(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of collections; `generated` is made in it.")],
    seed: Annotated[int, typer.Option(help="Of scenes, captions and translation errors.")] = 0,
    noise: Annotated[
        str, typer.Option(help="Shares of wrongly translated words, percent, one translator each.")
    ] = "0,20,40",
    videos: Annotated[str, typer.Option(help="Videos in training, validation and test.")] = "600,100,300",
    captions: Annotated[int, typer.Option(help="Captions of a video.")] = 5,
) -> None:
    """Write the generated collection: moving handwriting with captions in English, German and Chinese."""
    from nrccr.data.generated.collection import Recipe, generate, translator_name
    from nrccr.terminal import say

    rates = tuple(percent / 100 for percent in integers("--noise", noise))
    sizes = integers("--videos", videos)
    if len(sizes) != 3:
        raise UserError(f"--videos {videos}: give three numbers, such as 600,100,300")
    recipe = Recipe(seed, rates, (sizes[0], sizes[1], sizes[2]), captions)
    folder = generate(out, recipe)
    say(f"{folder}: {sum(sizes):,} videos with {captions} captions each")
    say(f"data.target: de or zh; data.translator: {', '.join(map(translator_name, rates))}")


@app.command()
def rank(
    path: Annotated[Path, typer.Argument(metavar="RUN_DIR_OR_CHECKPOINT")],
    queries: Annotated[list[str], typer.Argument(metavar="QUERY...", help="Captions in the target language.")],
    root: Root,
    split: SplitName = "test",
    top: Annotated[int, typer.Option(min=1, help="How many videos of each query.")] = 3,
    right: Annotated[str | None, typer.Option(help="The video that each query means, with commas between.")] = None,
    picture: Annotated[Path | None, typer.Option(help="PNG of film strips, for features that are pixels.")] = None,
    device: Device = None,
) -> None:
    """Rank a split's videos for queries."""
    from nrccr.cli.commands import rank_videos

    expected = right.split(",") if right is not None else None
    if expected is not None and len(expected) != len(queries):
        raise UserError(f"--right names {len(expected)} videos for {len(queries)} queries; give one a query")
    rank_videos(path, root, queries, split_of(split), top, expected, picture, device)


@app.command()
def convert(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="c2kd: C2KD's published data pickles.")],
    pickles: Annotated[
        list[Path], typer.Argument(metavar="PICKLE", help="One or two: train and test, told apart by their names.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of collections; `multi_<NAME>` is made in it.")],
    name: Annotated[
        str | None, typer.Option(help="msrvtt, vatex, youcook2 or rudder, where the files' names do not tell.")
    ] = None,
    feature: Annotated[
        str | None, typer.Option(help="Key of the features in the pickle, where it has several.")
    ] = None,
    fill_missing: Annotated[
        bool, typer.Option("--fill-missing", help="Fill missing languages with English, as the published loader does.")
    ] = False,
) -> None:
    """Convert published data to our layout: frame features and one caption file a language."""
    if kind != "c2kd":
        raise UserError(f"convert {kind}: give c2kd")

    from nrccr.report.screen import converted_table
    from nrccr.systems.c2kd.convert import convert_c2kd, guess_collection, splits_of
    from nrccr.terminal import say

    splits = splits_of(pickles)
    collection = guess_collection(name, pickles)
    converted = convert_c2kd(splits, out, collection, feature=feature, fill_missing=fill_missing)
    say(converted_table(converted))
    for remark in converted.remarks:
        say(f"note: {remark}")


for study in (noise, table, compare, qbnorm):
    app.command()(study)


def main() -> None:
    """Run the command line: a user's error is one line and exit code 2; `--debug` shows its traceback before."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        # Typer turns Ctrl-C into this code, and returns it.
        if app(arguments or ["--help"], standalone_mode=False) == STOPPED:
            raise KeyboardInterrupt
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
        return str(error), STOPPED
    if isinstance(error, KeyboardInterrupt):
        return "stopped", STOPPED
    if hasattr(error, "format_message"):  # a usage error
        return f"{error.format_message()} (see `nrccr --help`)", 2
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or error}", 2
    if type(error).__name__ == "OutOfMemoryError":
        return "the device is out of memory; lower train.batch_size or evaluation.batch_size", 2
    raise error
