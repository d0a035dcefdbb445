"""`nrccr test`: a run or a published checkpoint."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nrccr.cli.options import Device, Overrides, Root, SplitOption, split_of
from nrccr.config.choices import TEXT_TO_TEXT
from nrccr.errors import UserError

if TYPE_CHECKING:
    from nrccr.data.queries import Split
    from nrccr.evaluation.rule import Rule
    from nrccr.systems.retriever import Retriever


def test(
    path: Annotated[Path, typer.Argument(metavar="RUN_DIR_OR_CHECKPOINT")],
    root: Root,
    overrides: Overrides = None,
    split: SplitOption = "test",
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
    if task not in ("text-to-visual", TEXT_TO_TEXT):
        raise UserError(f"--task {task}: give text-to-visual or text-to-text")

    among_texts = task == TEXT_TO_TEXT
    options = EvaluationOptions(overrides or [], split_of(split), out, device, among_texts, by_length, bank, tune)
    test_run(path, root, options)


@dataclass(frozen=True)
class EvaluationOptions:
    """What a test is asked for.

    Attributes:
        overrides: `key=value`, over the recorded configuration.
        split: the split to test on.
        out: where to write; None takes the run folder, or the folder of the checkpoint.
        device: see nrccr.distributed.choose_device.
        among_texts: rank the queries' translations, not the items.
        by_length: also recalls by the query's length.
        bank: folder of the bank for `evaluation.normalise`; None takes the run's.
        tune: choose the normalisation's parameters on the validation split.
    """

    overrides: Sequence[str] = ()
    split: Literal["test", "val"] = "test"
    out: Path | None = None
    device: str | None = None
    among_texts: bool = False
    by_length: bool = False
    bank: Path | None = None
    tune: bool = False


def test_run(path: Path, root: Path, options: EvaluationOptions) -> None:
    """Test a run or a checkpoint: tables, and files in `options.out` or the folder of the split.

    Raises:
        UserError: no model, no such split, features or a bank that do not fit, a folder that cannot be written.
    """
    from nrccr.config.schema import resolved_switches
    from nrccr.data.queries import among_texts
    from nrccr.evaluation.evaluate import evaluate
    from nrccr.evaluation.rule import Rule
    from nrccr.report.screen import counts_line, test_tables
    from nrccr.systems.base import splits_of
    from nrccr.systems.loading import load_retriever
    from nrccr.terminal import say

    retriever = load_retriever(path, options.overrides, options.device)
    config = retriever.config
    _require_together(config.evaluation.normalise, options)
    name = f"{options.split}-{TEXT_TO_TEXT}" if options.among_texts else options.split
    folder = options.out if options.out is not None else (path if path.is_dir() else path.parent) / name
    _require_writable(folder)
    splits = splits_of(retriever, root, options.split)
    plain = replace(Rule.of(config, retriever.device), by_length=options.by_length)
    if options.among_texts:
        plain = replace(plain, save_scores=False)
    normalises = config.evaluation.normalise != "none" and not options.among_texts
    # All banks are read before anything is written.
    rules = [
        _normalising(retriever, root, path, plain, split, options, at) if normalises else plain
        for at, split in enumerate(splits)
    ]
    for split, rule in zip(splits, rules, strict=True):
        label = f"{split.name}, queries in {split.language}" if len(splits) > 1 else split.name
        say(counts_line(label, dict(split.counts)))
        header = {
            "collection": split.collection,
            **({"queries_in": split.language} if len(splits) > 1 else {}),
            "split": split.name,
            "checkpoint": str(retriever.checkpoint),
            "switches": resolved_switches(config),
        }
        searched = among_texts(split) if options.among_texts else split
        metrics = evaluate(retriever.network, searched, rule, folder / split.folder, header)
        for table in test_tables(metrics, config):
            say(table)
    say(f"written: {folder}")


def _normalising(
    retriever: Retriever, root: Path, path: Path, rule: Rule, split: Split, options: EvaluationOptions, at: int
) -> Rule:
    """The rule with the normalisation of `evaluation.normalise`; `at`: position among the test's splits."""
    from nrccr.cli.bank import bank_folder
    from nrccr.evaluation.banks import BankFolder, normalisation_with, tuned
    from nrccr.evaluation.tune import settings_of
    from nrccr.systems.base import splits_of
    from nrccr.terminal import say

    evaluation = retriever.config.evaluation
    settings = settings_of(evaluation.normalise, evaluation.beta, evaluation.k, evaluation.alpha)
    place = BankFolder(bank_folder(path, options.bank) / split.folder, retriever.checkpoint)
    normalisation = normalisation_with(settings, place, split, retriever.device)
    if options.tune:
        held_out = splits_of(retriever, root, "val")[at]
        normalisation, best = tuned(retriever.network, normalisation, held_out, rule, place)
        chosen = ", ".join(f"{name}={value:g}" for name, value in normalisation.settings.used().items())
        say(f"chosen on validation: {chosen}, SumR {best:.1f}")
    return replace(rule, normalisation=normalisation)


def _require_together(method: str, options: EvaluationOptions) -> None:
    """Options that need each other, or exclude each other."""
    if options.among_texts and (options.tune or method != "none"):
        raise UserError("--task text-to-text: scores among texts are not normalised; leave out evaluation.normalise")
    if method == "none" and options.tune:
        raise UserError("--tune: there is nothing to choose; give evaluation.normalise=dis or another method")
    if method == "none" and options.bank is not None:
        raise UserError("--bank: no scores are normalised; give evaluation.normalise=dis or another method")
    if options.tune and options.split == "val":
        raise UserError("--tune with --split val: parameters are chosen on val; test them on --split test")


def _require_writable(folder: Path) -> None:
    """Find out before hours of encoding that results cannot be written."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UserError(f"{folder}: cannot be written; give another folder with --out")
