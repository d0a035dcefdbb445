"""The command line. Heavy imports stay inside the commands, so that `nrccr --help` answers at once."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Annotated, Literal

import typer

from nrccr.errors import Interrupted, UserError

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
SplitName = Annotated[str, typer.Option(help="test or val.")]
ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG.yaml")]

SPLITS: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")


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

    from nrccr.commands import test_run, train_run
    from nrccr.config import load_config
    from nrccr.training.checkpoint import RunFolder

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

    from nrccr.commands import test_run

    test_run(
        path,
        root,
        overrides or [],
        _split(split),
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

    from nrccr.banks import bank_run

    bank_run(path, root, overrides or [], chosen, size, seed, transductive, out, device)


@app.command()
def check(config: ConfigFile, root: Root, overrides: Overrides = None) -> None:
    """Validate a collection on disk before hours of training; exits with code 2 if something is wrong."""
    from nrccr.commands import look_over
    from nrccr.config import load_config
    from nrccr.tables import counts_table, say

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
    from nrccr.tables import say

    rates = tuple(percent / 100 for percent in _integers("--noise", noise))
    sizes = _integers("--videos", videos)
    if len(sizes) != 3:
        raise UserError(f"--videos {videos}: give three numbers, such as 600,100,300")
    recipe = Recipe(seed, rates, (sizes[0], sizes[1], sizes[2]), captions)
    folder = generate(out, recipe)
    say(f"{folder}: {sum(sizes):,} videos with {captions} captions each")
    say(f"data.target: de or zh; data.translator: {', '.join(map(translator_name, rates))}")


@app.command()
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
    from nrccr.comparisons import compare_under_noise

    names, compared, chosen = translators.split(","), models.split(","), _integers("--seeds", seeds)
    if quick:
        names, chosen = [names[0], names[-1]], chosen[:1]
    extra = ["train.epochs=3"] if quick else []
    sizes = (150, 30, 60) if quick else None
    place = out if out is not None else Path("runs/noise-quick" if quick else "runs/noise")
    compare_under_noise(config, [*extra, *(overrides or [])], root, sizes, place, names, compared, chosen, device)


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
    from nrccr.commands import rank_videos

    expected = right.split(",") if right is not None else None
    if expected is not None and len(expected) != len(queries):
        raise UserError(f"--right names {len(expected)} videos for {len(queries)} queries; give one a query")
    rank_videos(path, root, queries, _split(split), top, expected, picture, device)


@app.command()
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
    from nrccr.analysis.report import make_tables, to_rich, update_docs, write_tables
    from nrccr.tables import say

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


@app.command()
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

    from nrccr.comparisons import compare_runs

    compare_runs(runs, _split(split), languages, resamples, seed)


@app.command()
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

    from nrccr.qbnorm import Files
    from nrccr.qbnorm import qbnorm as run

    validation = None
    if sims_val_path is not None:
        validation = Files(sims_val_path, sims_train_val_path, gallery_bank_val_path, val_query_masks_path)
    test_files = Files(sims_test_path, sims_train_test_path, gallery_bank_path, test_query_masks_path)
    run(test_files, validation, method, beta, k, alpha)


def _split(name: str) -> Literal["val", "test"]:
    if name not in ("test", "val"):
        raise UserError(f"--split {name}: give test or val")
    return "test" if name == "test" else "val"


def _integers(option: str, text: str) -> list[int]:
    """Numbers written with commas between them."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{option} {text}: give whole numbers with commas between them") from None


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
